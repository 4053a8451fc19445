"""Streams as one process knows them: the newest of their committed records, who waits for more, how far readers have come.

For logs that keep their records outside of memory. A reader that keeps up never asks the store; one that is slow falls out of the
ring and reads from the store at its own pace. All of it belongs to the event loop's thread.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from math import inf

from cauce.domain.delta import delta_size
from cauce.domain.stream import Record, State, StreamKey

RING = 256 * 1024
"""Bytes of newest records that are kept of one stream."""

KEPT = 32 * 1024 * 1024
"""Bytes of newest records that are kept of all streams that this process does not write, together."""

_FLAT = 2048
"""What a stream counts beside its records, which bounds how many there are."""

OVERHEAD = 150
"""Bytes a record takes beside what is stored of it, roughly."""

AT_ONCE = 16 * 1024
"""Bytes of records, roughly, after which a read gives what it has: it is all that a slow reader holds of a stream."""

_GROUP = 32
"""Records that leave a ring together."""

_MISSED = 8
"""Reads beyond a ring of another process's stream after which it is begun anew there."""


def at_once(records: Sequence[Record]) -> Sequence[Record]:
    """As many of `records`, from the first on, as a read gives: one that is larger than that is given alone."""
    size = 0
    for number, record in enumerate(records):
        size += delta_size(record.delta) + OVERHEAD
        if size > AT_ONCE:
            return records[: max(1, number)]
    return records


