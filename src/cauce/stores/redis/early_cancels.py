"""How many cancels of streams that are not there yet are remembered in Redis. Each is in the hash that would be its stream's, where
`stream_log.lua` puts it and takes it away; here they are counted."""

from typing import Any, cast

from redis.asyncio import Redis

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import EARLY, MOST_EARLY
from cauce.stores.redis.stream_shelf import StreamShelf


async def remember_early(shelf: StreamShelf, key: StreamKey, row: str, now: float) -> list[str]:
    """That stream was cancelled before it was made. Returns the rows of those that are too many of its principal by that."""
    name = shelf.early(key.principal)
    scores: Any = {row: now}

    async def count(redis: Redis) -> list[Any]:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.zadd(name, scores)
            pipeline.zremrangebyscore(name, "-inf", now - EARLY)
            pipeline.pexpire(name, int(EARLY * 1000))
            pipeline.zcard(name)
            return await pipeline.execute()

    *_, there = await shelf.ask(count, urgent=True)
    if there <= MOST_EARLY:
        return []
    oldest = await shelf.ask(lambda redis: cast(Any, redis).zpopmin(name, there - MOST_EARLY), urgent=True)
    return [old.decode() for old, _ in oldest]
