"""Which holds a process tells the log of, and how soon it hears what others want of its streams."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from cauce.domain.delta import Delta, Text
from cauce.domain.stream import Hold, Renewed
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE, head_of
from tests.unit.engine.streams.test_streams import LASTING, Answer, start, streams, tended, until_text

pytestmark = pytest.mark.anyio

STEP = 0.05


class Telling(InprocStreamLog):
    """Keeps when it was told that streams go on."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, lease=LEASE)
        self._fake = clock
        self.told: list[float] = []

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        if holds:
            self.told.append(self._fake.monotonic())
        return await super().renew(holds)


class Said(Answer):
    """Says what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.words: asyncio.Queue[str] = asyncio.Queue()

    async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
        try:
            while True:
                yield (Text(await self.words.get()),)
        finally:
            self.closed.set()


class Node:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.log = Telling(self.clock)
        self.answer = Said()
        self.streams = streams(self.log, self.clock, self.answer, life=LASTING)

    async def begin(self) -> None:
        self.answer.words.put_nowait("first ")
        await start(self.streams)
        await until_text(self.log)

    async def step(self) -> None:
        """A little time passes, and everything that comes of it is done."""
        self.clock.advance(STEP)
        for _ in range(30):
            await asyncio.sleep(0)

    async def let_pass(self, seconds: float) -> None:
        """So many seconds pass, step by step."""
        for _ in range(round(seconds / STEP)):
            await self.step()

    async def say(self) -> None:
        self.answer.words.put_nowait("word ")
        for _ in range(30):
            await asyncio.sleep(0)


async def test_log_is_told_of_a_silent_stream_once_in_each_tick() -> None:
    node = Node()
    await node.begin()
    async with tended(node.streams):
        await node.let_pass(10 * LASTING.tick)
    assert 9 <= len(node.log.told) <= 11
    assert await node.log.orphans(10) == []
    await node.streams.drain(0)


async def test_log_is_not_told_of_a_stream_that_it_has_just_heard_of() -> None:
    node = Node()
    await node.begin()
    async with tended(node.streams):
        for _ in range(round(2 * LEASE / STEP)):
            await node.say()
            await node.step()
        assert node.log.told == []
        assert not node.answer.closed.is_set() and await node.log.orphans(10) == []
        # It falls silent.
        for _ in range(round(2 * LEASE / STEP)):
            await node.step()
            assert await node.log.orphans(10) == []
    await node.streams.drain(0)


@pytest.mark.parametrize("steps", range(round(LASTING.tick / STEP) + 1))
@pytest.mark.parametrize("goes_on", [False, True])
async def test_cancel_by_another_node_is_heard_within_a_second_whenever_the_stream_spoke_last(
    steps: int, *, goes_on: bool
) -> None:
    node = Node()
    await node.begin()
    async with tended(node.streams):
        await node.let_pass(3 * LASTING.tick + steps * STEP)
        await node.say()
        assert await node.log.request_cancel(KEY) is not None
        began = node.clock.monotonic()
        while not node.answer.closed.is_set():
            if goes_on:
                await node.say()
            await node.step()
        assert node.clock.monotonic() - began <= (STEP if goes_on else 1.0) + 1e-6
        async with asyncio.timeout(5):
            while not (await head_of(node.log)).ended:
                await asyncio.sleep(0)
    assert (await head_of(node.log)).state == "cancelled"


async def test_process_that_stood_still_tells_the_log_of_its_streams_before_it_looks_for_orphans() -> None:
    node = Node()
    await node.begin()
    async with tended(node.streams):
        await node.let_pass(2 * LASTING.tick)
        node.clock.advance(LEASE + 1)
        assert len(await node.log.orphans(10)) == 1
        await node.let_pass(2 * LASTING.tick)
    head = await head_of(node.log)
    assert (head.epoch, head.state) == (1, "running") and await node.log.orphans(10) == []
    await node.streams.drain(0)
