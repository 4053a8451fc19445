"""Streams and their log: what nobody writes any more gets an end, what is another's is left alone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Text
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import AttemptRow, Commit, Hold, StreamKey, StreamLimits
from cauce.domain.usage import Usage
from cauce.engine.streams.streams import Streams
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE, created, head_of, new_stream, text, whole

pytestmark = pytest.mark.anyio

REQUEST = Request("m", (Message("user", (TextPart("hi"),)),))


class Answer:
    """Stands for a turn: gives `batches` and then, unless told to `stall`, nothing more."""

    def __init__(self, *batches: Sequence[Delta], stall: bool = False) -> None:
        self._batches = batches
        self._stall = stall
        self.closed = asyncio.Event()

    def call(self, request: Request, scope: Scope, **_: Any) -> Call:
        return Call(request, scope, ())

    async def open(self, call: Call) -> Deltas:
        return Deltas(self._source())

    async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
        try:
            for batch in self._batches:
                yield batch
            if self._stall:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


def streams(log: InprocStreamLog, clock: FakeClock, answer: Answer | None = None, node: str = "a") -> Streams:
    turn: Any = answer or Answer()
    return Streams(log, turn, clock, node)


@contextlib.asynccontextmanager
async def tended(some: Streams) -> Any:
    """Within it, holds are renewed and what is orphaned is ended."""
    task = asyncio.create_task(some.sweep_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def start(some: Streams) -> None:
    await some.start(KEY, REQUEST, Scope(), "req")


async def until_text(log: InprocStreamLog) -> None:
    while not any(isinstance(record.delta, Text) for record in await whole(log)):
        await log.wait(KEY, (await head_of(log)).tail)


async def until_ended(log: InprocStreamLog) -> Finish:
    while True:
        records = await whole(log)
        if isinstance(records[-1].delta, Finish):
            return records[-1].delta
        await log.wait(KEY, len(records))


async def passing(clock: FakeClock, what: asyncio.Event | asyncio.Task[Any]) -> None:
    """Let time go on until `what` has come."""
    waiting = what if isinstance(what, asyncio.Task) else asyncio.create_task(what.wait())
    while not waiting.done():
        if clock.waiting:
            clock.advance(3)
        await asyncio.sleep(0)


async def test_orphans_are_ended_as_incomplete_failed_or_cancelled() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    holds: dict[str, Hold] = {}
    for id in ("with text", "without", "cancelled", "ended"):
        hold = await created(log, StreamKey("tenant/key", id))
        opened = (Attempt(1, "up", "m", "primary"), Text("a")) if id != "without" else ()
        bills = (AttemptRow(1, "up", "m"),) if opened else ()
        holds[id] = await log.append(hold, Commit(opened, "running" if opened else None, attempts=bills))
    await log.request_cancel(holds["cancelled"].key)
    holds["ended"] = await log.append(holds["ended"], Commit((Finish("stop"),), "completed"))
    await log.release(list(holds.values()))
    await streams(log, clock).adopt()
    states = {id: (await head_of(log, hold.key)).state for id, hold in holds.items()}
    assert states == {"with text": "incomplete", "without": "failed", "cancelled": "cancelled", "ended": "completed"}
    (bill,) = await log.attempts(holds["with text"].key)
    assert (bill.outcome, bill.usage) == ("incomplete", Usage(estimated=True))
    assert await log.orphans(10) == []


async def test_more_orphans_than_are_ended_at_a_time_are_all_ended() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    await log.release([await created(log, StreamKey("tenant/key", str(number))) for number in range(250)])
    await streams(log, clock).adopt()
    assert await log.orphans(10) == []


async def test_cancel_on_any_node_reaches_the_holder() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    holder, other = streams(log, clock, answer), streams(log, clock, node="b")
    async with tended(holder):
        await start(holder)
        await until_text(log)
        cancelling = asyncio.create_task(other.cancel(KEY))
        await passing(clock, answer.closed)
        assert (await until_ended(log)).outcome == "cancelled"
        await passing(clock, cancelling)


async def test_silent_stream_keeps_its_lease_while_its_holder_works() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    holder = streams(log, clock, answer)
    async with tended(holder):
        await start(holder)
        await until_text(log)
        for _ in range(10):
            await clock.until_waiting()
            clock.advance(3)
            assert await log.orphans(10) == []
        assert not answer.closed.is_set()
    await holder.drain(0)


async def test_zombie_closes_its_upstream_and_writes_nothing_more() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    zombie = streams(log, clock, answer)
    await start(zombie)
    await until_text(log)
    clock.advance(LEASE + 1)
    hold = await log.claim((await log.orphans(1))[0], "b")
    assert hold is not None
    hold = await log.append(hold, text("b"))
    async with tended(zombie):
        await passing(clock, answer.closed)
        while zombie.open_streams:
            await asyncio.sleep(0)
    assert [record.delta for record in await whole(log)][1:] == [Text("a"), Text("b")]


class Refusing(InprocStreamLog):
    """Takes nothing while `full`."""

    full = False

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        if self.full:
            raise LogUnavailable("the disk is full")
        return await super().append(hold, commit)


async def test_stream_that_cannot_be_written_closes_its_upstream_and_is_ended_once_it_can() -> None:
    clock = FakeClock()
    log = Refusing(clock)
    answer = Answer((Text("a"),), (Text("b"),), stall=True)
    some = streams(log, clock, answer)
    log.full = True
    await start(some)
    await answer.closed.wait()
    while some.open_streams:
        await asyncio.sleep(0)
    assert not (await head_of(log)).ended
    log.full = False
    async with tended(some):
        ending = asyncio.create_task(until_ended(log))
        await passing(clock, ending)
        assert ending.result().outcome == "failed"


async def test_terminal_and_the_bills_of_all_attempts_are_one_commit() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    first, second = Attempt(1, "up", "m", "primary"), Attempt(2, "two", "n", "fallback", reason="busy")
    some = streams(log, clock, Answer((first,), (second, Text("a")), (Finish("stop", Usage(3, 4)),)))
    await start(some)
    await until_ended(log)
    assert await log.attempts(KEY) == [
        AttemptRow(1, "up", "m", outcome="failed"),
        AttemptRow(2, "two", "n", usage=Usage(3, 4), outcome="completed"),
    ]


async def test_answer_that_is_too_long_for_a_stream_ends_it() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, limits=StreamLimits(bytes=4_000))
    answer = Answer(*[(Text("x" * 500),)] * 100, stall=True)
    some = streams(log, clock, answer)
    await start(some)
    finish = await until_ended(log)
    assert finish.outcome == "incomplete" and finish.error is not None and finish.error.code == "payload_too_large"
    await answer.closed.wait()


async def test_record_keeps_the_epoch_it_was_written_in() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    hold = await log.append((await log.create(new_stream())).hold or Hold(KEY, 0, 0), text("a"))
    await log.release([hold])
    some = streams(log, clock)
    await some.adopt()
    assert [await some.epoch(KEY, seq) for seq in (1, 2, 3, 4)] == [1, 1, 2, 0]
    batches = [batch async for batch in some.follow(KEY, 0)]
    assert [[record.epoch for record in batch] for batch in batches] == [[1, 1], [2]]
