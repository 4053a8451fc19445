"""The script that changes streams in Redis, run for many streams in one round trip.

    submit -> what waits (grows while the server answers) -> one pipeline -> each gets its own answer

An answer that is lost leaves it open whether the server did the work: it is told so when it is tried again, ever more seldom, for
`patience` seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.redis.connection import RedisConnection, RedisGone

PATIENCE = 10.0
"""Seconds that work waits for the server to take it."""

_AT_ONCE = 500
"""Pieces of work in one round trip."""

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 0.5

Arguments = Sequence[str | bytes | int]
Asked = tuple[Sequence[str], Callable[[bool], Arguments]]
"""The keys, and the arguments: those may depend on whether it was tried before."""


class _Pending:
    __slots__ = ("again", "asked", "future", "until")

    def __init__(self, asked: Asked, until: float) -> None:
        self.asked = asked
        self.until = until
        self.again = False
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class StreamScript:
    """`submit` runs the script once. It belongs to one event loop."""

    def __init__(self, connection: RedisConnection, clock: Clock, patience: float = PATIENCE) -> None:
        self._connection = connection
        self._clock = clock
        self._patience = patience
        self._text = files("cauce.stores.redis").joinpath("stream_log.lua").read_text("utf-8")
        self._digest = ""
        self._waiting: list[_Pending] = []
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Answer what waits, as far as the server does."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, keys: Sequence[str], arguments: Callable[[bool], Arguments]) -> Any:
        """What the script gives. Raises `LogUnavailable`."""
        pending = _Pending((keys, arguments), self._clock.monotonic() + self._patience)
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="streams to Redis")
        return await pending.future

    async def _work(self) -> None:
        wait = _FIRST_WAIT
        while self._waiting:
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            try:
                answers = await self._connection.run(lambda redis, batch=batch: self._run(redis, batch))
            except RedisGone:
                self._waiting = [*self._still(batch), *self._waiting]
                if self._waiting:
                    await self._clock.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            wait = _FIRST_WAIT
            for pending, answer in zip(batch, answers, strict=True):
                if isinstance(answer, NoScriptError):
                    # The server has been started anew: nothing was done.
                    self._digest = ""
                    self._waiting.insert(0, pending)
                elif pending.future.done():
                    continue
                elif isinstance(answer, BaseException):
                    pending.future.set_exception(_refused(answer))
                else:
                    pending.future.set_result(answer)

    async def _run(self, redis: Redis, batch: Sequence[_Pending]) -> list[Any]:
        if not self._digest:
            self._digest = cast(str, await cast(Awaitable[Any], redis.script_load(self._text)))
        async with redis.pipeline(transaction=False) as pipeline:
            for pending in batch:
                keys, arguments = pending.asked
                cast(Any, pipeline).evalsha(self._digest, len(keys), *keys, *arguments(pending.again))
            return await pipeline.execute(raise_on_error=False)

    def _still(self, batch: Sequence[_Pending]) -> list[_Pending]:
        """Those of `batch` that may wait on. The others are told."""
        now = self._clock.monotonic()
        still: list[_Pending] = []
        for pending in batch:
            pending.again = True
            if pending.until > now:
                still.append(pending)
            elif not pending.future.done():
                pending.future.set_exception(unavailable())
        return still


def unavailable() -> LogUnavailable:
    """What callers get while the server is gone."""
    return LogUnavailable("streams cannot be written now: try again", retry_after=5)


def _refused(error: BaseException) -> BaseException:
    # A server that is out of memory, or only reads, says so in its answer.
    return unavailable() if isinstance(error, ResponseError) else error
