"""The connection to one Redis or Valkey server, shared by all that is kept there.

    connection = RedisConnection(settings, clock)
    await connection.start()                     # never fails: without a server it goes on trying
    try:
        value = await connection.run(lambda redis: redis.get(connection.key("cache:abc")))
    except RedisGone:
        ...                                      # the store's own answer to that, at once
    await connection.aclose()

`run` fails fast while the server is gone: one command meets the time-out, those after it do not even try. In the background the
server is asked again, ever more seldom, and once it answers `run` works again. Both changes are told in the log, once each, and to
those who asked with `on_change`. Only this package imports the driver: the extra `redis`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cauce.ports.clock import Clock
from cauce.stores.lanes import Lanes
from cauce.stores.redis.settings import RedisSettings

COMMAND = 0.5
"""Seconds a command may take, and a connection to be made. A request meets this at most once."""

FIRST_WAIT = 0.25
LONGEST_WAIT = 5.0
"""Seconds between looks whether the server is back: they double."""

MOST_AT_ONCE = 16
"""Commands under way. Those that wait for one to end learn from it if the server is gone."""

_KEPT = 4
"""Of those, the ones that are kept for commands that are urgent."""

ALONE = "this node goes on alone, with its share of each limit"

T = TypeVar("T")

logger = logging.getLogger("cauce.stores")


class RedisGone(Exception):
    """The server does not answer now."""


class RedisConnection:
    """See the module. Commands give bytes. `settings.url` is never logged: it may hold a password."""

    def __init__(self, settings: RedisSettings, clock: Clock, meanwhile: str = ALONE) -> None:
        """`meanwhile` says for people what follows while the server is gone."""
        self._clock = clock
        self._meanwhile = meanwhile
        self._prefix = settings.prefix
        pool: Any = cast(Any, BlockingConnectionPool).from_url(
            settings.url,
            # And a few for the commands that last.
            max_connections=MOST_AT_ONCE + 4,
            timeout=COMMAND,
            socket_timeout=COMMAND,
            socket_connect_timeout=COMMAND,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._lanes = Lanes(MOST_AT_ONCE, _KEPT)
        self._changed: list[Callable[[bool], None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._closing = False
        self.up = False

    def key(self, name: str) -> str:
        """`name` behind the prefix of everything that is ours."""
        return self._prefix + name

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener(up)` called when the server goes and when it comes back."""
        self._changed.append(listener)

    async def start(self) -> None:
        """Connect. Where that fails, go on trying in the background."""
        try:
            await self._ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._tell(error)
            self._look()
        else:
            self._came()

    async def run(self, command: Callable[[Redis], Awaitable[T]], *, urgent: bool = False) -> T:
        """What `command` gives. What is `urgent` does not wait behind what is not. Raises `RedisGone`."""
        async with self._lanes.place(urgent=urgent):
            return await self.last(command)

    async def last(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """The same for one that goes on for long, such as listening: nobody waits behind it."""
        if not self.up:
            raise RedisGone
        try:
            return await command(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            raise RedisGone from error

    async def aclose(self) -> None:
        """Let go of the connections."""
        # The driver may swallow a cancel.
        self._closing = True
        self.up = False
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._redis.aclose(close_connection_pool=True)

    async def _ping(self) -> None:
        # Alone the driver's time-out holds for each of several steps.
        async with asyncio.timeout(2 * COMMAND):
            await cast(Any, self._redis).execute_command("PING")

    def _lost(self, error: Exception) -> None:
        if self.up:
            self.up = False
            self._tell(error)
            for listener in self._changed:
                listener(False)
            self._look()

    def _came(self) -> None:
        self.up = True
        for listener in self._changed:
            listener(True)

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        wait = FIRST_WAIT
        while not self.up and not self._closing:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                # What is left of before may be half dead.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            await self._clock.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._ping()
                logger.info("Redis answers again")
                self._came()

    def _tell(self, error: Exception) -> None:
        logger.warning("Redis does not answer (%s): %s, until it does", type(error).__name__, self._meanwhile)
