"""Redis goes away and comes back while calls are made: a short outage for every test run, a long one for the load tests."""

import asyncio
from collections import Counter

import msgspec

from cauce.testing.upstream import Upstream
from tests.http import ask
from tests.redis_server import RedisServer
from tests.serving import Served, serving, upstream_table

AT_ONCE = 10
"""Calls the provider may be asked at once."""


class Told(msgspec.Struct):
    """What became of the calls. `modes` is who decided on limits before, during and after."""

    asked: int
    statuses: Counter[int]
    modes: list[str]
    slowest: float


async def through_an_outage(upstream: Upstream, redis: RedisServer, *, calls: int, seconds: float = 0.0) -> Told:
    """Make `calls` with Redis, as many without it, and as many after its return; without it at least for `seconds`.

    Each call is one of forty clients', and more come than the provider may be asked at once.
    """
    table = upstream_table("up", upstream.base_url, max_concurrent=AT_ONCE)
    table += f'[redis]\nurl = "{redis.url}"\n[limits.models."up/*"]\nrequests_per_minute = 1_000_000\n'
    told = Told(0, Counter(), [], 0.0)
    async with serving(table) as served:
        told.modes.append(await _mode(served))
        load = asyncio.create_task(_load(served, told, calls))
        await upstream.asked.wait()
        redis.stop()
        await load
        await _load(served, told, calls, seconds)
        told.modes.append(await _mode(served))
        redis.start()
        while await _mode(served) != "shared":
            await _load(served, told, 1)
        told.modes.append(await _mode(served))
        await _load(served, told, calls)
    return told


async def _load(served: Served, told: Told, calls: int, seconds: float = 0.0) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    body = {"model": "up/m", "messages": [{"role": "user", "content": "Say hello."}]}
    left = calls

    async def client() -> None:
        nonlocal left
        while left > 0 or loop.time() < until:
            left -= 1
            told.asked += 1
            began = loop.time()
            response = await ask(served.port, "POST", "/llm/message", body)
            told.statuses[response.status] += 1
            told.slowest = max(told.slowest, loop.time() - began)

    await asyncio.gather(*[client() for _ in range(min(40, calls))])


async def _mode(served: Served) -> str:
    return (await ask(served.port, "GET", "/health")).json()["limits"]
