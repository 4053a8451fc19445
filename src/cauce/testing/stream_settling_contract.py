"""What every stream log must do about answers that are to be copied after their end. See `stream_log_contract`."""

from typing import Any

import msgspec

from cauce.domain.stream import Hold, StreamKey, Whose
from cauce.ports.stream_log import StreamLog
from cauce.testing.stream_samples import CANCELLED, END, KEY, RETENTION, Logs, created, new_stream, text


class StreamSettlingContract:
    """Part of `StreamLogContract`."""

    async def test_stream_of_a_conversation_is_unsettled_from_its_end_until_it_is_settled(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await log.append(await _said(log), text("a"))
        assert await log.unsettled(10) == [] == await other.unsettled(10)
        await log.settle(KEY)
        await log.append(hold, END)
        assert await log.unsettled(10) == [KEY] == await other.unsettled(10)
        for _ in range(2):
            await other.settle(KEY)
            assert await log.unsettled(10) == [] == await other.unsettled(10)

    async def test_stream_of_no_conversation_is_never_unsettled(self, log: StreamLog) -> None:
        await log.append(await log.append(await created(log), text("a")), END)
        assert await log.unsettled(10) == []
        await log.settle(StreamKey("tenant/key", "never"))

    async def test_unsettled_streams_are_told_up_to_the_limit(self, log: StreamLog) -> None:
        keys = [StreamKey("tenant/key", f"chat-{number}") for number in range(3)]
        for key in keys:
            await log.append(await _said(log, key), CANCELLED)
        assert len(await log.unsettled(2)) == 2
        assert sorted([key.id for key in await log.unsettled(10)]) == [key.id for key in keys]
        await log.settle(keys[0])
        assert {key.id for key in await log.unsettled(10)} == {"chat-1", "chat-2"}

    async def test_stream_that_was_erased_is_not_unsettled(self, log: StreamLog) -> None:
        await log.append(await _said(log), CANCELLED)
        await log.erase(Whose(KEY.principal, id=KEY.id))
        assert await log.unsettled(10) == []

    async def test_stream_whose_retention_is_over_is_not_unsettled(self, log: StreamLog, clock: Any) -> None:
        await log.append(await _said(log), CANCELLED)
        clock.advance(RETENTION + 1)
        await log.sweep(10)
        assert await log.unsettled(10) == []


async def _said(log: StreamLog, key: StreamKey = KEY) -> Hold:
    """The hold of a stream just created that is said in a conversation."""
    new = new_stream(key)
    request = msgspec.structs.replace(new.request, conversation_id="c")
    hold = (await log.create(msgspec.structs.replace(new, request=request))).hold
    assert hold is not None
    return hold
