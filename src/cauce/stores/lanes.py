"""Room for so many at a time, of which some is kept for what is urgent: a herd of readers that comes back must not hold up whoever takes over
what they want to read."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Lanes:
    """Room for `most` at a time. Those that are not urgent never take the last `kept` of it."""

    def __init__(self, most: int, kept: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._ordinary = asyncio.Semaphore(most - kept)

    @asynccontextmanager
    async def place(self, *, urgent: bool = False) -> AsyncGenerator[None, None]:
        """A place, as long as it is within."""
        if urgent:
            async with self._all:
                yield
        else:
            async with self._ordinary, self._all:
                yield
