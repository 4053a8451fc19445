"""The stream log in memory. Streams are forgotten `retention` seconds after they ended, the oldest ended ones earlier when
all together exceed `max_bytes`."""

import asyncio
from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Delta, Status, delta_size
from cauce.domain.errors import Gone
from cauce.domain.stream import (
    Commit,
    Created,
    Head,
    Hold,
    NewStream,
    Record,
    State,
    StreamKey,
    advance,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Cancelled, Fenced

_TOMBSTONES = 100_000
_RECORD_COST = 200
"""Bytes a record takes beside its text: an estimate that is good enough for a bound."""


class _Stream:
    __slots__ = (
        "bytes",
        "cancel_requested",
        "doorbell",
        "epoch",
        "new",
        "reader",
        "reader_mark",
        "records",
        "state",
        "terminal_at",
    )

    def __init__(self, new: NewStream) -> None:
        self.new = new
        self.state: State = "queued"
        self.epoch = 1
        self.records: list[Record] = []
        self.bytes = 0
        self.cancel_requested = False
        self.terminal_at: float | None = None
        self.doorbell = asyncio.Event()
        self.reader = 0
        self.reader_mark: int | None = None

    def add(self, deltas: Sequence[Delta]) -> int:
        """Append; returns how many bytes that takes, roughly."""
        size = 0
        for delta in deltas:
            self.records.append(Record(len(self.records) + 1, self.epoch, delta))
            size += _RECORD_COST + delta_size(delta)
        self.bytes += size
        # Whoever waits holds the old event; the next one to wait gets a fresh one.
        self.doorbell.set()
        self.doorbell = asyncio.Event()
        return size


class InprocStreamLog:
    """See `ports.stream_log.StreamLog`. Times are seconds of `clock`."""

    def __init__(self, clock: Clock, *, retention: float = 3600.0, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._clock = clock
        self._retention = retention
        self._max_bytes = max_bytes
        self._streams: dict[StreamKey, _Stream] = {}
        self._ended: dict[StreamKey, float] = {}
        """When each ended stream ended, oldest first."""
        self._bytes = 0
        self._expired: dict[StreamKey, None] = {}

    async def create(self, new: NewStream) -> Created:
        known = self._streams.get(new.key)
        if known is not None:
            return Created(self._head(known), None)
        if new.key in self._expired:
            raise Gone(f"stream {new.key.id!r} has expired: use a new id")
        await self.sweep()
        stream = self._streams[new.key] = _Stream(new)
        facts = {"model": new.request.model, "created": int(new.created)}
        self._bytes += stream.add([Status("accepted", facts=facts)])
        return Created(self._head(stream), Hold(new.key, stream.epoch, len(stream.records)))

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        stream = self._streams.get(hold.key)
        if (
            stream is None
            or stream.epoch != hold.epoch
            or len(stream.records) != hold.tail
            or stream.terminal_at is not None
        ):
            raise Fenced
        if stream.cancel_requested and commit.state != "cancelled":
            raise Cancelled
        if commit.state is not None:
            stream.state = advance(stream.state, commit.state)
        if commit.finish is not None:
            stream.terminal_at = self._ended[hold.key] = self._clock.now()
        self._bytes += stream.add(commit.deltas)
        return msgspec.structs.replace(hold, tail=len(stream.records))

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        return self._there(key).records[after : after + limit]

    async def wait(self, key: StreamKey, after: int) -> None:
        stream = self._there(key)
        while len(stream.records) <= after:
            await stream.doorbell.wait()

    async def head(self, key: StreamKey) -> Head | None:
        stream = self._streams.get(key)
        if stream is None:
            if key in self._expired:
                raise Gone(f"stream {key.id!r} has expired")
            return None
        return self._head(stream)

    async def request_cancel(self, key: StreamKey) -> Head | None:
        stream = self._streams.get(key)
        if stream is None:
            return None
        if stream.terminal_at is None:
            stream.cancel_requested = True
        return self._head(stream)

    def attach(self, key: StreamKey) -> int:
        stream = self._there(key)
        stream.reader += 1
        return stream.reader

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        stream = self._streams.get(key)
        if stream is not None and stream.reader == reader:
            stream.reader_mark = seq

    async def sweep(self) -> int:
        horizon = self._clock.now() - self._retention
        swept = 0
        while self._ended:
            key, terminal_at = next(iter(self._ended.items()))
            if terminal_at > horizon and self._bytes <= self._max_bytes:
                break
            self._expire(key)
            swept += 1
        return swept

    def _expire(self, key: StreamKey) -> None:
        stream = self._streams.pop(key)
        del self._ended[key]
        self._bytes -= stream.bytes
        stream.state = advance(stream.state, "expired")
        self._expired[key] = None
        while len(self._expired) > _TOMBSTONES:
            del self._expired[next(iter(self._expired))]

    def _there(self, key: StreamKey) -> _Stream:
        stream = self._streams.get(key)
        if stream is None:
            raise Gone(f"stream {key.id!r} has expired")
        return stream

    def _head(self, stream: _Stream) -> Head:
        new = stream.new
        return Head(
            new.key,
            new.request,
            new.request_hash,
            new.created,
            stream.state,
            stream.epoch,
            len(stream.records),
            stream.cancel_requested,
            stream.terminal_at,
            stream.reader_mark,
        )
