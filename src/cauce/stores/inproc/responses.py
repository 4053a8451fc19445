"""Kept responses in memory: bounded in age, number and bytes, the oldest forgotten first."""

import logging

from cauce.domain.request import Scope
from cauce.ports.clock import Clock
from cauce.ports.responses import KeptResponse

KEEP = 30 * 24 * 3600.0
"""Seconds a response is kept at most: as long as OpenAI keeps them (API reference, `store`)."""

MOST = 10_000
MOST_BYTES = 64 * 1024 * 1024

logger = logging.getLogger("cauce.stores")


class InprocResponses:
    """See `ports.responses.Responses`. `keep` is in seconds of `clock`."""

    def __init__(self, clock: Clock, *, keep: float = KEEP, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._keep = keep
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[tuple[str, str], KeptResponse] = {}
        """Oldest first."""
        self._bytes = 0

    async def put(self, scope: Scope, response: KeptResponse) -> None:
        key = (scope.principal, response.id)
        self._forget(key)
        if response.size > self._most_bytes:
            logger.warning("response %s is not kept: it is larger than all of them may be together", response.id)
            return
        self._kept[key] = response
        self._bytes += response.size
        self._sweep()

    async def get(self, scope: Scope, id: str) -> KeptResponse | None:
        self._sweep()
        return self._kept.get((scope.principal, id))

    async def delete(self, scope: Scope, id: str) -> bool:
        self._sweep()
        return self._forget((scope.principal, id))

    def _sweep(self) -> None:
        horizon = self._clock.now() - self._keep
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            within = len(self._kept) <= self._most and self._bytes <= self._most_bytes
            if within and oldest.created > horizon:
                return
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> bool:
        response = self._kept.pop(key, None)
        if response is None:
            return False
        self._bytes -= response.size
        return True
