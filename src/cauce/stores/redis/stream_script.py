"""The script that changes streams in Redis, run for many streams in one round trip."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from cauce.ports.clock import Clock
from cauce.stores.batches import PATIENCE, Batches, Pending, unavailable
from cauce.stores.redis.connection import RedisConnection, RedisGone

_AT_ONCE = 500
"""Pieces of work in one round trip."""

Arguments = Sequence[str | bytes | int]
Asked = tuple[Sequence[str], Callable[[bool], Arguments]]
"""The keys, and the arguments: those may depend on whether it was tried before."""


class StreamScript:
    """`submit` runs the script once."""

    def __init__(self, connection: RedisConnection, clock: Clock, patience: float = PATIENCE) -> None:
        self._connection = connection
        self._text = files("cauce.stores.redis").joinpath("stream_log.lua").read_text("utf-8")
        self._digest = ""
        self._batches = Batches[Asked](clock, patience, _first, self._together, RedisGone)
        self.stop = self._batches.stop

    async def submit(self, keys: Sequence[str], arguments: Callable[[bool], Arguments]) -> Any:
        """What the script gives. Raises `LogUnavailable`."""
        return await self._batches.submit((keys, arguments))

    async def _together(self, batch: list[Pending[Asked]]) -> list[Pending[Asked]]:
        anew: list[Pending[Asked]] = []
        answers = await self._connection.run(lambda redis: self._run(redis, batch), urgent=True)
        for pending, answer in zip(batch, answers, strict=True):
            if isinstance(answer, NoScriptError):
                # The server has been started anew: nothing was done.
                self._digest = ""
                anew.append(pending)
            else:
                pending.answer(_refused(answer) if isinstance(answer, BaseException) else answer)
        return anew

    async def _run(self, redis: Redis, batch: Sequence[Pending[Asked]]) -> list[Any]:
        if not self._digest:
            self._digest = cast(str, await cast(Awaitable[Any], redis.script_load(self._text)))
        async with redis.pipeline(transaction=False) as pipeline:
            for pending in batch:
                keys, arguments = pending.work
                cast(Any, pipeline).evalsha(self._digest, len(keys), *keys, *arguments(pending.again))
            return await pipeline.execute(raise_on_error=False)


def _first(waiting: list[Pending[Asked]]) -> tuple[list[Pending[Asked]], list[Pending[Asked]]]:
    return waiting[:_AT_ONCE], waiting[_AT_ONCE:]


def _refused(error: BaseException) -> BaseException:
    # A server that is out of memory, or only reads, says so in its answer.
    return unavailable() if isinstance(error, ResponseError) else error
