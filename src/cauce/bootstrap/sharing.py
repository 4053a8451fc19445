"""What several processes share in Redis, where one is configured. The driver is loaded only then: the extra `redis`."""

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from cauce.config import Config, ConfigError
from cauce.ports.cache import BoundedCache
from cauce.ports.clock import Clock
from cauce.ports.ids import Ids
from cauce.ports.limiter import Limiter
from cauce.stores.inproc.limiter import InprocLimiter, Spent
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.telemetry.watched import Watched

Mode = Literal["shared", "local share"]


class Sharing(msgspec.Struct, frozen=True):
    """`limiter` puts the shared limiter around one of this process alone, with what the ledger of a node knows, and what that is called. `cache` None: no answers are to be shared. `mode` says who
    decides on limits now. `start` never fails: without a server the process goes on alone until there is one."""

    limiter: Callable[[InprocLimiter, Spent, str], Limiter]
    cache: BoundedCache | None
    mode: Callable[[], Mode]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


def sharing(config: Config, clock: Clock, ids: Ids, metrics: PrometheusMetrics) -> Sharing | None:
    """The Redis of `config`; None where none is configured. Raises `ConfigError`."""
    settings = config.redis
    if not settings.url:
        return None
    try:
        from cauce.stores.redis.cache import RedisCache
        from cauce.stores.redis.connection import RedisConnection
        from cauce.stores.redis.degraded import DegradedLimiter
        from cauce.stores.redis.limiter import RedisLimiter
    except ImportError as error:
        raise ConfigError("redis.url: needs the extra redis: pip install 'cauce[redis]'") from error
    connection = RedisConnection(settings, clock)
    started: list[RedisLimiter] = []

    def limiter(alone: InprocLimiter, spent: Spent, node: str) -> Limiter:
        shared = RedisLimiter(connection, clock, ids, spent, node=node, nodes=settings.nodes)
        started.append(shared)
        return DegradedLimiter(shared, alone, connection, clock, settings.nodes)

    def mode() -> Mode:
        return "shared" if connection.up else "local share"

    async def start() -> None:
        await connection.start()
        for one in started:
            await one.start()

    async def stop() -> None:
        for one in started:
            await one.aclose()
        await connection.aclose()

    metrics.watch(
        Watched(
            "cauce_redis_up",
            "1: Redis answers, 0: this process goes on alone.",
            (),
            lambda: [((), float(connection.up))],
        )
    )
    cache = RedisCache(connection, config.cache.shared) if config.cache.shared else None
    return Sharing(limiter, cache, mode, start, stop)
