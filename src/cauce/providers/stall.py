"""An upstream that keeps its connection alive and gives nothing of its answer any more: signs of life are no progress."""

import asyncio
from math import inf

from cauce.domain.errors import ProviderFailure


class Stall:
    """Of one answer. Whoever reads it sets `since` to 0 with each batch that has deltas, and calls `look` where a read gave none.

    So the clock is read for pings alone. Until the first delta it holds nobody to anything: that wait has a bound of its own.
    """

    __slots__ = ("_loop", "_provider", "_seconds", "since")

    def __init__(self, provider: str, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self.since = inf
        """When the first read without a delta after the newest one was, on the loop's clock; 0: there was none."""

    def look(self) -> None:
        """A read gave no delta. Raises `ProviderFailure` when there has been none for too long."""
        now = self._loop.time()
        if not self.since:
            self.since = now
        elif now - self.since >= self._seconds:
            raise ProviderFailure(
                f"{self._provider}: its connection is alive, and gave nothing of its answer for {self._seconds:g} s",
                failure="transient",
                provider=self._provider,
                code="timeout",
            )
