"""What every stream log must do: one suite, run over each adapter.

    class TestMyLog(StreamLogContract):
        @pytest.fixture
        async def logs(self, clock): yield lambda limits=StreamLimits(), max_bytes=4 << 30: MyLog(..., limits, max_bytes)

`logs` makes logs over the same records, as several nodes would have them: each of another node, with leases of `LEASE` seconds and a
retention of `RETENTION`, whose streams take `max_bytes` together. Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`.
"""

import asyncio
from typing import Any

import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Status, Text, ToolCall
from cauce.domain.errors import Gone
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.domain.stream import AttemptRow, Commit, Hold, Record, StreamKey, Upstream
from cauce.domain.usage import Usage
from cauce.ports.stream_log import Cancelled, Fenced, Full, StreamLog
from cauce.testing.stream_early_cancel_contract import StreamEarlyCancelContract
from cauce.testing.stream_erasing_contract import StreamErasingContract
from cauce.testing.stream_mark_contract import StreamMarkContract
from cauce.testing.stream_room_contract import StreamRoomContract
from cauce.testing.stream_samples import (
    CANCELLED,
    CREATED,
    END,
    KEY,
    LIMITS,
    REQUEST,
    Logs,
    bills,
    created,
    head_of,
    new_stream,
    text,
    whole,
)
from cauce.testing.stream_settling_contract import StreamSettlingContract
from cauce.testing.stream_takeover_contract import StreamTakeoverContract


