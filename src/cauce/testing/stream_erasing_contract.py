"""What every stream log must do with streams that are erased: those of a user, of a principal, or one of them. A part of `stream_log_contract`."""

import asyncio
from typing import Any

import msgspec
import pytest

from cauce.domain.errors import Gone
from cauce.domain.stream import ERASED, Erased, Hold, StreamKey, Whose
from cauce.ports.stream_log import Cancelled, Fenced, StreamLog
from cauce.testing.stream_samples import CANCELLED, END, KEY, LEASE, Logs, created, head_of, new_stream, text, whole

USER = "ana"
HERS = Whose(KEY.principal, USER)
OTHERS = (
    ("tenant/key", "bea"),
    ("tenant/key", None),
    ("tenant/other", USER),
)
"""Principals and users of streams that are not hers."""


async def made(log: StreamLog, id: str, principal: str = KEY.principal, user: str | None = USER) -> Hold:
    """The hold of a stream of `user`, with some text."""
    new = msgspec.structs.replace(new_stream(StreamKey(principal, id)), user=user)
    hold = (await log.create(new)).hold
    assert hold is not None
    return await log.append(hold, text("a"))


async def is_gone(log: StreamLog, key: StreamKey) -> bool:
    """Whether it has expired."""
    try:
        await log.head(key)
    except Gone:
        return True
    return False


class StreamErasingContract:
    """`logs` is the suite's."""

    async def test_ended_streams_of_a_user_are_gone_and_no_others(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        for number in range(3):
            await log.append(await made(log, f"hers-{number}"), END)
        left = [await made(log, f"left-{number}", *whose) for number, whose in enumerate(OTHERS)]
        for hold in left[:2]:
            await log.append(hold, END)
        erased = await other.erase(HERS)
        assert sorted([key.id for key in erased.deleted]) == ["hers-0", "hers-1", "hers-2"] and not erased.open
        for one in (log, other):
            assert all([await is_gone(one, StreamKey(KEY.principal, f"hers-{number}")) for number in range(3)])
            with pytest.raises(Gone):
                await one.read(StreamKey(KEY.principal, "hers-0"), 0, 1)
            for hold in left:
                assert len(await whole(one, hold.key)) >= 2
        assert await log.erase(HERS) == Erased()

    async def test_all_streams_of_a_principal_are_erased_whoever_asked(self, log: StreamLog) -> None:
        holds = [await made(log, f"s-{number}", user=user) for number, user in enumerate((USER, "bea", None))]
        for hold in holds:
            await log.append(hold, END)
        spared = await made(log, "s-0", "tenant/other")
        assert len((await log.erase(Whose(KEY.principal))).deleted) == 3
        assert all([await is_gone(log, hold.key) for hold in holds])
        assert len(await whole(log, spared.key)) == 2

    async def test_one_stream_is_erased_by_its_id(self, log: StreamLog) -> None:
        one, other = await made(log, "one"), await made(log, "other")
        for hold in (one, other):
            await log.append(hold, END)
        unknown = Whose(KEY.principal, id="unknown")
        assert await log.erase(unknown) == Erased() and await log.head(StreamKey(KEY.principal, "unknown")) is None
        assert await log.erase(Whose("tenant/other", id="one")) == Erased()
        assert await log.erase(Whose(KEY.principal, id="one")) == Erased((one.key,))
        assert await is_gone(log, one.key) and len(await whole(log, other.key)) == 3
        with pytest.raises(Gone):
            await log.create(new_stream(one.key))

    async def test_open_stream_that_is_erased_takes_only_its_end_and_goes_with_it(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await made(log, "open")
        assert await other.erase(HERS) == Erased(open=(hold.key,))
        head = await head_of(log, hold.key)
        assert (head.cancel_requested, head.cancel_reason, head.ended) == (True, ERASED, False)
        (renewed,) = await log.renew([hold])
        assert renewed.verdict == "cancel"
        with pytest.raises(Cancelled):
            await log.append(hold, text("late"))
        await log.append(hold, CANCELLED)
        # Nobody asks a second time: the next sweep knows.
        while await other.sweep(100):
            pass
        assert await is_gone(log, hold.key) and await is_gone(other, hold.key)

    async def test_stream_that_was_cancelled_before_is_erased_all_the_same(self, log: StreamLog) -> None:
        hold = await made(log, "open")
        await log.request_cancel(hold.key, "requested")
        assert await log.erase(HERS) == Erased(open=(hold.key,))
        await log.append(hold, CANCELLED)
        assert await log.sweep(100) and await is_gone(log, hold.key)

    async def test_erasing_again_deletes_what_has_ended_since(self, log: StreamLog) -> None:
        hold = await made(log, "open")
        for _ in range(2):
            assert await log.erase(HERS) == Erased(open=(hold.key,))
        await log.append(hold, CANCELLED)
        assert await log.erase(Whose(KEY.principal, id="open")) == Erased((hold.key,))
        assert await is_gone(log, hold.key)

    async def test_takeover_of_an_erased_stream_is_told_so_and_it_goes_with_its_end(
        self, logs: Logs, clock: Any
    ) -> None:
        log, other = await logs(), await logs()
        hold = await made(log, "orphan")
        await other.erase(HERS)
        clock.advance(LEASE + 1)
        (orphan,) = await other.orphans(10)
        taken = await other.claim(orphan, "another")
        assert taken is not None and (await head_of(other, hold.key)).cancel_requested
        with pytest.raises(Cancelled):
            await other.append(taken, text("again"))
        with pytest.raises(Fenced):
            await log.append(hold, CANCELLED)
        await other.append(taken, CANCELLED)
        while await log.sweep(100):
            pass
        assert await is_gone(log, hold.key) and await is_gone(other, hold.key)

    async def test_streams_begun_after_the_erasure_stay(self, log: StreamLog) -> None:
        before = await made(log, "before")
        await log.erase(HERS)
        after = await made(log, "after")
        await log.append(before, CANCELLED)
        while await log.sweep(100):
            pass
        assert await is_gone(log, before.key)
        await log.append(await log.append(after, text("b")), END)
        assert len(await whole(log, after.key)) == 4

    async def test_erasures_of_many_streams_at_once_on_several_servers_agree(self, logs: Logs) -> None:
        servers = [await logs(), await logs()]
        holds = await asyncio.gather(*[made(servers[number % 2], f"s-{number}") for number in range(40)])
        for number, hold in enumerate(holds[:30]):
            await servers[number % 2].append(hold, END)
        # More than one transaction deletes.
        long = holds[0].key
        await asyncio.gather(*[server.erase(HERS) for server in servers])
        assert await is_gone(servers[0], long)
        assert sum([await is_gone(servers[1], hold.key) for hold in holds]) == 30
        assert {hold.key for hold in holds[30:]} == set((await servers[0].erase(HERS)).open)

    async def test_reader_of_an_erased_stream_is_told(self, log: StreamLog) -> None:
        hold = await log.append(await made(log, "read"), END)
        assert len(await whole(log, hold.key)) == 3
        waiting = asyncio.ensure_future(log.wait(hold.key, 3, 5))
        await log.erase(HERS)
        with pytest.raises(Gone):
            await waiting

    async def test_very_long_stream_is_erased_whole(self, log: StreamLog) -> None:
        hold = await created(log)
        for number in range(320):
            hold = await log.append(hold, text(str(number)))
        await log.append(hold, END)
        assert await log.erase(Whose(KEY.principal, id=KEY.id)) == Erased((KEY,))
        assert await is_gone(log, KEY)
