"""Time that stands still until a test moves it on: a `Clock` for whatever waits, retries, expires or gives up.

    clock = FakeClock()
    task = asyncio.create_task(poll(clock))      # a loop around `await clock.sleep(30)`
    await clock.until_waiting()                  # it sleeps now
    clock.advance(30)                            # and goes on when the test next awaits something

Nothing here waits for real time.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator

import msgspec

_BEGINNING = 1_700_000_000.0
"""UNIX time of every new clock: 2023-11-14 22:13:20 UTC."""

_MONOTONIC = 1_000.0
"""What `monotonic` starts from: not 0, which code could take for "not set"."""


_ROUNDING = 1e-9
"""Three times 0.1 s are as long as 0.3 s."""


class _Timer(msgspec.Struct, eq=False):
    due: float
    fire: Callable[[], None]


class FakeClock:
    """See `ports.clock.Clock`. All figures are seconds."""

    def __init__(self, now: float = _BEGINNING) -> None:
        self._began = now
        self._elapsed = 0.0
        self._timers: list[_Timer] = []
        self._started = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many sleeps and time-outs are running."""
        return len(self._timers)

    def now(self) -> float:
        return self._began + self._elapsed

    def monotonic(self) -> float:
        return _MONOTONIC + self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        with self._timer(seconds, woken.set):
            await woken.wait()

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncGenerator[None, None]:
        # The standard library's scope tells our cancellation from anybody else's; it only lacks our time.
        async with asyncio.timeout(None) as scope:
            if seconds is None:
                yield
                return

            def expire() -> None:
                scope.reschedule(asyncio.get_running_loop().time())

            if seconds <= 0:
                expire()
                yield
                return
            with self._timer(seconds, expire):
                yield

    def advance(self, seconds: float) -> None:
        """Move time on. What falls due is woken in the order of its time, and runs when the test next awaits something.

        Time moves in one go: a loop that sleeps 1 s at a time is woken once by `advance(10)`.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._elapsed += seconds
        until = self._elapsed + _ROUNDING
        due = [timer for timer in self._timers if timer.due <= until]
        self._timers = [timer for timer in self._timers if timer.due > until]
        for timer in sorted(due, key=lambda timer: timer.due):
            timer.fire()

    async def until_waiting(self, count: int = 1) -> None:
        """Return once `count` sleeps and time-outs are running."""
        while self.waiting < count:
            self._started.clear()
            await self._started.wait()

    @contextlib.contextmanager
    def _timer(self, seconds: float, fire: Callable[[], None]) -> Generator[None, None, None]:
        timer = _Timer(self._elapsed + seconds, fire)
        self._timers.append(timer)
        self._started.set()
        try:
            yield
        finally:
            if timer in self._timers:
                self._timers.remove(timer)