class StreamLogContract(
    StreamTakeoverContract,
    StreamRoomContract,
    StreamEarlyCancelContract,
    StreamSettlingContract,
    StreamErasingContract,
    StreamMarkContract,
):
    """See the module."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    async def log(self, logs: Logs) -> StreamLog:
        """One of them."""
        return await logs()

    async def test_new_stream_has_its_accepted_record(self, log: StreamLog) -> None:
        await created(log)
        (record,) = await log.read(KEY, 0, 10)
        assert (record.seq, record.epoch) == (1, 1)
        assert isinstance(record.delta, Status) and record.delta.kind == "accepted"

    async def test_head_has_what_the_stream_was_made_with(self, logs: Logs) -> None:
        await created(await logs())
        head = await head_of(await logs())
        assert (head.key, head.request, head.request_hash, head.created) == (KEY, REQUEST, b"\x00digest", CREATED)
        assert (head.state, head.epoch, head.tail, head.policy, head.wire) == ("queued", 1, 1, '{"a":1}', "native")
        assert not head.ended and not head.cancel_requested and head.reader_mark is None and head.upstream is None

    async def test_creating_twice_attaches(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        await log.append(await created(log), text("a"))
        for one in (log, other):
            again = await one.create(new_stream())
            assert again.existed and again.head.tail == 2

    async def test_of_ten_that_create_one_gets_the_hold(self, logs: Logs) -> None:
        several = [await logs() for _ in range(2)]
        answers = await asyncio.gather(*[several[number % 2].create(new_stream()) for number in range(10)])
        assert sum(not answer.existed for answer in answers) == 1
        assert len(await whole(several[0])) == 1

    async def test_ids_belong_to_their_principal(self, log: StreamLog) -> None:
        await created(log)
        assert await log.head(StreamKey("other/key", KEY.id)) is None

    async def test_newest_open_stream_of_a_group_is_found(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        keys = [StreamKey(KEY.principal, id) for id in ("c~2", "c~1", "c~3~x", "d~9", "c", "C~9", "cc~9", "ñ_%~1")]
        keys.append(StreamKey("other/key", "c~8"))
        assert [key.group for key in keys] == ["c", "c", "c", "d", "", "C", "cc", "ñ_%", "c"]
        holds: list[Hold] = []
        for number, key in enumerate(keys):
            hold = (await log.create(new_stream(key, created=CREATED + number))).hold
            assert hold is not None
            holds.append(hold)
        for one in (log, other):
            assert await one.newest_open(KEY.principal, "c") == keys[2]
            assert await one.newest_open(KEY.principal, "ñ_%") == keys[7]
            for group in ("_", "%", "ñ", "nobody"):
                assert await one.newest_open(KEY.principal, group) is None
        await log.append(await log.append(holds[2], text("a")), END)
        await other.request_cancel(keys[1])
        for one in (log, other):
            assert await one.newest_open(KEY.principal, "c") == keys[1]
        for place in (0, 1):
            await log.append(holds[place], CANCELLED)
        for one in (log, other):
            assert await one.newest_open(KEY.principal, "c") is None

    async def test_what_is_read_is_what_was_appended(self, logs: Logs) -> None:
        deltas: tuple[Delta, ...] = (
            Text("ñ \n\r 🦆"),
            Text("b", 1, begins=True),
            Text("c", extra=Extra("gemini", {"x": 1})),
            Reasoning("why"),
            Reasoning("", Signature("anthropic", "sig")),
            ToolCall(0, "c1", "look", '{"a":'),
            Attempt(2, "up", "m", "fallback", reason="it broke", reason_code="overloaded"),
            Status("waiting", "third", {"place": 3}),
        )
        log, other = await logs(), await logs()
        await log.append(await created(log), Commit(deltas, "running"))
        for one in (log, other):
            assert tuple([record.delta for record in await whole(one)][1:]) == deltas

    async def test_half_a_surrogate_pair_does_not_end_a_stream(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        await log.append(await created(log), text("a\ud83d"))
        here, there = await whole(log), await whole(other)
        assert here == there and isinstance(here[1].delta, Text) and here[1].delta.text.startswith("a")

    async def test_seq_is_dense(self, log: StreamLog) -> None:
        hold = await created(log)
        hold = await log.append(hold, text("a", "b"))
        await log.append(hold, text("c"))
        assert [record.seq for record in await log.read(KEY, 0, 10)] == [1, 2, 3, 4]

    async def test_a_thousand_appends_in_one_millisecond_have_dense_seq(self, logs: Logs) -> None:
        # The clock stands still, so nothing that is numbered or ordered by it comes out right.
        several = [await logs() for _ in range(2)]

        async def write(key: StreamKey, log: StreamLog, count: int) -> list[int]:
            hold = await created(log, key)
            tails = [hold.tail]
            for number in range(count):
                hold = await log.append(hold, text(str(number)))
                tails.append(hold.tail)
            return tails

        counts = [200] + 80 * [10]
        keys = [StreamKey(KEY.principal, f"at-once-{number}") for number in range(len(counts))]
        written = await asyncio.gather(
            *[write(key, several[number % 2], counts[number]) for number, key in enumerate(keys)]
        )
        for number, (key, count, tails) in enumerate(zip(keys, counts, written, strict=True)):
            records = await whole(several[(number + 1) % 2], key)
            assert [record.seq for record in records] == tails == list(range(1, count + 2))
            assert [record.delta for record in records[1:]] == [Text(str(piece)) for piece in range(count)]

    async def test_read_at_every_cursor_is_the_suffix(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        for word in "abcdef":
            hold = await log.append(hold, text(word, word))
        await log.append(hold, END)
        everything = await whole(log)
        assert len(everything) == 14
        for one in (log, other):
            for after in range(len(everything) + 1):
                assert list(await one.read(KEY, after, 100)) == everything[after:]
            assert list(await one.read(KEY, 2, 3)) == everything[2:5]

    async def test_stale_tail_is_fenced_and_leaves_no_trace(self, log: StreamLog) -> None:
        stale = await created(log)
        await log.append(stale, text("a"))
        with pytest.raises(Fenced):
            await log.append(stale, text("b"))
        assert len(await whole(log)) == 2

    async def test_stale_epoch_is_fenced(self, log: StreamLog) -> None:
        hold = await created(log)
        for epoch in (hold.epoch + 1, hold.epoch - 1):
            with pytest.raises(Fenced):
                await log.append(Hold(KEY, epoch, hold.tail), text("a"))
        assert len(await whole(log)) == 1

    async def test_append_to_a_stream_that_is_not_there_is_fenced(self, log: StreamLog) -> None:
        with pytest.raises(Fenced):
            await log.append(Hold(KEY, 1, 1), text("a"))

    async def test_nothing_follows_the_finish(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), text("a"))
        hold = await log.append(hold, END)
        for commit in (text("b"), Commit(()), CANCELLED):
            with pytest.raises(Fenced):
                await log.append(hold, commit)
        head = await head_of(log)
        assert head.ended and head.state == "completed" and head.terminal_at is not None

    async def test_illegal_transition_raises_and_leaves_no_trace(self, log: StreamLog) -> None:
        hold = await created(log)
        with pytest.raises(ValueError, match="cannot become"):
            await log.append(hold, END)
        assert len(await whole(log)) == 1 and await bills(log) == []
        await log.append(hold, text("a"))

    async def test_an_answer_that_is_there_at_once_passes_through_running(self, log: StreamLog) -> None:
        await log.append(await created(log), Commit((Text("a"), Finish("stop")), "completed", ("running",)))
        assert (await head_of(log)).state == "completed"

    async def test_records_state_and_bill_appear_together_or_not_at_all(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), text("a"))
        with pytest.raises(Fenced):
            await log.append(Hold(KEY, 1, 1), END)
        assert (await head_of(other)).state == "running" and await bills(other) == []
        await log.append(hold, END)
        for one in (log, other):
            head = await head_of(one)
            assert (head.state, head.tail) == ("completed", 3)
            assert await bills(one) == list(END.attempts)

    async def test_history_is_all_there_is_of_a_stream(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), Commit((Text("a"), Text("b")), "running", attempts=END.attempts))
        await log.append(hold, Commit((Reasoning("c"),)))
        for one in (log, other):
            history = await one.history(KEY)
            assert history.head == await head_of(one)
            assert history.deltas == tuple([record.delta for record in await whole(one)])
            assert history.attempts == tuple(END.attempts)
        with pytest.raises(Gone):
            await log.history(StreamKey("p", "unknown"))

    async def test_bill_of_an_attempt_is_replaced_by_its_newer_one(self, log: StreamLog) -> None:
        opened, other = AttemptRow(1, "up", "m"), AttemptRow(2, "two", "n", strategy="fallback")
        closed = AttemptRow(1, "up", "m", usage=Usage(1, 2, cost=0.5), outcome="failed")
        hold = await log.append(await created(log), Commit((), "running", attempts=(opened,)))
        assert hold.tail == 1
        hold = await log.append(hold, Commit((Text("a"),), attempts=(closed, other)))
        assert await bills(log) == [closed, other]

    async def test_upstream_moves_with_the_append_and_stays_without(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), Commit((Text("a"),), "running", upstream=Upstream("up", "r1", "7")))
        await log.append(hold, text("b"))
        assert (await head_of(log)).upstream == Upstream("up", "r1", "7")

    async def test_cancelled_stream_takes_only_its_finish(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), text("a"))
        head = await other.request_cancel(KEY, "abandoned")
        assert head is not None and head.cancel_requested and head.cancel_reason == "abandoned"
        for commit in (text("b"), END, Commit(())):
            with pytest.raises(Cancelled):
                await log.append(hold, commit)
        assert (await head_of(await logs())).cancel_reason == "abandoned"
        await log.append(hold, CANCELLED)
        assert [record.seq for record in await whole(log)] == [1, 2, 3]
        assert (await head_of(log)).state == "cancelled"

    async def test_cancelled_stream_takes_no_content_along_with_its_finish(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), text("a"))
        await other.request_cancel(KEY)
        for deltas in ((Text("b"), *CANCELLED.deltas), (Text("b"),), ()):
            with pytest.raises(Cancelled):
                await log.append(hold, Commit(deltas, "cancelled"))
        bill = AttemptRow(1, "up", "m", usage=Usage(1, 2), outcome="cancelled")
        await log.append(hold, Commit(CANCELLED.deltas, "cancelled", attempts=(bill,)))
        for one in (log, other):
            assert [type(record.delta) for record in await whole(one)] == [Status, Text, Finish]
            assert await bills(one) == [bill]

    async def test_cancel_of_an_ended_stream_changes_nothing(self, log: StreamLog) -> None:
        await log.append(await log.append(await created(log), text("a")), END)
        head = await log.request_cancel(KEY)
        assert head is not None and not head.cancel_requested and head.state == "completed"

    async def test_cancel_of_an_unknown_stream_is_none(self, log: StreamLog) -> None:
        assert await log.request_cancel(KEY) is None

    async def test_of_a_finish_and_a_cancel_that_race_the_first_wins(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), text("a"))
        ended, _ = await asyncio.gather(log.append(hold, END), log.request_cancel(KEY), return_exceptions=True)
        head = await head_of(log)
        assert head.ended != isinstance(ended, Cancelled)
        assert head.cancel_requested == isinstance(ended, Cancelled)

    async def test_stream_that_is_too_long_takes_only_its_finish(self, logs: Logs) -> None:
        for key, commit in ((KEY, text(*["a"] * 20)), (StreamKey("tenant/key", "long"), text("x" * 9_000))):
            log = await logs(LIMITS)
            hold = await log.append(await created(log, key), text("a"))
            with pytest.raises(Full):
                await log.append(hold, commit)
            assert len(await whole(log, key)) == 2
            await log.append(hold, END)

    async def test_wait_returns_at_once_when_the_tail_is_past(self, log: StreamLog) -> None:
        await created(log)
        assert await asyncio.wait_for(log.wait(KEY, 0), 5)

    async def test_wait_gives_up_after_its_seconds(self, log: StreamLog, clock: Any) -> None:
        await created(log)
        before = clock.waiting
        waiting = asyncio.create_task(log.wait(KEY, 1, 30))
        await clock.until_waiting(before + 1)
        while not waiting.done():
            clock.advance(30)
            await asyncio.sleep(0)
        assert await waiting is False

    async def test_wait_misses_no_commit(self, log: StreamLog) -> None:
        hold = await created(log)
        for word in "abcdefgh":
            waiting = [asyncio.create_task(log.wait(KEY, hold.tail)) for _ in range(10)]
            if word != "a":
                await asyncio.sleep(0)
            hold = await log.append(hold, text(word))
            assert all(await asyncio.wait_for(asyncio.gather(*waiting), 5))

    async def test_readers_that_follow_get_every_record_once(self, log: StreamLog) -> None:
        async def follow() -> list[Record]:
            seen: list[Record] = []
            while not seen or not isinstance(seen[-1].delta, Finish):
                batch = await log.read(KEY, len(seen), 3)
                seen += batch
                if not batch:
                    await log.wait(KEY, len(seen))
            return seen

        hold = await created(log)
        readers = [asyncio.create_task(follow()) for _ in range(5)]
        for number in range(50):
            hold = await log.append(hold, text(str(number)))
        await log.append(hold, END)
        everything = await whole(log)
        assert [record.seq for record in everything] == list(range(1, 53))
        assert all([seen == everything for seen in await asyncio.wait_for(asyncio.gather(*readers), 20)])

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

    async def test_reader_who_has_been_sent_nothing_yet_has_come_all_the_same(self, log: StreamLog) -> None:
        hold = await log.append(await created(log), text("a"))
        assert (await head_of(log)).reader_mark is None
        log.attach(KEY)
        hold = await log.append(hold, text("b"))
        assert (await head_of(log)).reader_mark == 0
        log.mark(KEY, log.attach(KEY), 3)
        await log.append(hold, text("c"))
        assert (await head_of(log)).reader_mark == 3

    async def test_mark_counts_for_the_newest_reader_only(self, log: StreamLog) -> None:
        await created(log)
        first, second = log.attach(KEY), log.attach(KEY)
        log.mark(KEY, second, 5)
        log.mark(KEY, first, 2)
        assert (await head_of(log)).reader_mark == 5
