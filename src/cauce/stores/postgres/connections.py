"""Connections to one PostgreSQL database.

    connections = Connections(settings)
    rows = await connections.run(lambda connection: fetched(connection, "SELECT 1"))   # raises PostgresGone

Each is for one task at a time. One that broke is closed and made anew when it is needed. `settings.url` is never logged.
"""

import asyncio
import contextlib
import logging
import select
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict

from cauce.stores.postgres.settings import PostgresSettings

MOST = 4
"""Connections beside the one that appends."""

_CONNECT = 5
"""Seconds a connection may take to be made."""

Connection = AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")

_GONE = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, OSError)
"""What says that another server, or this one later, is to be asked. Of the internal errors most are those of one that only reads."""

logger = logging.getLogger("cauce.stores")


class PostgresGone(Exception):
    """The server does not answer now. What it was told last may have been done."""


def is_address(url: str) -> bool:
    """Whether `url` can be connected to at all, whoever answers there."""
    try:
        ports = str(conninfo_to_dict(url).get("port") or "0").split(",")
    except psycopg.ProgrammingError:
        return False
    return all([not port or (port.isascii() and port.isdigit() and int(port) < 65536) for port in ports])


class Connections:
    """See the module."""

    def __init__(
        self,
        settings: PostgresSettings,
        most: int = MOST,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        """`prepare` is awaited with each connection that is made, before anybody uses it."""
        self._settings = settings
        self._prepare = prepare
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(most)
        self._up = True

    @property
    def up(self) -> bool:
        """Whether the server answered when it was asked last."""
        return self._up

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` gives, on a connection of its own that commits each statement. Raises `PostgresGone`."""
        async with self._lent() as connection:
            return await work(connection)

    async def aclose(self) -> None:
        """Close those that nobody uses."""
        for connection in self._free:
            await connection.close()
        self._free.clear()

    @contextlib.asynccontextmanager
    async def _lent(self) -> AsyncGenerator[Connection, None]:
        async with self._room:
            connection: Connection | None = None
            healthy = False
            try:
                connection = await self._kept() or await self._made()
                yield connection
                healthy = not connection.closed
            except _GONE as error:
                self._tell(up=False, why=error)
                raise PostgresGone from error
            except psycopg.Error:
                # The statement was wrong, not the connection.
                healthy = connection is not None and not connection.closed
                raise
            finally:
                if connection is not None:
                    if healthy:
                        self._tell(up=True)
                        self._free.append(connection)
                    else:
                        await connection.close()

    async def _kept(self) -> Connection | None:
        """One that was used before and still stands."""
        while self._free:
            connection = self._free.pop()
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
            if not poll.poll(0):
                return connection
            # A server that says something unasked has closed it.
            await connection.close()
        return None

    async def _made(self) -> Connection:
        connection: Connection = await AsyncConnection.connect(
            self._settings.url, autocommit=True, connect_timeout=_CONNECT, prepare_threshold=3
        )
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._settings.schema)))
        if self._prepare is not None:
            try:
                await self._prepare(connection)
            except BaseException:
                await connection.close()
                raise
        return connection

    def _tell(self, *, up: bool, why: Exception | None = None) -> None:
        if up != self._up:
            self._up = up
            if up:
                logger.info("PostgreSQL answers again")
            else:
                logger.warning("PostgreSQL does not answer (%s): it is asked again", type(why).__name__)


def refuses(error: psycopg.Error) -> bool:
    """Whether the server refuses every statement of this kind, such as one without its tables or rights: nothing is wrong with the
    data. It is told."""
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return False
    logger.error("PostgreSQL refuses a statement: %s", error.diag.message_primary or type(error).__name__)
    return True


async def fetched(connection: Connection, statement: str, facts: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
    """All rows that `statement` gives."""
    cursor = await connection.execute(statement.encode(), facts)
    return await cursor.fetchall()
