"""Cached answers in memory: those that were asked for last stay, within a bound of bytes."""

from collections import OrderedDict

from cauce.ports.cache import CachedAnswer
from cauce.ports.clock import Clock


class InprocCache:
    """See `ports.cache.Cache`. `most_bytes` bounds all answers together; one that is larger alone is not kept."""

    def __init__(self, clock: Clock, most_bytes: int) -> None:
        self._clock = clock
        self._most = most_bytes
        self._kept: OrderedDict[bytes, tuple[CachedAnswer, float]] = OrderedDict()
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
        self._kept[key] = answer, self._clock.monotonic() + keep
        self._size += answer.size
        while self._size > self._most:
            self._drop(next(iter(self._kept)))

    async def delete(self, key: bytes) -> None:
        self._drop(key)

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept[0].size
