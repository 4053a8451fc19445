"""Readers come and go: what becomes of a stream that nobody reads any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import StreamKey
from cauce.domain.usage import Usage
from cauce.engine.streams.options import Disconnect, StreamOptions
from cauce.engine.streams.presence import REJOIN
from cauce.engine.streams.settings import Life
from cauce.engine.streams.streams import Streams
from cauce.ports.provider import Call, Deltas
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE, head_of

pytestmark = pytest.mark.anyio

REQUEST = Request("m", (Message("user", (TextPart("hi"),)),))


class Endless:
    """Stands for a turn: one word, and then nothing until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def call(self, request: Request, scope: Scope, **named: Any) -> Call:
        return Call(request, scope, ())

    async def open(self, call: Call) -> Deltas:
        async def source() -> Any:
            try:
                yield (Text("a"),)
                await asyncio.Event().wait()
            finally:
                self.closed.set()

        return Deltas(source(), so_far=lambda: Usage(10, 20, cost=0.5, cost_source="reported"))


class Node:
    """One process of those that share a log."""

    def __init__(self, log: InprocStreamLog, clock: FakeClock, life: Life = Life()) -> None:  # noqa: B008
        self.log, self.clock, self.turn = log, clock, Endless()
        turn: Any = self.turn
        self.streams = Streams(log, turn, clock, "a", life)

    async def begin(self, rule: Disconnect, grace: float = 30.0) -> None:
        options = StreamOptions(on_disconnect=rule, grace=grace)
        await self.streams.start(KEY, REQUEST, Scope(), "req", options=options)
        while (await head_of(self.log)).tail < 2:
            await self.log.wait(KEY, 1)

    async def ended(self) -> Finish:
        """How the stream ended, in the time that is now."""
        async with asyncio.timeout(5):
            while not (head := await head_of(self.log)).ended:
                await asyncio.sleep(0)
            finish = await self.streams.finish(head)
        assert finish is not None
        return finish

    async def goes_on(self) -> bool:
        for _ in range(50):
            await asyncio.sleep(0)
        return not (await head_of(self.log)).ended and not self.turn.closed.is_set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextlib.asynccontextmanager
