"""What is the same of all logs whose records are kept outside of memory: how they are read, and what they refuse."""

from collections.abc import Sequence

import msgspec

from cauce.domain.errors import Gone
from cauce.domain.stream import Commit, Created, Head, History, Hold, NewStream, Record, StreamKey, StreamLimits
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Fenced, Full, LogUnavailable
from cauce.stores.batches import PATIENCE
from cauce.stores.followed import Followed
from cauce.stores.live_streams import LiveStream

LEASE = 10.0
"""Seconds that a process may be silent before others take over its streams."""


_LOOKING = 0.01
"""The part of the time that looking may take whether the streams of a log that several processes write take more than they may."""


class SharedLogOptions(msgspec.Struct, frozen=True):
    """Of a log that several processes write. `retention` and `lease` are in seconds, `patience` too: how long a write waits for the server.
    `max_bytes` bounds what all streams take together: beyond it those that ended first expire early."""

    retention: float = 86_400.0
    lease: float = LEASE
    patience: float = PATIENCE
    limits: StreamLimits = StreamLimits()
    max_bytes: int = 4 * 1024 * 1024 * 1024


class FollowedLog:
    """See `ports.stream_log.StreamLog`."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        return await self._followed.read(key, after, limit)

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        return await self._followed.wait(key, after, seconds)

    async def hears(self, key: StreamKey, seq: int) -> bool:
        return await self._followed.hears(key, seq)

    async def head(self, key: StreamKey) -> Head | None:
        return await self._followed.head(key)

    async def history(self, key: StreamKey) -> History:
        return await self._followed.history(key)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        return await self._followed.newest_open(principal, group)

    def attach(self, key: StreamKey) -> int:
        self._followed.lives.attach(key)
        return self._followed.marks.attach(key)

    def detach(self, key: StreamKey, reader: int) -> None:
        self._followed.lives.detach(key)
        self._followed.marks.detach(key, reader)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        self._followed.marks.mark(key, reader, seq)

    def _made(self, new: NewStream, cancelled: str | None) -> Created:
        """What creating a stream gives that was not there before. `cancelled` is the reason of a cancel that came before it."""
        head = fresh(new)
        if cancelled is not None:
            self._followed.cancelled(new.key)
            head = msgspec.structs.replace(head, cancel_requested=True, cancel_reason=cancelled)
        return Created(head, Hold(new.key, 1, 1))

    async def _attached(self, key: StreamKey) -> Created:
        """What creating a stream gives that was there before."""
        head = await self.head(key)
        if head is None:
            raise LogUnavailable("the stream was deleted just now: try again", retry_after=1)
        return Created(head, None)

    async def _written(self, hold: Hold) -> LiveStream:
        """The stream that `hold` is of. Raises `Fenced` where it is gone."""
        try:
            return await self._followed.live(hold.key)
        except Gone as error:
            raise Fenced from error


def look_again(clock: Clock, began: float) -> float:
    """From when on somebody may look again whether streams take more than they may who has looked since `began`."""
    now = clock.monotonic()
    return now + (now - began) / _LOOKING


def check(limits: StreamLimits, live: LiveStream, hold: Hold, commit: Commit, size: int) -> None:
    """Raises `Full` where `commit`, of `size` bytes, would make the stream longer than it may be."""
    if commit.finish is None and (live.stored + size > limits.bytes or hold.tail + len(commit.deltas) > limits.records):
        raise Full


def fresh(new: NewStream) -> Head:
    """The head of a stream that was made just now."""
    return Head(new.key, new.request, new.request_hash, new.created, "queued", 1, 1, wire=new.wire, policy=new.policy)
