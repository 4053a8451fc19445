"""What a process knows of streams that others write, while the store answers late, forgets, and begins anew under the same name."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import Gone
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.stream import Commit, Head, Hold, Record, State, StreamKey
from cauce.domain.usage import Usage
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.followed import Followed
from cauce.stores.live_streams import LiveStream
from cauce.stores.shelf import NOT_THERE, Page, Shelved, Standing, Stored
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

KEY = StreamKey("tenant/key", "chat")
REQUEST = Request("auto", (Message("user", (TextPart("Hi"),)),))


def records(first: int, last: int, epoch: int, name: str = "") -> list[Record]:
    return [Record(seq, epoch, Text(f"{name}{seq}")) for seq in range(first, last + 1)]


class ShelfInHand:
    """A store with one stream. Answers wait while `closed`, as they were when they were asked for."""

    def __init__(self) -> None:
        self.row = 1
        self.log: list[Record] = []
        self.epoch = 1
        self.state: State = "running"
        self.there = False
        self.broken: Exception | None = None
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    def has(self, log: Sequence[Record], state: State = "running") -> None:
        self.there, self.log, self.epoch, self.state = True, list(log), log[-1].epoch, state

    async def stored(self, key: StreamKey) -> Stored | None:
        tail = len(self.log)
        head = Head(key, REQUEST, b"", 0.0, self.state, self.epoch, tail)
        found = Stored(self.row, self.state, self.epoch, tail, False, 50 * tail, head) if self.there else None
        await self._answered("stored")
        return found

    async def records(self, live: LiveStream, after: int, limit: int) -> Page:
        found = [record for record in self.log if record.seq > after][:limit] if live.row == self.row else []
        await self._answered("records")
        return Page(found, 50 * len(found))

    async def history(self, live: LiveStream) -> Shelved | None:
        found = await self.stored(live.key)
        return None if found is None else Shelved(found, tuple(self.log), ())

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        return None

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, Standing]:
        await asyncio.sleep(0.01)
        if self.broken is not None:
            raise self.broken
        now = Standing(len(self.log), self.epoch, self.state) if self.there else NOT_THERE
        return {live.key: now for live in waited}

    async def _answered(self, what: str) -> None:
        self.asked.append(what)
        await asyncio.sleep(0)
        await self.open.wait()
        if self.broken is not None:
            raise self.broken


@pytest.fixture
def shelf() -> ShelfInHand:
    return ShelfInHand()


@pytest.fixture
def followed(shelf: ShelfInHand) -> Followed:
    return Followed(shelf, SystemClock(), shared=True)


OLD = records(1, 10, 1, "old ")
NEW = [*OLD[:7], *records(8, 12, 2, "new ")]
"""What another process has made of it after 8 to 10 were lost."""


@pytest.fixture
async def met(followed: Followed, shelf: ShelfInHand) -> Followed:
    """One that has a reader of `OLD`."""
    shelf.has(OLD)
    followed.lives.attach(KEY)
    await followed.head(KEY)
    return followed


def seen(found: Sequence[Record]) -> list[tuple[int, int]]:
    return [(record.seq, record.epoch) for record in found]


async def test_answer_that_is_older_than_a_takeover_serves_nobody_who_has_heard_of_it(
    met: Followed, shelf: ShelfInHand
) -> None:
    shelf.open.clear()
    before = asyncio.create_task(met.read(KEY, 5, 250))
    await asyncio.sleep(0.01)
    shelf.has(NEW)
    heard = asyncio.create_task(met.head(KEY))
    await asyncio.sleep(0.01)
    late = met.lives.get(KEY)
    assert late is not None
    late.told(12, 2, "running")
    after = asyncio.create_task(met.read(KEY, 5, 250))
    await asyncio.sleep(0.01)
    shelf.open.set()
    assert seen(await before) == [(seq, 1) for seq in range(6, 11)]
    assert seen(await after) == [(6, 1), (7, 1), (8, 2), (9, 2), (10, 2), (11, 2), (12, 2)]
    await heard
    assert seen(await met.read(KEY, 9, 1)) == [(10, 2)], "who compares what it has read is told the truth"


async def test_what_was_known_is_asked_for_again_when_no_news_come(shelf: ShelfInHand) -> None:
    clock = FakeClock()
    followed = Followed(shelf, clock, shared=True)
    shelf.has([*OLD, Record(11, 1, Finish("stop", Usage()))], "completed")
    followed.lives.attach(KEY)
    await followed.read(KEY, 0, 250)
    clock.advance(1.5)
    shelf.has(NEW)
    # Somebody who is slow reads on. What he has had until here is as it was.
    assert seen(await followed.read(KEY, 5, 250)) == [(6, 1), (7, 1), *[(seq, 2) for seq in range(8, 13)]]


async def test_stream_of_the_same_name_is_another_one(followed: Followed, shelf: ShelfInHand) -> None:
    shelf.has(OLD, "completed")
    await followed.head(KEY)
    await followed.read(KEY, 0, 250)
    shelf.row = 2
    shelf.has(records(1, 12, 1, "other "), "completed")
    assert await followed.head(KEY) is not None
    (first,) = await followed.read(KEY, 0, 1)
    assert first.delta == Text("other 1")


async def test_what_nobody_has_heard_of_for_long_is_not_compared(
    shelf: ShelfInHand, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    followed = Followed(shelf, clock, shared=True)
    shelf.has(OLD, "completed")
    await followed.read(KEY, 0, 250)
    clock.advance(3600.0)
    shelf.has(records(1, 3, 1, "other "), "completed")
    assert [record.delta for record in await followed.read(KEY, 0, 250)] == [Text(f"other {n}") for n in (1, 2, 3)]
    assert not caplog.records


async def test_append_that_is_acknowledged_after_a_takeover_is_not_shown(
    followed: Followed, shelf: ShelfInHand
) -> None:
    shelf.has(OLD)
    hold = Hold(KEY, 1, 10)
    followed.claimed(KEY, 1, hold, "running", 500, cancelled=False)
    mine = followed.lives.get(KEY)
    assert mine is not None
    followed.lost(KEY)
    shelf.has([*OLD, Record(11, 2, Text("theirs"))])
    await followed.head(KEY)
    followed.appended(mine, hold, Commit((Text("mine"),)), [Record(11, 1, Text("mine"))], 50)
    assert [record.delta for record in await followed.read(KEY, 10, 5)] == [Text("theirs")]


async def test_one_who_found_a_stream_before_its_maker_knew_of_it_hears_of_it(
    followed: Followed, shelf: ShelfInHand
) -> None:
    shelf.has(records(1, 1, 1))
    waiting = asyncio.create_task(followed.wait(KEY, 1))
    await asyncio.sleep(0.005)
    followed.created(KEY, 1, records(1, 1, 1), 50)
    made = followed.lives.get(KEY)
    assert made is not None and made.held
    followed.appended(made, Hold(KEY, 1, 1), Commit((Text("2"),)), records(2, 2, 1), 50)
    async with asyncio.timeout(2):
        assert await waiting
    assert seen(await followed.read(KEY, 0, 5)) == [(1, 1), (2, 1)]


@pytest.mark.parametrize("tail", [9, 10])
async def test_reader_of_what_is_lost_is_told_when_the_stream_ended_without_it(
    followed: Followed, shelf: ShelfInHand, tail: int
) -> None:
    shelf.has(OLD)
    followed.lives.attach(KEY)
    await followed.read(KEY, 0, 250)
    waiting = asyncio.create_task(followed.wait(KEY, 10))
    await asyncio.sleep(0.005)
    shelf.has([*OLD[:7], *records(8, tail, 2)], "completed")
    with pytest.raises(LogUnavailable, match="lost"):
        async with asyncio.timeout(2):
            await waiting
    # So is one that comes to the end of what it has only now.
    if tail < 10:
        with pytest.raises(LogUnavailable, match="lost"):
            async with asyncio.timeout(2):
                await followed.wait(KEY, 10)


async def test_news_that_cannot_be_understood_are_asked_for_again(
    met: Followed, shelf: ShelfInHand, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.broken = TypeError("damaged")
    waiting = asyncio.create_task(met.wait(KEY, 10))
    await asyncio.sleep(0.05)
    assert not waiting.done() and "cannot be heard of" in caplog.text
    shelf.broken = None
    shelf.has([*OLD, *records(11, 11, 1)])
    async with asyncio.timeout(2):
        assert await waiting


async def test_everybody_who_shares_a_question_gets_its_error_and_nobody_is_stopped_by_another_who_leaves(
    met: Followed, shelf: ShelfInHand
) -> None:
    shelf.open.clear()
    readers = [asyncio.create_task(met.read(KEY, 0, 250)) for _ in range(3)]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    shelf.open.set()
    done = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [seen(one) for one in done[1:] if not isinstance(one, BaseException)] == [seen(OLD)] * 2
    met.lives.gone(KEY)
    await met.head(KEY)
    shelf.open.clear()
    readers = [asyncio.create_task(met.read(KEY, 0, 250)) for _ in range(3)]
    await asyncio.sleep(0.01)
    shelf.broken = LogUnavailable("no", retry_after=1)
    shelf.open.set()
    assert {type(one) for one in await asyncio.gather(*readers, return_exceptions=True)} == {LogUnavailable}
    assert shelf.asked.count("records") == 2


@pytest.mark.parametrize("left", [records(4, 10, 1), [*records(1, 3, 1), *records(6, 10, 1)], []])
async def test_log_with_a_hole_is_gone(met: Followed, shelf: ShelfInHand, left: list[Record]) -> None:
    shelf.log = left
    with pytest.raises(Gone):
        await met.read(KEY, 0, 250)


async def test_stream_that_is_taken_over_while_it_was_found_short_stays_ours(met: Followed, shelf: ShelfInHand) -> None:
    shelf.log = OLD[:3]
    shelf.open.clear()
    reading = asyncio.create_task(met.read(KEY, 5, 250))
    await asyncio.sleep(0.01)
    met.claimed(KEY, 1, Hold(KEY, 2, 10), "recovering", 500, cancelled=False)
    shelf.open.set()
    with pytest.raises(Gone):
        await reading
    mine = met.lives.get(KEY)
    assert mine is not None and mine.held and not mine.gone


async def test_what_is_asked_is_not_waited_for_when_the_process_ends(met: Followed, shelf: ShelfInHand) -> None:
    shelf.open.clear()
    reading = asyncio.create_task(met.read(KEY, 0, 250))
    waiting = asyncio.create_task(met.wait(KEY, 10))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(2):
        await met.stop()
    waiting.cancel()
    await asyncio.gather(reading, waiting, return_exceptions=True)
