"""What every stream log must do: one suite, run over each adapter.

    class TestMyLog(StreamLogContract):
        @pytest.fixture
        def log(self, clock): return MyLog(...)

Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`.
"""

import asyncio
from typing import Any

import pytest

from cauce.domain.delta import Finish, Status, Text
from cauce.domain.errors import Gone
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.stream import Commit, Hold, NewStream, StreamKey
from cauce.ports.stream_log import Cancelled, Fenced, StreamLog

KEY = StreamKey("tenant/key", "chat-1")


def new_stream(key: StreamKey = KEY) -> NewStream:
    """A stream that has not been created."""
    return NewStream(key, Request("auto", (Message("user", (TextPart("hi"),)),)), b"digest", 1_700_000_000.0)


async def created(log: StreamLog, key: StreamKey = KEY) -> Hold:
    """The hold of a stream just created."""
    hold = (await log.create(new_stream(key))).hold
    assert hold is not None
    return hold


def text(*words: str) -> Commit:
    """A commit of text."""
    return Commit(tuple([Text(word) for word in words]), "running")


END = Commit((Finish("stop"),), "completed")


class StreamLogContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    async def test_new_stream_has_its_accepted_record(self, log: StreamLog) -> None:
        await created(log)
        (record,) = await log.read(KEY, 0, 10)
        assert (record.seq, record.epoch) == (1, 1)
        assert isinstance(record.delta, Status) and record.delta.kind == "accepted"

    async def test_creating_twice_attaches(self, log: StreamLog) -> None:
        await created(log)
        again = await log.create(new_stream())
        assert again.existed and again.head.tail == 1

    async def test_ids_belong_to_their_principal(self, log: StreamLog) -> None:
        await created(log)
        assert await log.head(StreamKey("other/key", KEY.id)) is None

    async def test_seq_is_dense(self, log: StreamLog) -> None:
        hold = await created(log)
        hold = await log.append(hold, text("a", "b"))
        await log.append(hold, text("c"))
        assert [record.seq for record in await log.read(KEY, 0, 10)] == [1, 2, 3, 4]

    async def test_read_at_every_cursor_is_the_suffix(self, log: StreamLog) -> None:
        hold = await created(log)
        for word in "abcdef":
            hold = await log.append(hold, text(word))
        await log.append(hold, END)
        everything = list(await log.read(KEY, 0, 100))
        for after in range(len(everything) + 1):
            assert list(await log.read(KEY, after, 100)) == everything[after:]
        assert list(await log.read(KEY, 2, 3)) == everything[2:5]

    async def test_stale_tail_is_fenced_and_leaves_no_trace(self, log: StreamLog) -> None:
        stale = await created(log)
        await log.append(stale, text("a"))
        with pytest.raises(Fenced):
            await log.append(stale, text("b"))
        assert len(await log.read(KEY, 0, 10)) == 2

    async def test_stale_epoch_is_fenced(self, log: StreamLog) -> None:
        hold = await created(log)
        with pytest.raises(Fenced):
            await log.append(Hold(KEY, hold.epoch + 1, hold.tail), text("a"))

    async def test_nothing_follows_the_finish(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), text("a"))
        hold = await log.append(hold, END)
        with pytest.raises(Fenced):
            await log.append(hold, text("b"))
        head = await log.head(KEY)
        assert head is not None and head.ended and head.state == "completed"

    async def test_illegal_transition_raises(self, log: StreamLog) -> None:
        with pytest.raises(ValueError, match="cannot become"):
            await log.append(await created(log), END)

    async def test_cancelled_stream_takes_only_its_finish(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), text("a"))
        head = await log.request_cancel(KEY)
        assert head is not None and head.cancel_requested
        with pytest.raises(Cancelled):
            await log.append(hold, text("b"))
        await log.append(hold, Commit((Finish("cancelled", outcome="cancelled"),), "cancelled"))
        assert [record.seq for record in await log.read(KEY, 0, 10)] == [1, 2, 3]

    async def test_cancel_of_an_ended_stream_changes_nothing(self, log: StreamLog) -> None:
        await log.append(await log.append(await created(log), text("a")), END)
        head = await log.request_cancel(KEY)
        assert head is not None and not head.cancel_requested and head.state == "completed"

    async def test_cancel_of_an_unknown_stream_is_none(self, log: StreamLog) -> None:
        assert await log.request_cancel(KEY) is None

    async def test_wait_returns_at_once_when_the_tail_is_past(self, log: StreamLog) -> None:
        await created(log)
        await asyncio.wait_for(log.wait(KEY, 0), 5)

    async def test_wait_misses_no_commit(self, log: StreamLog) -> None:
        hold = await created(log)
        waiting = [asyncio.create_task(log.wait(KEY, 1)) for _ in range(10)]
        await asyncio.sleep(0)
        await log.append(hold, text("a"))
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    async def test_concurrent_streams_stay_apart(self, log: StreamLog) -> None:
        async def write(number: int) -> None:
            key = StreamKey(KEY.principal, f"chat-{number}")
            hold = await created(log, key)
            for word in range(20):
                hold = await log.append(hold, text(f"{number}:{word}"))

        await asyncio.gather(*[write(number) for number in range(10)])
        for number in range(10):
            records = await log.read(StreamKey(KEY.principal, f"chat-{number}"), 1, 100)
            assert [record.seq for record in records] == list(range(2, 22))
            assert [record.delta for record in records] == [Text(f"{number}:{word}") for word in range(20)]

    async def test_mark_counts_for_the_newest_reader_only(self, log: StreamLog) -> None:
        await created(log)
        first, second = log.attach(KEY), log.attach(KEY)
        log.mark(KEY, second, 5)
        log.mark(KEY, first, 2)
        head = await log.head(KEY)
        assert head is not None and head.reader_mark == 5

    async def test_sweep_forgets_ended_streams_after_their_time_and_spares_open_ones(
        self, log: StreamLog, clock: Any
    ) -> None:
        other = StreamKey(KEY.principal, "open")
        await created(log, other)
        await log.append(await log.append(await created(log), text("a")), END)
        assert await log.sweep() == 0
        clock.advance(100_000)
        assert await log.sweep() == 1
        with pytest.raises(Gone):
            await log.head(KEY)
        with pytest.raises(Gone):
            await log.read(KEY, 0, 1)
        assert await log.head(other) is not None
