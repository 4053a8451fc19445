"""What every stream log must do when streams take more room than they may. See `stream_log_contract`."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.errors import Gone
from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import StreamLog
from cauce.testing.stream_samples import END, RETENTION, Logs, created, head_of, new_stream, text, whole

MOST = 1_000_000
"""Bytes that all streams of these tests may take."""

SIZE = 100_000
"""Bytes that one takes, beside what the store needs for it: nine have room."""

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def key_of(number: int) -> StreamKey:
    """One of many."""
    return StreamKey("tenant/key", f"chat-{number}")


def words(number: int) -> str:
    """Text that takes its room whatever is done to it."""
    return "".join(random.Random(number).choices(LETTERS, k=SIZE))  # noqa: S311


async def ended(log: StreamLog, number: int, retention: float | None = None) -> None:
    """A stream of `SIZE` that has ended."""
    hold = (await log.create(new_stream(key_of(number), retention))).hold
    assert hold is not None
    await log.append(await log.append(hold, text(words(number))), END)


async def settled(log: StreamLog, clock: Any, limit: int = 300) -> None:
    """All is done that was to be done a minute later."""
    clock.advance(61)
    while await log.sweep(limit):
        pass


async def there(log: StreamLog, numbers: range) -> list[int]:
    """Which of them can be read."""
    found: list[int] = []
    for number in numbers:
        try:
            head = await log.head(key_of(number))
        except Gone:
            continue
        if head is not None:
            assert len(await whole(log, key_of(number))) == head.tail
            found.append(number)
    return found


def is_newest(found: Sequence[int], numbers: range) -> bool:
    """Whether `found` are as many of the last `numbers` as have room."""
    return len(found) in (8, 9) and list(found) == list(numbers[-len(found) :])


class StreamRoomContract:
    """Part of `StreamLogContract`."""

    async def test_streams_of_all_servers_stay_within_their_bytes_and_what_ended_first_goes_first(
        self, logs: Logs, clock: Any
    ) -> None:
        log, other = await logs(max_bytes=MOST), await logs(max_bytes=MOST)
        for number in range(14):
            await ended((log, other)[number % 2], number)
            clock.advance(1)
        await settled(other, clock)
        assert is_newest(await there(other, range(14)), range(14))
        assert await there(log, range(14)) == await there(other, range(14))
        for number in range(14, 20):
            await ended(log, number)
            clock.advance(1)
        await settled(log, clock)
        assert is_newest(await there(log, range(20)), range(20))

    async def test_room_of_streams_that_are_gone_is_free_again(self, logs: Logs, clock: Any) -> None:
        log = await logs(max_bytes=MOST)
        for number in range(12):
            await ended(log, number)
        await settled(log, clock)
        clock.advance(RETENTION)
        for _ in range(2):
            await settled(log, clock)
        assert await there(log, range(12)) == []
        for number in range(20, 28):
            await ended(log, number)
        await settled(log, clock)
        assert await there(log, range(20, 28)) == list(range(20, 28))

    async def test_open_streams_never_go_and_new_ones_are_taken(self, logs: Logs, clock: Any) -> None:
        log, other = await logs(max_bytes=MOST), await logs(max_bytes=MOST)
        holds = [await log.append(await created(log, key_of(number)), text(words(number))) for number in range(12)]
        for number in range(12, 14):
            await ended(other, number)
        await settled(other, clock)
        assert await there(other, range(14)) == list(range(12))
        for number in range(12):
            hold = await log.append(holds[number], text("more"))
            assert (await head_of(other, key_of(number))).tail == hold.tail == 3
        hold = await log.append(await created(log, key_of(14)), text("a"))
        await settled(log, clock)
        await log.append(hold, END)
        assert (await head_of(log, key_of(14))).ended

    async def test_what_was_asked_counts_too(self, logs: Logs, clock: Any) -> None:
        log = await logs(max_bytes=MOST)
        for number in range(12):
            new = msgspec.structs.replace(new_stream(key_of(number)), policy=words(number))
            hold = (await log.create(new)).hold
            assert hold is not None
            await log.append(await log.append(hold, text("a")), END)
            clock.advance(1)
        await settled(log, clock)
        assert is_newest(await there(log, range(12)), range(12))

    async def test_what_expires_anyway_makes_room_for_the_rest(self, logs: Logs, clock: Any) -> None:
        log = await logs(max_bytes=MOST)
        for number in range(8):
            await ended(log, number, 7200.0 if number % 2 else 600.0)
        holds = [await created(log, key_of(number)) for number in range(8, 12)]
        for number, hold in enumerate(holds, 8):
            await log.append(hold, text(words(number)))
        clock.advance(600)
        await settled(log, clock)
        assert await there(log, range(12)) == [1, 3, 5, 7, 8, 9, 10, 11]

    async def test_servers_that_look_at_once_let_no_more_go_than_one(self, logs: Logs, clock: Any) -> None:
        several = [await logs(max_bytes=MOST) for _ in range(3)]
        for number in range(14):
            await ended(several[0], number)
            clock.advance(1)
        await asyncio.gather(*[settled(log, clock) for log in several])
        assert is_newest(await there(several[0], range(14)), range(14))

    async def test_few_at_a_time_are_as_many_in_the_end(self, logs: Logs, clock: Any) -> None:
        log = await logs(max_bytes=MOST)
        for number in range(16):
            await ended(log, number)
            clock.advance(1)
        await settled(log, clock, limit=2)
        assert is_newest(await there(log, range(16)), range(16))
