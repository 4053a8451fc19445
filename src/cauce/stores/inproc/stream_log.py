"""The stream log in memory. Streams are forgotten `retention` seconds after they ended, the oldest ended ones earlier when
all together exceed `max_bytes`."""

import asyncio
from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Delta, delta_size
from cauce.domain.errors import Gone
from cauce.domain.stream import (
    ERASED,
    GROUP_END,
    AttemptRow,
    Commit,
    Created,
    Erased,
    Head,
    History,
    Hold,
    NewStream,
    Record,
    Renewed,
    State,
    StreamKey,
    StreamLimits,
    Unreadable,
    Upstream,
    Whose,
    advance,
    claimed,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Cancelled, Fenced, Full
from cauce.stores.inproc.early_cancels import EarlyCancels
from cauce.stores.stream_records import encode_value

_TOMBSTONES = 100_000
_RECORD_COST = 200
"""Bytes a record takes beside its text: an estimate that is good enough for a bound."""

_STREAM_COST = 2000
"""The same of a stream beside its request and its records."""


class _Stream:
    __slots__ = (
        "attempts",
        "bytes",
        "cancel_reason",
        "doorbell",
        "epoch",
        "lease_until",
        "new",
        "reader",
        "reader_mark",
        "records",
        "seen",
        "state",
        "terminal_at",
        "upstream",
        "weight",
    )

    def __init__(self, new: NewStream) -> None:
        self.new = new
        self.weight = len(encode_value(new.request)) + len(new.policy) + _STREAM_COST
        """Bytes it takes beside its records."""
        self.state: State = "queued"
        self.epoch = 1
        self.lease_until = 0.0
        self.records: list[Record] = []
        self.attempts: dict[int, AttemptRow] = {}
        self.bytes = 0
        self.cancel_reason: str | None = None
        self.terminal_at: float | None = None
        self.upstream: Upstream | None = None
        self.doorbell = asyncio.Event()
        self.reader = 0
        self.reader_mark: int | None = None
        self.seen: float | None = None

    def add(self, deltas: Sequence[Delta], size: int) -> None:
        """Append them; they take `size` bytes."""
        for delta in deltas:
            self.records.append(Record(len(self.records) + 1, self.epoch, delta))
        self.bytes += size
        self.ring()

    def ring(self) -> None:
        """Wake all that wait."""
        # Whoever waits holds the old event; the next one to wait gets a fresh one.
        self.doorbell.set()
        self.doorbell = asyncio.Event()


class InprocStreamLog:
    """See `ports.stream_log.StreamLog`. Times are seconds of `clock`.

    `lease` None: nobody but this process writes, so that only what was released is an orphan.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        retention: float = 3600.0,
        max_bytes: int = 256 * 1024 * 1024,
        lease: float | None = None,
        limits: StreamLimits | None = None,
    ) -> None:
        self._clock = clock
        self._retention = retention
        self._max_bytes = max_bytes
        self._lease = float("inf") if lease is None else lease
        self._limits = limits or StreamLimits()
        self._streams: dict[StreamKey, _Stream] = {}
        self._open: dict[StreamKey, _Stream] = {}
        self._ended: dict[StreamKey, float] = {}
        """Until when each ended stream is kept, in the order they ended."""
        self._next_due = float("inf")
        self._bytes = 0
        self._expired: dict[StreamKey, None] = {}
        self._unsettled: dict[StreamKey, None] = {}
        self._early = EarlyCancels(clock)

    def knows(self, key: StreamKey) -> bool:
        """Whether the stream is here, or was and has expired."""
        return key in self._streams or key in self._expired

    async def create(self, new: NewStream) -> Created:
        known = self._streams.get(new.key)
        if known is not None:
            return Created(self._head(known), None)
        if new.key in self._expired:
            raise Gone(f"stream {new.key.id!r} has expired: use a new id")
        await self.sweep(_TOMBSTONES)
        stream = self._streams[new.key] = self._open[new.key] = _Stream(new)
        self._bytes += stream.weight
        self._add(stream, (new.first,))
        self._renew(stream)
        stream.cancel_reason = self._early.take(new.key)
        return Created(self._head(stream), Hold(new.key, stream.epoch, len(stream.records)))

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        stream = self._held(hold)
        if stream is None or len(stream.records) != hold.tail:
            raise Fenced
        if stream.cancel_reason is not None and not commit.cancels:
            raise Cancelled
        state = advance(stream.state, *commit.steps)
        if commit.finish is None and not self._fits(stream, commit.deltas):
            raise Full
        stream.state = state
        for row in commit.attempts:
            stream.attempts[row.n] = row
        stream.upstream = commit.upstream or stream.upstream
        if commit.finish is not None:
            stream.terminal_at = self._clock.now()
            del self._open[hold.key]
            own = 0.0 if stream.cancel_reason == ERASED else stream.new.retention
            until = self._ended[hold.key] = stream.terminal_at + (self._retention if own is None else own)
            self._next_due = min(self._next_due, until)
            if not stream.new.settled:
                self._unsettled[hold.key] = None
        self._renew(stream)
        self._add(stream, commit.deltas)
        return msgspec.structs.replace(hold, tail=len(stream.records))

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        return self._there(key).records[after : after + limit]

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        stream = self._there(key)
        if len(stream.records) > after:
            return True
        try:
            async with self._clock.timeout(seconds):
                while len(stream.records) <= after:
                    await stream.doorbell.wait()
                    self._there(key)
        except TimeoutError:
            return False
        return True

    async def hears(self, key: StreamKey, seq: int) -> bool:
        return len(self._there(key).records) >= seq

    async def head(self, key: StreamKey) -> Head | None:
        stream = self._streams.get(key)
        if stream is None:
            if key in self._expired:
                raise _expired(key)
            return None
        return self._head(stream)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        begins = group + GROUP_END
        mine = [key for key in self._open if key.principal == principal and key.id.startswith(begins)]
        return mine[-1] if mine else None

    async def history(self, key: StreamKey) -> History:
        stream = self._there(key)
        bills = tuple([stream.attempts[n] for n in sorted(stream.attempts)])
        return History(self._head(stream), tuple([record.delta for record in stream.records]), bills)

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        stream = self._streams.get(key)
        if stream is None:
            if key in self._expired:
                raise _expired(key)
            self._early.remember(key, reason)
            return None
        if stream.terminal_at is None and stream.cancel_reason is None:
            stream.cancel_reason = reason
        return self._head(stream)

    async def orphans(self, limit: int) -> Sequence[Head]:
        return [self._head(stream) for stream in self._open.values() if self._orphaned(stream)][:limit]

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        stream = self._streams.get(head.key)
        if stream is None or stream.epoch != head.epoch or not self._orphaned(stream):
            return None
        stream.epoch += 1
        stream.state = claimed(stream.state)
        self._renew(stream)
        return Hold(head.key, stream.epoch, len(stream.records))

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        renewed: list[Renewed] = []
        for hold in holds:
            stream = self._held(hold)
            if stream is None:
                renewed.append(Renewed(hold.key, "lost"))
            else:
                self._renew(stream)
                renewed.append(Renewed(hold.key, "kept" if stream.cancel_reason is None else "cancel"))
        return renewed

    async def release(self, holds: Sequence[Hold]) -> None:
        for hold in holds:
            stream = self._held(hold)
            if stream is not None:
                stream.lease_until = 0.0

    def attach(self, key: StreamKey) -> int:
        stream = self._there(key)
        stream.reader += 1
        stream.reader_mark = stream.reader_mark or 0
        return stream.reader

    def detach(self, key: StreamKey, reader: int) -> None:
        """Nothing is kept of who reads."""

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        stream = self._streams.get(key)
        if stream is not None and stream.reader == reader:
            stream.reader_mark = seq

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        for key in keys:
            stream = self._open.get(key)
            if stream is not None:
                stream.seen = self._clock.now()

    async def unseen(self, key: StreamKey) -> float | None:
        seen = self._there(key).seen
        return None if seen is None else self._clock.now() - seen

    async def erase(self, whose: Whose) -> Erased:
        found = [stream for stream in self._streams.values() if _is_of(stream.new, whose)]
        ended = [stream.new.key for stream in found if stream.terminal_at is not None]
        for key in ended:
            self._expire(key)
        still_open = [stream for stream in found if stream.terminal_at is None]
        for stream in still_open:
            stream.cancel_reason = ERASED
        return Erased(tuple(ended), tuple([stream.new.key for stream in still_open]))

    async def sweep(self, limit: int) -> int:
        now = self._clock.now()
        swept = self._early.sweep()
        if self._next_due <= now:
            due = [key for key, until in self._ended.items() if until <= now][:limit]
            for key in due:
                self._expire(key)
            swept += len(due)
            self._next_due = min(self._ended.values(), default=float("inf"))
        while self._ended and self._bytes > self._max_bytes and swept < limit:
            self._expire(next(iter(self._ended)))
            swept += 1
        return swept

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        return list(self._unsettled)[:limit]

    async def settle(self, key: StreamKey) -> None:
        self._unsettled.pop(key, None)

    def _add(self, stream: _Stream, deltas: Sequence[Delta]) -> None:
        size = _size(deltas)
        self._bytes += size
        stream.add(deltas, size)

    def _fits(self, stream: _Stream, deltas: Sequence[Delta]) -> bool:
        limits = self._limits
        return len(stream.records) + len(deltas) <= limits.records and stream.bytes + _size(deltas) <= limits.bytes

    def _renew(self, stream: _Stream) -> None:
        stream.lease_until = self._clock.now() + self._lease

    def _orphaned(self, stream: _Stream) -> bool:
        return stream.terminal_at is None and stream.lease_until <= self._clock.now()

    def _held(self, hold: Hold) -> _Stream | None:
        """The stream, if the hold's epoch is its own and it is open."""
        stream = self._streams.get(hold.key)
        return stream if stream is not None and stream.epoch == hold.epoch and stream.terminal_at is None else None

    def _expire(self, key: StreamKey) -> None:
        stream = self._streams.pop(key)
        del self._ended[key]
        self._unsettled.pop(key, None)
        self._bytes -= stream.bytes + stream.weight
        stream.ring()
        self._expired[key] = None
        while len(self._expired) > _TOMBSTONES:
            del self._expired[next(iter(self._expired))]

    def _there(self, key: StreamKey) -> _Stream:
        stream = self._streams.get(key)
        if stream is None:
            raise _expired(key)
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
            stream.cancel_reason is not None,
            stream.terminal_at,
            stream.reader_mark,
            stream.cancel_reason,
            new.wire,
            new.policy,
            stream.upstream,
        )


def _size(deltas: Sequence[Delta]) -> int:
    return sum([_RECORD_COST + delta_size(delta) for delta in deltas])


def _is_of(new: NewStream, whose: Whose) -> bool:
    if new.key.principal != whose.principal:
        return False
    return whose.user in (None, new.user) and whose.id in (None, new.key.id)


def _expired(key: StreamKey) -> Gone:
    return Gone(f"stream {key.id!r} has expired")
