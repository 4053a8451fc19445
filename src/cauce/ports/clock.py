"""Time, as the engine and the server see it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Clock(Protocol):
    """All figures are seconds."""

    def now(self) -> float:
        """UNIX time."""
        ...

    def monotonic(self) -> float:
        """Time that never jumps; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that time."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Raise `TimeoutError` out of the block when it takes longer (None: never)."""
        ...
