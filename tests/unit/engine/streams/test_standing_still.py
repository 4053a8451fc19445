"""Processes that stood still, or are about to end: what they still ask, write down and give up."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Text
from cauce.domain.request import Scope
from cauce.domain.stream import Created, Head, Hold, NewStream, Renewed
from cauce.domain.usage import Usage
from cauce.engine.streams.bills import Bills
from cauce.engine.streams.options import StreamOptions
from cauce.engine.streams.streams import Streams
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE, head_of, new_stream
from tests.unit.engine.streams.test_streams import LASTING, REQUEST, Answer, start, streams, tended, until_text

pytestmark = pytest.mark.anyio


class Breaking(Answer):
    """Breaks when `breaks` says so, and goes on, which `asked` tells, unless the stream is not to be gone on with."""

    def __init__(self, breaks: asyncio.Event, asked: asyncio.Event) -> None:
        super().__init__()
        self._breaks = breaks
        self._asked = asked

    async def open(self, call: Call) -> Deltas:
        self.calls.append(call)
        return Deltas(self._going_on(call))

    async def _going_on(self, call: Call) -> AsyncGenerator[Sequence[Delta], None]:
        yield (Text("a"),)
        await self._breaks.wait()
        await call.renewed()
        self._asked.set()
        yield (Text("c"), Finish("stop"))


@pytest.mark.parametrize(
    ("meanwhile", "goes_on", "state"),
    [("taken", False, "recovering"), ("left alone", True, "completed"), ("cancelled elsewhere", False, "cancelled")],
)
async def test_process_asks_how_a_stream_stands_before_it_goes_on_with_it(
    meanwhile: str, state: str, *, goes_on: bool
) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    breaks, asked = asyncio.Event(), asyncio.Event()
    holder = streams(log, clock, Breaking(breaks, asked), life=LASTING)
    await start(holder)
    await until_text(log)
    if meanwhile == "cancelled elsewhere":
        await log.request_cancel(KEY)
    else:
        # It stood still.
        clock.advance(LEASE + 1)
    if meanwhile == "taken":
        assert await log.claim((await log.orphans(1))[0], "b") is not None
    breaks.set()
    async with asyncio.timeout(5):
        while holder.open_streams:
            await asyncio.sleep(0)
    assert asked.is_set() == goes_on and (await head_of(log)).state == state


class Away(InprocStreamLog):
    """Does not say whose streams are: never, or only to those who ask after the first one, which waits for `let`."""

    def __init__(self, clock: FakeClock, *, answers: bool) -> None:
        super().__init__(clock, lease=LEASE)
        self.answers = answers
        self.asked = 0
        self.let = asyncio.Event()

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        self.asked += 1
        if self.asked == 1 or not self.answers:
            await self.let.wait()
            raise LogUnavailable("streams cannot be written now: try again", retry_after=5)
        return await super().renew(holds)


@pytest.mark.parametrize("answers", [False, True])
async def test_question_whose_streams_are_that_gets_no_answer_ends_none(*, answers: bool) -> None:
    clock = FakeClock()
    log = Away(clock, answers=answers)
    breaks, asked = asyncio.Event(), asyncio.Event()
    holder = streams(log, clock, Breaking(breaks, asked), life=LASTING)
    await start(holder)
    await until_text(log)
    clock.advance(LEASE + 1)
    breaks.set()
    async with asyncio.timeout(5):
        while not log.asked:
            await asyncio.sleep(0)
        if answers:
            # It asks for all its streams now and then, too.
            async with tended(holder):
                while log.asked < 2:
                    clock.advance(0.5)
                    await asyncio.sleep(0)
        log.let.set()
        while holder.open_streams:
            await asyncio.sleep(0)
    assert asked.is_set() == answers
    assert (await head_of(log)).state == ("completed" if answers else "running")


@pytest.mark.parametrize("how", ["told", "fenced", "not in the log"])
async def test_attempt_that_whoever_has_the_stream_now_pays_for_is_in_the_ledger_once(how: str) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    ledger, go = Kept(), asyncio.Event()
    bills = Bills(ledger)

    class Metered(Answer):
        async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
            n = 1
            try:
                yield (Attempt(1, "up", "m", "primary"), Text("a"))
                await go.wait()
                if how == "not in the log":
                    n = 2
                    yield (Attempt(2, "up", "m", "primary"),)
                yield (Text("b"),)
                await asyncio.Event().wait()
            finally:
                used = Usage(7, 9)
                bills.record(Entry(0.0, "req", Scope(), "up", "m", "primary", "cancelled", None, used, 1.0, None, n=n))

    turn: Any = Metered()
    zombie = Streams(log, turn, clock, "a", LASTING, bills)
    await start(zombie)
    await until_text(log)
    clock.advance(LEASE + 1)
    assert await log.claim((await log.orphans(1))[0], "b") is not None
    async with asyncio.timeout(5):
        if how == "told":
            async with tended(zombie):
                while zombie.open_streams:
                    clock.advance(1)
                    await asyncio.sleep(0)
        go.set()
        while zombie.open_streams:
            await asyncio.sleep(0)
    assert [entry.n for entry in ledger.entries] == ([2] if how == "not in the log" else [])


class Kept:
    """A ledger."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)