class LiveStream:
    """`row` is the store's own name for the stream. `tail` only moves with what has been committed.

    The ring has some of the newest records, without holes, as the store has had them in `epoch`. It ends at the tail where this process
    writes the stream; where another does, as far as somebody has read here.
    """

    __slots__ = (
        "_commits",
        "_doorbell",
        "_first",
        "_missed",
        "_ring",
        "_trimmed",
        "bytes",
        "cancelled",
        "epoch",
        "gone",
        "heard",
        "held",
        "key",
        "over",
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
        self.over = False
        """This process has written its end."""
        self.heard = -inf
        """When the store last told how it stands (monotonic clock)."""
        self.stored = 0
        """Bytes of all its records, as stored. Known to its holder."""
        self.bytes = 0
        """Bytes in the ring."""
        self.waiting = 0
        self._ring: list[Record] = []
        self._first = tail + 1
        self._trimmed = False
        """The ring was full: what came before it is not kept."""
        self._missed = 0
        """What was read lately beyond the ring, which therefore does not grow."""
        self._commits: deque[tuple[int, int]] = deque()
        self._doorbell: asyncio.Event | None = None

    def committed(self, records: Sequence[Record], size: int) -> None:
        """This process has written these: they follow the tail, and are `size` bytes in the store. Readers may have them from now on."""
        self.stored += size
        if not records:
            return
        if self._first + len(self._ring) != records[0].seq:
            # Somebody who looked at the store knew of some first.
            self.forget()
        self._extend(records, size)
        self.tail = max(self.tail, records[-1].seq)
        self.ring_doorbell()

    def is_short_of(self, tail: int, epoch: int) -> bool:
        """Whether a store where it has come to `tail` in `epoch` has lost some of it."""
        return epoch > self.epoch and tail < self.tail

    def told(self, tail: int, epoch: int, state: State) -> bool:
        """How the stream stands in the store; False where more is known than that."""
        if (epoch, tail) < (self.epoch, self.tail):
            return False
        changed = tail > self.tail or epoch != self.epoch or state != self.state
        if epoch != self.epoch:
            # It may have lost some of what is in the ring before somebody went on.
            self.forget()
        self.tail, self.epoch, self.state = tail, epoch, state
        if changed:
            self.ring_doorbell()
        return True

    def learned(self, records: Sequence[Record], size: int) -> None:
        """The store has told a reader of these, of `size` bytes: others need not ask it. Another process writes the stream."""
        self.told(self.tail, max(self.epoch, records[-1].epoch), self.state)
        first, end = records[0].seq, self._first + len(self._ring)
        if not self._ring or (first < self._first and not self._trimmed) or self._missed >= _MISSED:
            # Whoever reads from further back will come past the rest; a ring that everybody has gone past is of no use.
            self.forget()
            self._first = end = first
        if first > end:
            self._missed += 1
            return
        new = [record for record in records if record.seq >= end]
        if new:
            self._missed = 0
            self._extend(new, size * len(new) // len(records))

    def refill(self, records: Sequence[Record], size: int) -> None:
        """These are all there are, of `size` bytes: the newest are kept."""
        if records and records[-1].seq == self.tail:
            self.forget()
            for start in range(0, len(records), _GROUP):
                group = records[start : start + _GROUP]
                self._extend(group, size * len(group) // len(records))

    def _extend(self, records: Sequence[Record], size: int) -> None:
        """Have these at the end of the ring, and let go of what is too much at its beginning."""
        if not self._ring:
            self._first = records[0].seq
        size += OVERHEAD * len(records)
        self._ring.extend(records)
        self._commits.append((len(records), size))
        self.bytes += size
        dropped = 0
        while self.bytes > RING:
            count, freed = self._commits.popleft()
            dropped += count
            self.bytes -= freed
        if dropped:
            del self._ring[:dropped]
            self._first += dropped
            self._trimmed = True

    def newest(self, after: int, limit: int) -> Sequence[Record] | None:
        """At most `limit` records after `after`, of `AT_ONCE` bytes; None if the ring does not have them."""
        if after >= self.tail:
            return ()
        start = after + 1 - self._first
        if self.tail - after > 1 and self.bytes > AT_ONCE:
            # Records of one stream are much of a size.
            limit = min(limit, max(1, AT_ONCE * len(self._ring) // self.bytes))
        return self._ring[start : start + limit] if 0 <= start < len(self._ring) else None

    def forget(self) -> None:
        """Empty the ring."""
        self._ring.clear()
        self._commits.clear()
        self.bytes = 0
        self._first = self.tail + 1
        self._trimmed = False
        self._missed = 0

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
    """Those that somebody here writes, waits for or reads, and others as long as there is room."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, LiveStream] = {}
        self._readers: Counter[StreamKey] = Counter()
        self._kept: dict[StreamKey, int] = {}
        """What each takes of those that nobody here writes, the one that was of use longest ago first."""
        self._kept_bytes = 0

    def get(self, key: StreamKey) -> LiveStream | None:
        """The stream, if it is known here."""
        return self._streams.get(key)

    def put(self, live: LiveStream) -> None:
        """Know of `live`. Who waits at another one of the same key is told to look again."""
        if self._streams.get(live.key) is not live:
            self.gone(live.key)
            self._streams[live.key] = live
        self.settle(live)

    def attach(self, key: StreamKey) -> None:
        """A reader is here."""
        self._readers[key] += 1

    def detach(self, key: StreamKey) -> None:
        """A reader has left."""
        self._readers[key] -= 1
        if self._readers[key] <= 0:
            del self._readers[key]
            if (live := self._streams.get(key)) is not None:
                self.settle(live)

    def is_read(self, live: LiveStream) -> bool:
        """Whether somebody waits for it or reads it."""
        return live.waiting > 0 or live.key in self._readers

    def waited_for(self) -> list[LiveStream]:
        """Those that somebody waits for and another process may write."""
        return [live for live in self._streams.values() if live.waiting and not live.held]

    def settle(self, live: LiveStream) -> None:
        """It was of use. Unless it is written here, it is kept as long as there is room."""
        if self._streams.get(live.key) is not live:
            return
        self._kept_bytes -= self._kept.pop(live.key, 0)
        if live.held:
            return
        self._kept[live.key] = live.bytes + _FLAT
        self._kept_bytes += live.bytes + _FLAT
        while self._kept_bytes > KEPT:
            self._make_room(next(iter(self._kept)))

    def gone(self, key: StreamKey) -> None:
        """It has expired, or is not what was known: its readers are told to look again."""
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

    def _make_room(self, key: StreamKey) -> None:
        live = self._streams[key]
        if self.is_read(live):
            live.forget()
            self._kept_bytes -= self._kept.pop(key)
        else:
            self._drop(key)

    def _drop(self, key: StreamKey) -> None:
        del self._streams[key]
        self._kept_bytes -= self._kept.pop(key, 0)


class Marks:
    """How far readers have been sent, of the streams that were read last. Best effort: what the log keeps of it goes with its appends."""

    _MOST = 20_000

    def __init__(self) -> None:
        self._marks: dict[StreamKey, tuple[int, int | None, bool]] = {}
        """Of the newest reader of each: its number, how far it has been sent, and whether it is still here."""

    def attach(self, key: StreamKey) -> int:
        """A reader of `key` is here; returns its number."""
        number, mark, _ = self._marks.pop(key, (0, None, False))
        self._marks[key] = (number + 1, mark, True)
        while len(self._marks) > self._MOST:
            del self._marks[next(iter(self._marks))]
        return number + 1

    def detach(self, key: StreamKey, reader: int) -> None:
        """It has left, and stays where it is. Counts for the newest reader only."""
        known = self._marks.get(key)
        if known is not None and known[0] == reader:
            self._marks[key] = (reader, known[1], False)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """It has been sent records up to `seq`. Counts for the newest reader only."""
        known = self._marks.get(key)
        if known is not None and known[0] == reader:
            self._marks[key] = (reader, seq, known[2])

    def get(self, key: StreamKey) -> int | None:
        """How far the newest reader has been sent."""
        known = self._marks.get(key)
        return None if known is None else known[1]

    def kept(self, key: StreamKey, tail: int) -> int | None:
        """What the log keeps of them with what it appends after `tail`: -1 of a newest reader that is here and has had all there is, else how
        far it has been sent; 0 of those that were sent nothing yet, None of none."""
        known = self._marks.get(key)
        if known is None:
            return None
        _, mark, here = known
        if mark is None:
            return 0
        return -1 if here and mark >= tail else min(mark, tail)

    def forget(self, key: StreamKey) -> None:
        """The stream is gone."""
        self._marks.pop(key, None)
