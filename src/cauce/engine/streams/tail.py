"""Reading a stream's log, from any place on, until its end: first read, reconnect and second tab are this one loop."""

from collections.abc import AsyncGenerator, Sequence

from cauce.domain.delta import Delta, Finish
from cauce.domain.stream import StreamKey
from cauce.ports.provider import Deltas
from cauce.ports.stream_log import StreamLog

READ_AT_ONCE = 1000
"""Records one read may give."""


def tail(log: StreamLog, key: StreamKey, after: int) -> Deltas:
    """The deltas after sequence number `after`, and further ones as they are committed. Raises `Gone` once expired."""
    return Deltas(_batches(log, key, after))


async def _batches(log: StreamLog, key: StreamKey, after: int) -> AsyncGenerator[Sequence[Delta], None]:
    while True:
        records = await log.read(key, after, READ_AT_ONCE)
        if records:
            after = records[-1].seq
            yield [record.delta for record in records]
            if isinstance(records[-1].delta, Finish):
                return
        else:
            await log.wait(key, after)
