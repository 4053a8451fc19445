"""Kept responses in memory: bounded in age, number and bytes, the oldest forgotten first."""

import logging
from collections.abc import Sequence

import msgspec

from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey
from cauce.ports.clock import Clock
from cauce.ports.responses import KeptResponse

KEEP = 30 * 24 * 3600.0
"""Seconds a response is kept at most: as long as OpenAI keeps them (API reference, `store`)."""

MOST = 10_000
MOST_BYTES = 64 * 1024 * 1024

logger = logging.getLogger("cauce.stores")


class _Promise(msgspec.Struct, frozen=True):
    """What stands for a response that is not there yet, or was `deleted`."""

    created: float
    deleted: bool = False
    size: int = 0


class InprocResponses:
    """See `ports.responses.Responses`. `keep` is in seconds of `clock`."""

    def __init__(self, clock: Clock, *, keep: float = KEEP, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._keep = keep
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[StreamKey, KeptResponse | _Promise] = {}
        """Oldest first."""
        self._bytes = 0

    async def put(self, scope: Scope, response: KeptResponse) -> None:
        self._put(StreamKey(scope.principal, response.id), response)

    async def get(self, scope: Scope, id: str) -> KeptResponse | None:
        self._sweep()
        found = self._kept.get(StreamKey(scope.principal, id))
        return found if isinstance(found, KeptResponse) else None

    async def delete(self, scope: Scope, id: str) -> bool:
        self._sweep()
        key = StreamKey(scope.principal, id)
        found = self._kept.get(key)
        if found is None or (isinstance(found, _Promise) and found.deleted):
            return False
        self._put(key, _Promise(found.created, deleted=True))
        return True

    async def erase(self, principal: str, user: str | None) -> int:
        found = [
            (key, one)
            for key, one in self._kept.items()
            if isinstance(one, KeptResponse) and key.principal == principal and user in (None, one.user)
        ]
        for key, one in found:
            self._put(key, _Promise(one.created, deleted=True))
        return len(found)

    async def deleted(self, scope: Scope, id: str) -> bool:
        found = self._kept.get(StreamKey(scope.principal, id))
        return isinstance(found, _Promise) and found.deleted

    async def promise(self, key: StreamKey, created: float) -> None:
        if key not in self._kept:
            self._put(key, _Promise(created))

    async def promised(self, limit: int) -> Sequence[StreamKey]:
        open_keys = [key for key, one in self._kept.items() if isinstance(one, _Promise) and not one.deleted]
        return open_keys[:limit]

    async def settle(self, key: StreamKey, response: KeptResponse) -> None:
        found = self._kept.get(key)
        if found is None or (isinstance(found, _Promise) and not found.deleted):
            self._put(key, response)

    async def renounce(self, key: StreamKey) -> None:
        found = self._kept.get(key)
        if isinstance(found, _Promise) and not found.deleted:
            self._forget(key)

    def _put(self, key: StreamKey, one: KeptResponse | _Promise) -> None:
        self._forget(key)
        if one.size > self._most_bytes:
            logger.warning("response %s is not kept: it is larger than all of them may be together", key.id)
            return
        self._kept[key] = one
        self._bytes += one.size
        self._sweep()

    def _sweep(self) -> None:
        horizon = self._clock.now() - self._keep
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            within = len(self._kept) <= self._most and self._bytes <= self._most_bytes
            if within and oldest.created > horizon:
                return
            self._forget(key)

    def _forget(self, key: StreamKey) -> None:
        one = self._kept.pop(key, None)
        if one is not None:
            self._bytes -= one.size
