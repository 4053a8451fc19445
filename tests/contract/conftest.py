"""What tests of contracts begin with: a clock that they move, and a Redis of their own, empty each time."""

from collections.abc import AsyncIterator, Iterator

import pytest

from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.testing.clock import FakeClock
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection with its server. A machine that is busy keeps an answer back for longer than the half second in which a server is
    taken for gone; and whoever waits for it to come back would wait by a clock that nobody moves. Where servers are silent on purpose there is none."""
    monkeypatch.setattr("cauce.stores.redis.connection.COMMAND", 10.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
async def connection(redis_server: RedisServer, clock: FakeClock) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(RedisSettings(redis_server.url), clock)
    await connection.start()
    await connection.run(lambda redis: redis.flushall())
    yield connection
    await connection.aclose()
