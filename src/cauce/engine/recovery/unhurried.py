"""Reading deltas without waiting for them longer than one likes: a read that takes its time goes on, and is awaited again later."""

import asyncio
from collections.abc import Sequence

from cauce.domain.delta import Delta
from cauce.ports.clock import Clock
from cauce.ports.provider import Deltas


class Unhurried:
    """Reads `deltas`, which nobody else may read meanwhile. Close it before `deltas`."""

    def __init__(self, deltas: Deltas, clock: Clock) -> None:
        self._deltas = deltas
        self._clock = clock
        self._reading: asyncio.Task[Sequence[Delta]] | None = None

    async def read(self, seconds: float | None = None) -> Sequence[Delta] | None:
        """The next batch, empty after the end; None if it has not come within `seconds`. Raises `CauceError`."""
        if self._reading is None:
            if seconds is None:
                return await self._deltas.read()
            self._reading = asyncio.create_task(self._deltas.read(), name="a read that may take its time")
        if seconds is not None:
            try:
                async with self._clock.timeout(seconds):
                    await asyncio.wait((self._reading,))
            except TimeoutError:
                return None
        else:
            await asyncio.wait((self._reading,))
        reading, self._reading = self._reading, None
        return reading.result()

    async def aclose(self) -> None:
        """Give up the read that is under way."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
