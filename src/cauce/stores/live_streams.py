"""Streams as one process knows them: the newest of their committed records, who waits for more, how far readers have come.

For logs that keep their records outside of memory. A reader that keeps up never asks the store; one that is slow falls out of the
ring and reads from the store at its own pace. All of it belongs to the event loop's thread.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from cauce.domain.stream import Record, State, StreamKey

RING = 256 * 1024
"""Bytes of newest records that are kept of one stream."""

ENDED = 32 * 1024 * 1024
"""Bytes of newest records that are kept of all streams that have ended, together."""

OVERHEAD = 150
"""Bytes a record takes beside what is stored of it, roughly."""

AT_ONCE = 16 * 1024
"""Bytes of records, roughly, after which a read gives what it has: it is all that a slow reader holds of a stream."""


class LiveStream:
    """`row` is the store's own name for the stream. `tail` only moves with what has been committed."""

    __slots__ = (
        "_commits",
        "_doorbell",
        "_first",
        "_ring",
        "bytes",
        "cancelled",
        "epoch",
        "gone",
        "held",
        "key",
        "row",
        "shorter",
        "state",
        "stored",
        "tail",
        "waiting",
    )

    def __init__(self, key: StreamKey, row: int | str, tail: int, epoch: int, state: State) -> None:
        self.key = key
        self.row = row
        self.tail = tail
        self.epoch = epoch
        self.state: State = state
        self.cancelled = False
        self.gone = False
        self.shorter = False
        """It is gone from here since its store has lost the newest of it."""
        self.held = False
        """Whether this process may write it, as far as it knows."""
        self.stored = 0
        """Bytes of all its records, as stored. Known to its holder."""
        self.bytes = 0
        """Bytes in the ring."""
        self.waiting = 0
        self._ring: list[Record] = []
        self._first = tail + 1
        self._commits: deque[tuple[int, int]] = deque()
        self._doorbell: asyncio.Event | None = None

    def committed(self, records: Sequence[Record], size: int) -> None:
        """These follow the tail and are `size` bytes in the store. Readers may have them from now on."""
        self.stored += size
        if records and records[0].seq != self.tail + 1:
            # Somebody who looked at the store knew of them first.
            self.moved(records[-1].seq)
        elif records:
            size += OVERHEAD * len(records)
            self._ring.extend(records)
            self._commits.append((len(records), size))
            self.bytes += size
            self.tail = records[-1].seq
            dropped = 0
            while self.bytes > RING:
                count, freed = self._commits.popleft()
                dropped += count
                self.bytes -= freed
            if dropped:
                del self._ring[:dropped]
                self._first += dropped
            self.ring_doorbell()

    def moved(self, tail: int) -> None:
        """Another process has written up to `tail`."""
        if tail > self.tail:
            self.forget()
            self.tail = tail
            self._first = tail + 1
            self.ring_doorbell()

    def newest(self, after: int, limit: int) -> Sequence[Record] | None:
        """At most `limit` records after `after`, of `AT_ONCE` bytes; None if the ring does not reach back so far."""
        if after >= self.tail:
            return ()
        start = after + 1 - self._first
        if self.tail - after > 1 and self.bytes > AT_ONCE:
            # Records of one stream are much of a size.
            limit = min(limit, max(1, AT_ONCE * len(self._ring) // self.bytes))
        return self._ring[start : start + limit] if start >= 0 else None

    def forget(self) -> None:
        """Empty the ring."""
        self._ring.clear()
        self._commits.clear()
        self.bytes = 0
        self._first = self.tail + 1

    async def more(self) -> None:
        """Return when something has changed."""
        # Whoever waits holds the old event; the next one to wait gets a fresh one.
        if self._doorbell is None:
            self._doorbell = asyncio.Event()
        await self._doorbell.wait()

    def ring_doorbell(self) -> None:
        """Wake all that wait."""
        if self._doorbell is not None:
            self._doorbell.set()
            self._doorbell = None


class LiveStreams:
    """Those that somebody here writes, waits for or reads, and the ones that ended last."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, LiveStream] = {}
        self._readers: Counter[StreamKey] = Counter()
        self._ended: dict[StreamKey, int] = {}
        """What each takes, the one that ended first first."""
        self._ended_bytes = 0

    def get(self, key: StreamKey) -> LiveStream | None:
        """The stream, if it is known here."""
        return self._streams.get(key)

    def put(self, live: LiveStream) -> None:
        """Know of `live`."""
        self._streams[live.key] = live

    def attach(self, key: StreamKey) -> None:
        """A reader is here: once the stream is known, it stays known as long as there is one."""
        self._readers[key] += 1

    def detach(self, key: StreamKey) -> None:
        """A reader has left."""
        self._readers[key] -= 1
        if self._readers[key] <= 0:
            del self._readers[key]
            if (live := self._streams.get(key)) is not None:
                self.settle(live)

    def met(self, live: LiveStream) -> None:
        """The store has told of `live`: it is known from now on if somebody reads it."""
        if live.key in self._readers:
            self.put(live)

    def waited_for(self) -> list[LiveStream]:
        """Those that somebody waits for and another process may write."""
        return [live for live in self._streams.values() if live.waiting and not live.held]

    def settle(self, live: LiveStream) -> None:
        """Forget it unless somebody writes it, waits for it or reads it, or it ended here."""
        if live.held or live.waiting or live.key in self._ended or live.key in self._readers:
            return
        if self._streams.get(live.key) is live:
            del self._streams[live.key]

    def ended(self, live: LiveStream) -> None:
        """It has its `Finish`: it is kept as long as there is room."""
        live.held = False
        if live.key in self._ended or self._streams.get(live.key) is not live:
            return
        # A flat figure beside the ring bounds how many there are.
        self._ended[live.key] = live.bytes + 2048
        self._ended_bytes += live.bytes + 2048
        while self._ended_bytes > ENDED:
            self._drop(next(iter(self._ended)))

    def gone(self, key: StreamKey) -> None:
        """It has expired, or is another process's now: its readers are told to look again."""
        live = self._streams.get(key)
        if live is not None:
            self._drop(key)
            live.gone = True
            live.ring_doorbell()

    def cut(self, live: LiveStream) -> None:
        """Its store has lost what was committed: what is known of it here is forgotten, and its readers are told to look again."""
        live.shorter = True
        if self._streams.get(live.key) is live:
            self.gone(live.key)

    def _drop(self, key: StreamKey) -> None:
        del self._streams[key]
        self._ended_bytes -= self._ended.pop(key, 0)


class Marks:
    """How far readers have been sent, of the streams that were read last. Best effort: it is not kept."""

    _MOST = 20_000

    def __init__(self) -> None:
        self._marks: dict[StreamKey, tuple[int, int | None]] = {}

    def attach(self, key: StreamKey) -> int:
        """A reader of `key` is here; returns its number."""
        number, mark = self._marks.pop(key, (0, None))
        self._marks[key] = (number + 1, mark)
        while len(self._marks) > self._MOST:
            del self._marks[next(iter(self._marks))]
        return number + 1

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """It has been sent records up to `seq`. Counts for the newest reader only."""
        known = self._marks.get(key)
        if known is not None and known[0] == reader:
            self._marks[key] = (reader, seq)

    def get(self, key: StreamKey) -> int | None:
        """How far the newest reader has been sent."""
        known = self._marks.get(key)
        return None if known is None else known[1]

    def kept(self, key: StreamKey) -> int | None:
        """What the log keeps of them: -1 of readers along with its writer, 0 of those that were sent nothing yet, None of none."""
        known = self._marks.get(key)
        return None if known is None else 0 if known[1] is None else -1

    def forget(self, key: StreamKey) -> None:
        """The stream is gone."""
        self._marks.pop(key, None)
