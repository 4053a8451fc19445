"""What stands between an upstream and the log of its stream: how much is read ahead of a log that takes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Text, delta_size
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Commit, Hold
from cauce.domain.usage import Usage
from cauce.engine.streams.producer import INBOX, INBOX_SIZE, JOINED, WRITTEN, Producer
from cauce.ports.provider import Call, Deltas
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import bills, created, head_of, whole
from tests.unit.engine.streams.test_commits import entry

pytestmark = pytest.mark.anyio

CALL = Call(Request("m", (Message("user", (TextPart("hi"),)),)), Scope(), ())
FEW = 5


class Slow(InprocStreamLog):
    """Takes nothing until it is `let`."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.let = asyncio.Event()
        self.written: list[int] = []
        """Characters of each append."""

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        await self.let.wait()
        self.written.append(sum([delta_size(delta) for delta in commit.deltas]))
        return await super().append(hold, commit)


class Endless:
    """Stands for a turn: reads that give `batch` each, `reads` of them so far, until it is told to `end`."""

    def __init__(self, batch: Sequence[Delta]) -> None:
        self.batch = batch
        self.reads = 0
        self.end = False
        self.closed = asyncio.Event()

    async def open(self, call: Call) -> Deltas:
        return Deltas(self._source())

    async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
        try:
            while not self.end:
                self.reads += 1
                yield self.batch
                await asyncio.sleep(0)
            yield (Finish("stop"),)
        finally:
            self.closed.set()


async def begun(batch: Sequence[Delta]) -> tuple[Slow, Endless, Producer, "asyncio.Task[None]"]:
    clock = FakeClock()
    log, turn = Slow(clock), Endless(batch)
    given: Any = turn
    producer = Producer(log, given, clock, await created(log))
    return log, turn, producer, asyncio.create_task(producer.run(CALL))


async def said(log: Slow) -> str:
    return "".join([record.delta.text for record in await whole(log) if isinstance(record.delta, Text)])


async def until_still(turn: Endless) -> None:
    """Return once nothing more is read."""
    before = -1
    async with asyncio.timeout(10):
        while turn.reads != before:
            before = turn.reads
            for _ in range(100):
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("batch", "most"),
    [
        ((Text("x"),), INBOX),
        ((Text("x"),) * 100, 3),
        ((Text("x"),) * 20_000, 1),
        ((Text("x" * (INBOX_SIZE // 4)),), 4),
        ((Text("x" * INBOX_SIZE * 4),), 1),
    ],
    ids=["one by one", "many at a time", "very many at a time", "long ones", "very long ones"],
)
async def test_upstream_is_not_read_on_while_the_log_takes_nothing(batch: Sequence[Delta], most: int) -> None:
    log, turn, producer, running = await begun(batch)
    await until_still(turn)
    # What the append under way has taken comes on top, and a read that was under way.
    assert most <= turn.reads <= 2 * most + FEW
    producer.cancel("enough")
    log.let.set()
    await asyncio.wait_for(running, 10)
    assert turn.closed.is_set() and (await head_of(log)).ended


async def test_upstream_is_read_on_once_the_log_takes_what_waits_and_nothing_is_lost() -> None:
    log, turn, _, running = await begun((Text("x"),))
    await until_still(turn)
    held = turn.reads
    log.let.set()
    async with asyncio.timeout(10):
        while turn.reads < 10 * held:
            await asyncio.sleep(0)
    turn.end = True
    await asyncio.wait_for(running, 10)
    assert await said(log) == "x" * turn.reads


async def test_stream_that_is_cancelled_while_its_log_is_full_up_keeps_what_was_read() -> None:
    log, turn, producer, running = await begun((Text("x"),))
    await until_still(turn)
    producer.cancel("enough")
    log.let.set()
    await asyncio.wait_for(running, 10)
    assert await said(log) == "x" * turn.reads


async def test_what_waits_for_a_slow_log_is_written_in_records_and_appends_that_a_reader_can_hold() -> None:
    log, turn, _, running = await begun((Text("x" * 1000),))
    await until_still(turn)
    turn.end = True
    log.let.set()
    await asyncio.wait_for(running, 10)
    sizes = [len(record.delta.text) for record in await whole(log) if isinstance(record.delta, Text)]
    assert sum(sizes) == 1000 * turn.reads and len(sizes) < turn.reads / 4
    assert max(sizes) <= JOINED
    assert max(log.written) <= WRITTEN + 1000


async def test_bill_of_an_attempt_is_in_the_log_before_another_one_begins() -> None:
    log, _, producer, running = await begun(())
    log.let.set()
    producer.notice(Attempt(1, "up", "m", "primary"))
    async with asyncio.timeout(10):
        while not await bills(log):
            await asyncio.sleep(0)
        producer.billed(entry(1, Usage(3, 4), "failed"))
        while (await bills(log))[0].outcome is None:
            await asyncio.sleep(0)
    assert (await bills(log))[0].usage == Usage(3, 4) and (await head_of(log)).state == "running"
    producer.cancel("enough")
    await asyncio.wait_for(running, 10)
