"""What every stream log must do when the holder of a stream is gone, and when a stream's time is over. See `stream_log_contract`."""

import asyncio
from typing import Any

import pytest

from cauce.domain.errors import Gone
from cauce.domain.stream import Commit, Head, Hold, StreamKey
from cauce.ports.stream_log import Cancelled, Fenced, StreamLog
from cauce.testing.stream_samples import (
    CANCELLED,
    CREATED,
    END,
    KEY,
    LEASE,
    REQUEST,
    RETENTION,
    Logs,
    created,
    head_of,
    new_stream,
    text,
    whole,
)


class StreamTakeoverContract:
    """Part of `StreamLogContract`."""

    async def test_stream_whose_holder_is_silent_for_a_lease_is_an_orphan(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        clock.advance(LEASE - 1)
        assert await other.orphans(10) == []
        hold = await log.append(hold, text("a"))
        clock.advance(LEASE - 1)
        assert await other.orphans(10) == []
        assert await other.claim(await head_of(other), "b") is None
        clock.advance(2)
        (head,) = await other.orphans(10)
        assert isinstance(head, Head) and (head.key, head.request, head.tail) == (KEY, REQUEST, 2)

    async def test_takeover_fences_the_old_holder(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        stale = await log.append(await created(log), text("a"))
        clock.advance(LEASE + 1)
        hold = await other.claim((await other.orphans(10))[0], "b")
        assert hold is not None and hold == Hold(KEY, 2, 2)
        assert (await head_of(other)).state == "recovering"
        for commit in (text("zombie"), END, Commit(())):
            with pytest.raises(Fenced):
                await log.append(stale, commit)
        assert await other.orphans(10) == []
        await other.append(hold, text("b"))
        assert await asyncio.wait_for(log.wait(KEY, 2), 10)
        assert [(record.seq, record.epoch) for record in await whole(log)] == [(1, 1), (2, 1), (3, 2)]

    async def test_old_holder_tells_a_stream_as_it_is_now(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        await log.append(await created(log), text("a"))
        clock.advance(LEASE + 1)
        hold = await other.claim((await other.orphans(10))[0], "b")
        assert hold is not None
        await other.append(hold, text("b", "c"))
        head = await head_of(log)
        assert (head.epoch, head.tail, head.state) == (2, 4, "running")
        assert [record.seq for record in await log.read(KEY, 2, 10)] == [3, 4]

    async def test_stream_that_waits_stays_queued_when_it_is_taken_over(self, logs: Logs) -> None:
        log = await logs()
        await log.release([await created(log)])
        assert await log.claim(await head_of(log), "b") == Hold(KEY, 2, 1)
        assert (await head_of(log)).state == "queued"

    async def test_of_ten_claims_one_wins(self, logs: Logs, clock: Any) -> None:
        several = [await logs() for _ in range(2)]
        await created(several[0])
        clock.advance(LEASE + 1)
        head = await head_of(several[1])
        claims = await asyncio.gather(*[several[number % 2].claim(head, f"node {number}") for number in range(10)])
        assert [claim for claim in claims if claim is not None] == [Hold(KEY, 2, 1)]

    async def test_ended_stream_cannot_be_claimed(self, log: StreamLog, clock: Any) -> None:
        await log.append(await log.append(await created(log), text("a")), END)
        clock.advance(LEASE + 1)
        assert await log.orphans(10) == []
        assert await log.claim(await head_of(log), "b") is None

    async def test_release_makes_an_orphan_at_once(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), text("a"))
        kept = StreamKey(KEY.principal, "kept")
        await created(log, kept)
        await log.release([hold])
        assert [head.key for head in await other.orphans(10)] == [KEY]
        assert await other.claim(await head_of(other), "b") == Hold(KEY, 2, 2)

    async def test_reader_on_a_node_that_released_a_stream_hears_what_its_next_holder_writes(
        self, logs: Logs, clock: Any
    ) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await created(log), text("a"))
        reading = asyncio.create_task(log.wait(KEY, hold.tail))
        await asyncio.sleep(0)
        await log.release([hold])
        taken = await other.claim(await head_of(other), "b")
        assert taken is not None
        await other.append(await other.append(taken, text("b")), END)
        async with asyncio.timeout(10):
            while not reading.done():
                clock.advance(0.1)
                await asyncio.sleep(0)
        assert [record.seq for record in await log.read(KEY, hold.tail, 10)][:1] == [3]
        assert (await head_of(log)).state == "completed"

    async def test_stale_hold_releases_nothing(self, log: StreamLog) -> None:
        hold = await created(log)
        await log.release([hold])
        await log.claim(await head_of(log), "b")
        await log.release([hold])
        assert await log.orphans(10) == []

    async def test_orphans_come_oldest_first_and_not_more_than_asked_for(self, log: StreamLog) -> None:
        keys = [StreamKey(KEY.principal, f"chat-{number}") for number in range(5)]
        for number, key in enumerate(keys):
            answer = await log.create(new_stream(key, created=CREATED + number))
            assert answer.hold is not None
            await log.release([answer.hold])
        assert [head.key for head in await log.orphans(3)] == keys[:3]

    async def test_renewing_keeps_a_silent_stream_and_brings_the_cancel(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        for _ in range(3):
            clock.advance(LEASE - 1)
            assert [one.verdict for one in await log.renew([hold])] == ["kept"]
        assert await other.orphans(10) == []
        await other.request_cancel(KEY)
        assert [one.verdict for one in await log.renew([hold])] == ["cancel"]
        await log.append(hold, CANCELLED)
        assert [one.verdict for one in await log.renew([hold])] == ["lost"]

    async def test_renewing_a_lost_hold_says_so_and_does_not_help_it(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        stale, kept = await created(log), await created(log, StreamKey(KEY.principal, "kept"))
        await log.release([stale])
        await other.claim(await head_of(other), "b")
        renewed = await log.renew([stale, kept])
        assert [(one.key, one.verdict) for one in renewed] == [(KEY, "lost"), (kept.key, "kept")]
        clock.advance(LEASE - 1)
        await log.renew([stale, kept])
        clock.advance(2)
        assert [head.key for head in await other.orphans(10)] == [KEY]

    async def test_cancel_outlives_its_holder(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        await log.append(await created(log), text("a"))
        await log.request_cancel(KEY)
        clock.advance(LEASE + 1)
        (head,) = await other.orphans(10)
        hold = await other.claim(head, "b")
        assert head.cancel_requested and hold is not None
        with pytest.raises(Cancelled):
            await other.append(hold, text("again"))
        await other.append(hold, CANCELLED)

    async def test_sweep_forgets_ended_streams_after_their_time_and_spares_open_ones(
        self, log: StreamLog, clock: Any
    ) -> None:
        other = StreamKey(KEY.principal, "open")
        await created(log, other)
        await log.append(await log.append(await created(log), text("a")), END)
        assert await log.sweep(100) == 0
        clock.advance(RETENTION - 1)
        assert await log.sweep(100) == 0
        assert (await head_of(log)).ended
        clock.advance(2)
        assert await log.sweep(100) >= 1
        with pytest.raises(Gone):
            await log.head(KEY)
        with pytest.raises(Gone):
            await log.read(KEY, 0, 1)
        with pytest.raises(Gone):
            await log.wait(KEY, 10)
        with pytest.raises(Gone):
            await log.create(new_stream())
        clock.advance(3600)
        while await log.sweep(100):
            pass
        with pytest.raises(Gone):
            await log.head(KEY)
        assert await log.head(other) is not None and len(await whole(log, other)) == 1

    async def test_streams_are_kept_as_long_as_they_were_made_for(self, log: StreamLog, clock: Any) -> None:
        for id, retention in (("short", 600.0), ("long", 7200.0)):
            answer = await log.create(new_stream(StreamKey(KEY.principal, id), retention))
            assert answer.hold is not None
            await log.append(await log.append(answer.hold, text("a")), END)
        clock.advance(601)
        assert await log.sweep(100) >= 1
        with pytest.raises(Gone):
            await log.head(StreamKey(KEY.principal, "short"))
        assert await log.head(StreamKey(KEY.principal, "long")) is not None

    async def test_readers_elsewhere_are_seen_and_how_long_ago_is_told(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        assert await log.unseen(KEY) is None
        await other.seen([KEY, StreamKey("tenant/key", "unknown")])
        clock.advance(4)
        ago = await log.unseen(KEY)
        assert ago is not None and abs(ago - 4) < 0.01
        await log.append(await log.append(hold, text("a")), END)
        await other.seen([KEY])
        clock.advance(1)
        later = await log.unseen(KEY)
        assert later is not None and later > 4.5