async def tended(node: Node) -> AsyncIterator[None]:
    task = asyncio.create_task(node.streams.sweep_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def passing(clock: FakeClock, seconds: float) -> None:
    for _ in range(round(seconds * 2)):
        await asyncio.sleep(0)
        clock.advance(0.5)
        for _ in range(10):
            await asyncio.sleep(0)


async def test_abandoned_stream_closes_its_upstream_after_grace(clock: FakeClock) -> None:
    node = Node(InprocStreamLog(clock), clock)
    await node.begin("grace")
    reader = node.streams.attach(KEY)
    node.streams.detach(KEY, reader)
    await clock.until_waiting()
    clock.advance(29)
    assert await node.goes_on()
    clock.advance(1)
    finish = await node.ended()
    assert (finish.outcome, finish.cause) == ("cancelled", "abandoned")
    assert node.turn.closed.is_set() and finish.usage.output_tokens == 20


async def test_reader_that_comes_back_in_time_keeps_it(clock: FakeClock) -> None:
    node = Node(InprocStreamLog(clock), clock)
    await node.begin("grace")
    first = node.streams.attach(KEY)
    node.streams.detach(KEY, first)
    await clock.until_waiting()
    clock.advance(20)
    second, third = node.streams.attach(KEY), node.streams.attach(KEY)
    clock.advance(3600)
    assert await node.goes_on()
    node.streams.detach(KEY, second)
    clock.advance(3600)
    assert await node.goes_on()
    node.streams.detach(KEY, third)
    await clock.until_waiting()
    clock.advance(30)
    assert (await node.ended()).cause == "abandoned"


async def test_stream_that_is_to_be_cancelled_at_once_is(clock: FakeClock) -> None:
    node = Node(InprocStreamLog(clock), clock)
    await node.begin("cancel")
    node.streams.detach(KEY, node.streams.attach(KEY))
    assert (await node.ended()).cause == "abandoned"


async def test_stream_that_goes_on_unread_goes_on(clock: FakeClock) -> None:
    node = Node(InprocStreamLog(clock), clock)
    await node.begin("continue")
    node.streams.detach(KEY, node.streams.attach(KEY))
    clock.advance(100_000)
    assert await node.goes_on()
    await node.streams.cancel(KEY)


async def test_stream_that_nobody_has_read_yet_is_not_abandoned(clock: FakeClock) -> None:
    node = Node(InprocStreamLog(clock), clock)
    await node.begin("cancel")
    clock.advance(100_000)
    assert await node.goes_on()
    await node.streams.cancel(KEY)


async def test_reader_on_another_node_counts_until_it_leaves(clock: FakeClock) -> None:
    log = InprocStreamLog(clock, lease=10)
    holder, other = Node(log, clock, Life(lease=10)), Node(log, clock, Life(lease=10))
    await holder.begin("grace")
    holder.streams.detach(KEY, holder.streams.attach(KEY))
    async with tended(holder), tended(other):
        reader = other.streams.attach(KEY)
        await passing(clock, 120)
        assert await holder.goes_on()
        other.streams.detach(KEY, reader)
        await passing(clock, 25)
        assert await holder.goes_on()
        await passing(clock, 15)
        assert (await holder.ended()).cause == "abandoned"


async def test_reader_that_has_just_come_to_another_node_counts(clock: FakeClock) -> None:
    log = InprocStreamLog(clock, lease=10)
    holder, other = Node(log, clock, Life(lease=10)), Node(log, clock, Life(lease=10))
    await holder.begin("cancel")
    first = holder.streams.attach(KEY)
    other.streams.attach(KEY)
    await asyncio.sleep(0)
    holder.streams.detach(KEY, first)
    assert await holder.goes_on()
    await holder.streams.cancel(KEY)


async def test_stream_that_costs_too_much_for_nobody_is_ended(clock: FakeClock) -> None:
    for most, ends in ((0.4, True), (0.6, False)):
        node = Node(InprocStreamLog(clock), clock, Life(unattended_max_cost=most))
        await node.begin("continue")
        async with tended(node):
            reader = node.streams.attach(KEY)
            await passing(clock, 10)
            assert await node.goes_on()
            node.streams.detach(KEY, reader)
            await passing(clock, 10)
            assert (await head_of(node.log)).ended == ends
        if ends:
            assert (await node.ended()).cause == "unattended"
        else:
            await node.streams.cancel(KEY)


async def test_stream_whose_server_went_away_waits_for_its_readers_to_come_back(clock: FakeClock) -> None:
    log = InprocStreamLog(clock)
    before, after = Node(log, clock, Life(lasting=True)), Node(log, clock, Life(lasting=True))
    await before.begin("cancel")
    reader = before.streams.attach(KEY)
    before.streams.mark(KEY, reader, 2)
    await before.streams.drain(0)
    before.streams.detach(KEY, reader)
    await after.streams.adopt()
    assert (await head_of(log)).state == "recovering" and await after.goes_on()
    await clock.until_waiting()
    clock.advance(30)
    assert (await after.ended()).cause == "abandoned"


async def test_stream_whose_reader_had_been_sent_nothing_yet_is_abandoned_after_a_takeover_too(
    clock: FakeClock,
) -> None:
    log = InprocStreamLog(clock)
    before, after = Node(log, clock, Life(lasting=True)), Node(log, clock, Life(lasting=True))
    await before.begin("cancel")
    before.streams.attach(KEY)
    await before.streams.drain(0)
    await after.streams.adopt()
    async with asyncio.timeout(5):
        await clock.until_waiting()
    clock.advance(REJOIN)
    assert (await after.ended()).cause == "abandoned"


async def test_stream_that_nobody_had_read_is_not_abandoned_by_whoever_takes_it_over(clock: FakeClock) -> None:
    log = InprocStreamLog(clock)
    before, after = Node(log, clock, Life(lasting=True)), Node(log, clock, Life(lasting=True))
    await before.begin("cancel")
    await before.streams.drain(0)
    await after.streams.adopt()
    clock.advance(1000)
    assert await after.goes_on()
    await after.streams.cancel(KEY)


class Asked(InprocStreamLog):
    """Counts how often it is asked whether somebody reads a stream."""

    asked = 0

    async def unseen(self, key: StreamKey) -> float | None:
        self.asked += 1
        return await super().unseen(key)


@pytest.mark.parametrize(("most", "asks"), [(0.8, False), (0.2, True)], ids=["cheap", "dear"])
async def test_log_is_asked_for_readers_elsewhere_only_of_what_costs_too_much(
    clock: FakeClock, most: float, *, asks: bool
) -> None:
    log = Asked(clock, lease=LEASE)
    node = Node(log, clock, Life(lease=LEASE, unattended_max_cost=most))
    await node.begin("continue")
    tending = asyncio.create_task(node.streams.sweep_forever())
    for _ in range(20):
        await clock.until_waiting(4)
        clock.advance(0.5)
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert bool(log.asked) == asks
    assert await node.goes_on() != asks
    await node.streams.drain(0)
