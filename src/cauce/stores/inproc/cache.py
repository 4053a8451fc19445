"""Cached answers in memory: those that were asked for last stay, within a bound of bytes."""

import heapq
from collections import OrderedDict

from cauce.ports.cache import CachedAnswer
from cauce.ports.clock import Clock

_SPARE = 1000
"""Answers that have gone may be remembered beside as many as there are, and so many more."""


class InprocCache:
    """See `ports.cache.BoundedCache`. `most_bytes` bounds all answers together; one that is larger alone is not kept."""

    def __init__(self, clock: Clock, most_bytes: int) -> None:
        self._clock = clock
        self._most = most_bytes
        self._kept: OrderedDict[bytes, tuple[CachedAnswer, float]] = OrderedDict()
        self._over: list[tuple[float, bytes]] = []
        """A heap of when their time is over; of those that have gone before it too."""
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes of all answers, roughly."""
        return self._size

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: bytes) -> CachedAnswer | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        answer, until = kept
        if until <= self._clock.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        self._drop(key)
        if answer.size > self._most or keep <= 0:
            return
        until = self._clock.monotonic() + keep
        self._kept[key] = answer, until
        heapq.heappush(self._over, (until, key))
        self._size += answer.size
        if self._size > self._most:
            self._make_room()
        if len(self._over) > 2 * len(self._kept) + _SPARE:
            self._over = [(until, key) for key, (_, until) in self._kept.items()]
            heapq.heapify(self._over)

    async def delete(self, key: bytes) -> None:
        self._drop(key)

    def _make_room(self) -> None:
        """Let go of answers whose time is over, then of those that were asked for longest ago."""
        now, over, kept = self._clock.monotonic(), self._over, self._kept
        while self._size > self._most and over and over[0][0] <= now:
            until, key = heapq.heappop(over)
            if key in kept and kept[key][1] == until:
                self._drop(key)
        while self._size > self._most:
            self._drop(next(iter(kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept[0].size
