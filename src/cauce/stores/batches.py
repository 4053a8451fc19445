"""Work for a server, put to it together: while it answers one batch, the next one gathers. For stores that answer over a connection.

An answer that is lost leaves it open whether the work was done: it is tried again as it is, ever more seldom, as long as whoever
waits for it has patience.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable

PATIENCE = 10.0
"""Seconds that work waits for the server to take it."""

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 0.5

T = TypeVar("T")

logger = logging.getLogger("cauce.streams")


class Pending(Generic[T]):
    """`work` that waits. `again`: it has been tried, and may have been done."""

    __slots__ = ("again", "future", "until", "work")

    def __init__(self, work: T, until: float) -> None:
        self.work = work
        self.until = until
        self.again = False
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, result: Any) -> None:
        """Tell whoever waits, if somebody still does: an exception is raised there."""
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Batches(Generic[T]):
    """`gather` takes a batch out of what waits, and returns it with the rest. `run` has it done and answers each; it returns what is to
    be done anew, and raises `gone` when the server did not answer. It belongs to one event loop.
    """

    def __init__(
        self,
        clock: Clock,
        patience: float,
        gather: Callable[[list[Pending[T]]], tuple[list[Pending[T]], list[Pending[T]]]],
        run: Callable[[list[Pending[T]]], Awaitable[list[Pending[T]]]],
        gone: type[Exception],
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._gather = gather
        self._run = run
        self._gone = gone
        self._waiting: list[Pending[T]] = []
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Answer what waits, as far as the server does."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, work: T) -> Any:
        """The answer to `work`. Raises what it was answered with, and `LogUnavailable` when patience is over."""
        pending = Pending(work, self._clock.monotonic() + self._patience)
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="streams to their store")
        try:
            # However long it takes a server to be found silent.
            async with self._clock.timeout(self._patience):
                return await pending.future
        except TimeoutError:
            raise unavailable() from None

    async def _work(self) -> None:
        wait = _FIRST_WAIT
        while waiting := [pending for pending in self._waiting if not pending.future.done()]:
            batch, self._waiting = self._gather(waiting)
            try:
                anew = await self._run(batch)
            except self._gone:
                self._waiting = [*self._still(batch), *self._waiting]
                if self._waiting:
                    await self._clock.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            except Exception:
                logger.exception("an unexpected error while streams were written")
                for pending in batch:
                    pending.answer(unavailable())
            else:
                self._waiting = [*anew, *self._waiting]
                wait = _FIRST_WAIT

    def _still(self, batch: list[Pending[T]]) -> list[Pending[T]]:
        """Those of `batch` that may wait on. The others are told."""
        now = self._clock.monotonic()
        still: list[Pending[T]] = []
        for pending in batch:
            pending.again = True
            if pending.until > now:
                still.append(pending)
            else:
                pending.answer(unavailable())
        return still


def unavailable() -> LogUnavailable:
    """What callers get while the server is gone."""
    return LogUnavailable("streams cannot be written now: try again", retry_after=5)
