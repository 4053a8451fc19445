"""Reading a stream's log, from any place on, until its end: first read, reconnect and second tab are this one loop."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from cauce.domain.delta import Delta, Finish
from cauce.domain.stream import Record, StreamKey
from cauce.ports.provider import Deltas
from cauce.ports.stream_log import LogUnavailable, StreamLog

READ_AT_ONCE = 250
"""Records one read may give: what a reader that stands still has in its hands is one read."""


class Waiting:
    """Readers that have everything there is. When the process ends before their streams do, they are sent away: their tasks are
    cancelled, so that no answer looks as if it had ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._closing = False

    def send_away(self) -> None:
        """Nobody waits for more from now on."""
        self._closing = True
        for task in self._tasks:
            task.cancel()

    async def more(self, log: StreamLog, key: StreamKey, after: int) -> None:
        """Return when the stream has more than `after`."""
        task = asyncio.current_task()
        assert task is not None
        if self._closing:
            task.cancel()
        self._tasks.add(task)
        try:
            await log.wait(key, after)
        finally:
            self._tasks.discard(task)


def tail(log: StreamLog, key: StreamKey, after: int, waiting: Waiting | None = None) -> Deltas:
    """The deltas after sequence number `after`, and further ones as they are committed. Raises `Gone` once expired."""
    return Deltas(_deltas(follow(log, key, after, waiting)))


async def follow(
    log: StreamLog, key: StreamKey, after: int, waiting: Waiting | None = None
) -> AsyncGenerator[Sequence[Record], None]:
    """The records after `after`, to the `Finish`; those of one batch are of one epoch. Raises `Gone` once expired, `LogUnavailable` where
    what was read is not in the log any more."""
    waiting = waiting or Waiting()
    epoch = 0
    while True:
        records = await log.read(key, after, READ_AT_ONCE)
        if not records:
            await waiting.more(log, key, after)
            continue
        if records[0].epoch != records[-1].epoch:
            # Somebody took the stream over in between: the rest comes with the next read.
            records = [record for record in records if record.epoch == records[0].epoch]
        if epoch and records[0].epoch != epoch:
            await _check(log, key, after, epoch)
        after, epoch = records[-1].seq, records[-1].epoch
        yield records
        if isinstance(records[-1].delta, Finish):
            return


async def gathered(batches: AsyncGenerator[Sequence[Record], None]) -> list[Record]:
    """All records of `batches`, once the stream has ended. Raises as `follow` does."""
    async with aclosing(batches):
        return [record async for batch in batches for record in batch]


async def _check(log: StreamLog, key: StreamKey, seq: int, epoch: int) -> None:
    """Whoever goes on in another epoch goes on from record `seq` of `epoch`: a log that lost it has another one there, or none."""
    there = await log.read(key, seq - 1, 1)
    if not there or there[0].epoch != epoch:
        raise LogUnavailable(f"what was written last of stream {key.id!r} is lost: read it again", retry_after=1)


async def _deltas(batches: AsyncGenerator[Sequence[Record], None]) -> AsyncGenerator[Sequence[Delta], None]:
    try:
        async for records in batches:
            yield [record.delta for record in records]
    finally:
        await batches.aclose()