async def test_stream_that_is_taken_over_while_the_server_ends_is_given_up_at_once() -> None:
    clock = FakeClock()
    log = Claiming(clock, lease=LEASE)
    some = streams(log, clock, Answer((Text("b"),), stall=True), "b", life=LASTING)
    policy = msgspec.json.encode(StreamOptions(scope=Scope())).decode()
    hold = (await log.create(msgspec.structs.replace(new_stream(), policy=policy))).hold
    assert hold is not None
    await log.release([hold])
    adopting = asyncio.create_task(some.adopt())
    async with asyncio.timeout(5):
        await log.claiming.wait()
        draining = asyncio.create_task(some.drain(0))
        for _ in range(20):
            await asyncio.sleep(0)
        log.let.set()
        await asyncio.gather(adopting, draining)
    assert some.open_streams == 0
    (orphan,) = await log.orphans(10)
    assert orphan.epoch == 2, "it is claimed once, and waits for no lease"


async def test_stream_whose_upstream_is_still_being_closed_here_is_not_taken_over_here() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    closing, closed = asyncio.Event(), asyncio.Event()

    class Slow(Answer):
        async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
            try:
                yield (Text("a"),)
                await asyncio.Event().wait()
            finally:
                closing.set()
                await closed.wait()

    some = streams(log, clock, Slow(), life=LASTING)
    await start(some)
    await until_text(log)
    producer = some._producing.get(KEY)
    assert producer is not None
    await log.release([producer.hold])
    producer.lose()
    async with asyncio.timeout(5):
        await closing.wait()
        await some.adopt()
        closed.set()
        assert (await head_of(log)).epoch == 1
        while some.open_streams:
            await asyncio.sleep(0)
        await some.adopt()
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await head_of(log)).epoch == 2 and some.open_streams == 1
        await some.drain(0)


async def test_stream_that_is_begun_while_the_server_ends_is_given_up_at_once() -> None:
    clock = FakeClock()
    log = Claiming(clock, lease=LEASE)
    some = streams(log, clock, Answer((Text("b"),), stall=True), "b", life=LASTING)
    starting = asyncio.create_task(start(some))
    async with asyncio.timeout(5):
        await log.creating.wait()
        await some.drain(0)
        log.let.set()
        await starting
    assert [orphan.key for orphan in await log.orphans(10)] == [KEY]


class Claiming(InprocStreamLog):
    """Gives streams only when it is let."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(clock, **options)
        self.let, self.claiming, self.creating = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def claim(self, head: Head, node: str) -> Hold | None:
        self.claiming.set()
        await self.let.wait()
        return await super().claim(head, node)

    async def create(self, new: NewStream) -> Created:
        made = await super().create(new)
        self.creating.set()
        if new.request == REQUEST:
            await self.let.wait()
        return made
