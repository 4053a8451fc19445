"""The system's clock."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager


class SystemClock:
    """See `ports.clock.Clock`."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)
