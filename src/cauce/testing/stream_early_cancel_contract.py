"""What every stream log must do when a cancel overtakes what makes its stream. See `stream_log_contract`."""

import asyncio
from typing import Any

import pytest

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import EARLY, MOST_EARLY, Cancelled, StreamLog
from cauce.testing.stream_samples import CANCELLED, END, KEY, Logs, created, head_of, new_stream, text, whole


async def born_cancelled(log: StreamLog, key: StreamKey) -> bool:
    """Whether the cancel of a stream that is made now came before it."""
    made = await log.create(new_stream(key))
    assert made.hold is not None
    return made.head.cancel_requested


class StreamEarlyCancelContract:
    """Part of `StreamLogContract`."""

    async def test_cancel_that_overtakes_its_stream_holds_wherever_that_is_made(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        assert await other.request_cancel(KEY, "enough") is None
        for one in (log, other):
            assert await one.head(KEY) is None
        made = await log.create(new_stream())
        assert made.hold is not None and (made.head.state, made.head.tail) == ("queued", 1)
        for head in (made.head, await head_of(log), await head_of(other)):
            assert head.cancel_requested and head.cancel_reason == "enough" and not head.ended
        for commit in (text("a"), END):
            with pytest.raises(Cancelled):
                await log.append(made.hold, commit)
        assert [one.verdict for one in await log.renew([made.hold])] == ["cancel"]
        await log.append(made.hold, CANCELLED)
        for one in (log, other):
            assert (await head_of(one)).state == "cancelled" and len(await whole(one)) == 2
        assert (await other.create(new_stream())).existed

    async def test_cancel_that_overtakes_its_stream_survives_reopening(self, logs: Logs) -> None:
        assert await (await logs()).request_cancel(KEY) is None
        assert await born_cancelled(await logs(), KEY)

    async def test_stream_that_was_cancelled_before_it_was_made_is_an_orphan_as_any_other(
        self, logs: Logs, clock: Any
    ) -> None:
        log, other = await logs(), await logs()
        await other.request_cancel(KEY)
        await log.release([await created(log)])
        (head,) = await other.orphans(10)
        assert head.cancel_requested
        hold = await other.claim(head, "b")
        assert hold is not None
        await other.append(hold, CANCELLED)

    async def test_cancel_without_a_stream_is_forgotten_after_a_while(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(), await logs()
        keys = [StreamKey(KEY.principal, f"chat-{number}") for number in range(3)]
        for key in keys:
            await log.request_cancel(key)
        clock.advance(EARLY - 1)
        # Asked for again, it is remembered for as long again.
        await other.request_cancel(keys[0])
        clock.advance(2)
        assert [await born_cancelled(other, key) for key in keys[:2]] == [True, False]
        while await log.sweep(10):
            pass
        assert not await born_cancelled(other, keys[2])
        assert await log.request_cancel(keys[1]) is not None

    async def test_cancel_without_a_stream_is_nobody_elses(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        await other.request_cancel(KEY)
        for key in (StreamKey("other/key", KEY.id), StreamKey(KEY.principal, KEY.id + "~1")):
            assert not await born_cancelled(log, key)
        assert await born_cancelled(log, KEY)

    async def test_cancel_and_stream_that_come_at_the_same_time_always_meet(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        keys = [StreamKey(KEY.principal, f"chat-{number}") for number in range(60)]
        cancels = [other.request_cancel(key) for key in keys]
        starts = [log.create(new_stream(key)) for key in keys]
        await asyncio.gather(*[asked for pair in zip(cancels, starts, strict=True) for asked in pair])
        for key in keys:
            assert (await head_of(log, key)).cancel_requested, key

    async def test_no_more_than_so_many_cancels_without_a_stream_are_remembered_of_each_principal(
        self, logs: Logs, clock: Any
    ) -> None:
        log = await logs()
        keys = [StreamKey(KEY.principal, f"chat-{number}") for number in range(MOST_EARLY + 20)]
        stranger = StreamKey("other/key", "chat-0")
        await log.request_cancel(stranger)
        for first in range(0, MOST_EARLY + 10, 10):
            await asyncio.gather(*[log.request_cancel(key) for key in keys[first : first + 10]])
            clock.advance(0.01)
        for key in keys[-10:]:
            await log.request_cancel(key)
        assert not any([await born_cancelled(log, key) for key in keys[:10]])
        assert all([await born_cancelled(log, key) for key in (stranger, *keys[-20:])])
