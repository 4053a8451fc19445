"""Two caches as one: a small one that is near, and one behind it that is larger, shared, or there after a restart."""

from cauce.ports.cache import Cache, CachedAnswer
from cauce.ports.clock import Clock


class LayeredCache:
    """See `ports.cache.Cache`. What is found behind is kept near for as long as it would be anyway: `keep` seconds from its making."""

    def __init__(self, near: Cache, behind: Cache, clock: Clock, keep: float) -> None:
        self._near = near
        self._behind = behind
        self._clock = clock
        self._keep = keep

    async def get(self, key: bytes) -> CachedAnswer | None:
        answer = await self._near.get(key)
        if answer is None:
            answer = await self._behind.get(key)
            if answer is not None:
                await self._near.put(key, answer, answer.stored + self._keep - self._clock.now())
        return answer

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        await self._near.put(key, answer, keep)
        await self._behind.put(key, answer, keep)

    async def delete(self, key: bytes) -> None:
        await self._near.delete(key)
        await self._behind.delete(key)
