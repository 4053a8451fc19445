"""Connections to one PostgreSQL database.

    connections = Connections(settings)
    rows = await connections.run(lambda connection: fetched(connection, "SELECT 1"))   # raises PostgresGone

Each is for one task at a time. One that broke is closed and made anew when it is needed. So is one on which nothing came back for too
long: networks lose servers without telling. `settings.url` is never logged.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cauce.stores.lanes import Lanes
from cauce.stores.postgres.settings import PostgresSettings

MOST = 8
"""Connections beside the one that appends."""

_KEPT = 2
"""Of those, the ones that are kept for work that is urgent."""

ANSWER = 5.0
"""Seconds that work may take on a connection, that it waits for one to be free, and that one takes to be made."""

_SHORTEST = 2
"""Seconds that the driver waits for a connection at least."""

_TIMES = 4
"""How often work is told that the server undoes to let somebody else's go first."""

_ALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""When the system gives up a connection of which it hears nothing."""

Connection = AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")

_UNDONE = (errors.DeadlockDetected, errors.SerializationFailure)
"""What says that the transaction is undone and may be told again at once."""

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
        answer: float = ANSWER,
    ) -> None:
        """`prepare` is awaited with each connection that is made, before anybody uses it. `answer` is the seconds that work may take."""
        self._settings = settings
        self._answer = answer
        self._prepare = prepare
        self._free: list[Connection] = []
        self._lanes = Lanes(most, min(_KEPT, most - 1))
        self._up = True

    @property
    def up(self) -> bool:
        """Whether the server answered when it was asked last."""
        return self._up

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, urgent: bool = False) -> T:
        """What `work` gives, on a connection of its own that commits each statement. It is done again where the server undid it. What is
        `urgent` does not wait behind what is not. Raises `PostgresGone`."""
        async with self._lent(urgent=urgent) as connection:
            for _ in range(_TIMES):
                with self._answered(connection), contextlib.suppress(*_UNDONE):
                    return await work(connection)
        raise PostgresGone

    async def aclose(self) -> None:
        """Close those that nobody uses."""
        for connection in self._free:
            await connection.close()
        self._free.clear()

    @contextlib.asynccontextmanager
    async def _lent(self, *, urgent: bool) -> AsyncGenerator[Connection, None]:
        async with self._place(urgent=urgent):
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

    @contextlib.asynccontextmanager
    async def _place(self, *, urgent: bool) -> AsyncGenerator[None, None]:
        """Room for one more. Raises `PostgresGone` where those that have it all wait for an answer."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._answer):
                    await stack.enter_async_context(self._lanes.place(urgent=urgent))
            except TimeoutError as error:
                raise PostgresGone from error
            yield

    @contextlib.contextmanager
    def _answered(self, connection: Connection) -> Generator[None]:
        """What is waited for within breaks off when it takes too long: the connection is cut. The driver alone would ask the server, which
        does not answer, to stop, and wait on. Real time, since it is a real server's."""
        timer = asyncio.get_running_loop().call_later(self._answer, _cut, connection)
        try:
            yield
        finally:
            timer.cancel()

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
        within = max(_SHORTEST, round(self._answer))
        connection: Connection = await AsyncConnection.connect(
            _alive(self._settings.url), autocommit=True, connect_timeout=within, prepare_threshold=3
        )
        try:
            with self._answered(connection):
                schema = sql.Identifier(self._settings.schema)
                await connection.execute(sql.SQL("SET search_path TO {}").format(schema))
                if self._prepare is not None:
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


def _alive(url: str) -> str:
    """`url` with `_ALIVE`, but for what it says itself."""
    said = conninfo_to_dict(url)
    return make_conninfo(url, **{name: value for name, value in _ALIVE.items() if name not in said})


def _cut(connection: Connection) -> None:
    """Have whoever waits for the server on `connection` find that it is gone."""
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=os.dup(connection.fileno())) as plug:
            plug.shutdown(socket.SHUT_RDWR)


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
