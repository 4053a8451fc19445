"""Time and chance as a client has them. Tests bring others."""

import asyncio
import random
import time
from contextlib import AbstractAsyncContextManager


class LoopClock:
    """See `ports.clock.Clock`."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)


class Dice:
    """See `ports.chance.Chance`."""

    random = staticmethod(random.random)
