"""Conversations in PostgreSQL, for several processes that serve together."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.errors import Overloaded
from cauce.domain.request import Scope, storable
from cauce.ports.clock import Clock
from cauce.ports.conversations import TOMBSTONE, Place
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone, fetched, refuses
from cauce.stores.postgres.conversation_tables import make_tables
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.turn_rows import CONVERSATION, MOST_BYTES, TURN, conversation_of, said, turn_of

_CONNECTIONS = 3

_WHERE = "tenant = %(tenant)s AND key = %(key)s AND id = %(id)s AND deleted_at IS NULL"
_OF_USER = """
AND (user_id = %(user)s OR n IN (SELECT conversation FROM turns WHERE turns.user_id = %(user)s AND turns.user_id <> ''))
"""
_MADE = """
INSERT INTO conversations AS c (tenant, key, id, user_id, title, started_at, last_at)
VALUES (%(tenant)s, %(key)s, %(id)s, %(user)s, %(title)s, %(at)s, %(at)s)
    ON CONFLICT (tenant, key, id) DO UPDATE SET user_id = excluded.user_id, title = excluded.title, started_at = excluded.started_at,
       last_at = excluded.last_at, begins_at = c.deleted_at, deleted_at = NULL WHERE c.deleted_at < %(begun)s
RETURNING n
"""
# Whoever erases waits for those that add, and they for him: what is added is erased, or finds that it was.
_ADDING = "LOCK TABLE conversations IN ROW EXCLUSIVE MODE"
_ERASING = "LOCK TABLE conversations IN SHARE ROW EXCLUSIVE MODE"
_IS_ERASED = """
SELECT 1 FROM erased_owners WHERE tenant = %(tenant)s AND key = %(key)s AND user_id IN ('', %(user)s) AND erased_at >= %(begun)s
"""
_ERASED = """
INSERT INTO erased_owners VALUES (%(tenant)s, %(key)s, %(user)s, %(now)s)
    ON CONFLICT (tenant, key, user_id) DO UPDATE SET erased_at = excluded.erased_at
"""
_TURN = """
INSERT INTO turns (conversation, seq, message_id, role, speaker, text, message, happened_at, recorded_at, status, stream_id, model, user_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (conversation, message_id) DO NOTHING RETURNING seq
"""
_SIZE = "octet_length(t.text) + coalesce(octet_length(t.message), 0)"
_TURNS = f"""
SELECT {TURN} FROM (
    SELECT t.*, sum({_SIZE}) OVER (ORDER BY seq) - ({_SIZE}) AS ahead FROM (
        SELECT turns.* FROM turns JOIN conversations ON conversation = n WHERE {_WHERE} AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
    ) AS t
) AS sized WHERE ahead < {MOST_BYTES} ORDER BY seq
"""  # noqa: S608

T = TypeVar("T")


class PostgresConversations:
    """See `ports.conversations.Conversations`. `keep_for` is in seconds (None: until they are deleted)."""

    shared = True

    def __init__(self, settings: PostgresSettings, clock: Clock, *, keep_for: float | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._keep_for = keep_for
        self._connections = Connections(settings, _CONNECTIONS, self._prepare)
        self._prepared = False

    async def stop(self) -> None:
        """Let go of the connections."""
        await self._connections.aclose()

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        await self._ask(lambda connection: self._keep(connection, scope, id, turns, begun))

    async def make(self, scope: Scope, id: str, title: str) -> bool:
        now = self._clock.now()
        facts = {**_names(scope, id), "title": storable(title), "at": now, "begun": float("inf")}
        return bool(await self._rows(_MADE, facts))

    async def find(self, scope: Scope, id: str) -> Conversation | None:
        found = await self._rows(f"SELECT {CONVERSATION} FROM conversations WHERE {_WHERE}", _names(scope, id))  # noqa: S608
        return conversation_of(found[0]) if found else None

    async def newest(self, scope: Scope, limit: int, after: Place | None = None) -> Sequence[Conversation]:
        facts = {"tenant": scope.tenant, "key": scope.key, "limit": limit}
        further = ""
        if after is not None:
            further = 'AND (last_at, id COLLATE "C") < (%(updated)s, %(last)s)'
            facts |= {"updated": after.updated, "last": storable(after.id)}
        found = await self._rows(
            f"""SELECT {CONVERSATION} FROM conversations WHERE tenant = %(tenant)s AND key = %(key)s AND deleted_at IS NULL {further}
                ORDER BY last_at DESC, id COLLATE "C" DESC LIMIT %(limit)s""",  # noqa: S608
            facts,
        )
        return [conversation_of(row) for row in found]

    async def turns(self, scope: Scope, id: str, after: int, limit: int) -> Sequence[Turn]:
        found = await self._rows(_TURNS, {**_names(scope, id), "after": after, "limit": limit})
        return [turn_of(row) for row in found]

    async def rename(self, scope: Scope, id: str, title: str) -> bool:
        asked = f"UPDATE conversations SET title = %(title)s WHERE {_WHERE} RETURNING n"  # noqa: S608
        return bool(await self._rows(asked, {**_names(scope, id), "title": storable(title)}))

    async def delete(self, scope: Scope, id: str) -> Sequence[str] | None:
        return await self._ask(lambda connection: self._delete(connection, scope, id))

    async def erase(self, scope: Scope, user: str | None = None) -> int:
        return await self._ask(lambda connection: self._erase(connection, scope, user))

    async def sweep(self, limit: int) -> int:
        return await self._ask(lambda connection: self._sweep(connection, limit))

    async def _prepare(self, connection: Connection) -> None:
        if not self._prepared:
            await make_tables(connection, self._settings.schema)
            self._prepared = True

    async def _ask(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` gives. Raises `Overloaded`."""
        try:
            return await self._connections.run(work)
        except PostgresGone as error:
            raise Overloaded("conversations cannot be used now: try again", retry_after=1) from error
        except psycopg.Error as error:
            if not refuses(error):
                raise
            raise Overloaded("conversations cannot be used now: try again", retry_after=5) from error

    async def _rows(self, statement: str, facts: dict[str, Any]) -> list[Any]:
        return await self._ask(lambda connection: fetched(connection, statement, facts))

    async def _keep(self, connection: Connection, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        names = {**_names(scope, id), "begun": begun}
        async with connection.transaction():
            await connection.execute(_ADDING)
            if await fetched(connection, _IS_ERASED, names):
                return
            await fetched(connection, _MADE, {**names, "title": "", "at": turns[0].at})
            # Whoever else adds to it waits until it is known what is there.
            anew = "(begins_at IS NULL OR begins_at < %(begun)s)"
            asked = f"SELECT n, count FROM conversations WHERE {_WHERE} AND {anew} FOR UPDATE"  # noqa: S608
            found = await fetched(connection, asked, names)
            if not found:
                # It was deleted since that was begun.
                return
            [(n, count)] = found
            seq = count
            for turn in turns:
                values = (n, seq + 1, storable(turn.id), *said(turn), turn.at, self._clock.now(), turn.standing)
                where = (storable(turn.stream_id), storable(turn.model), names["user"])
                added = await fetched(connection, _TURN, (*values, *where))
                seq += len(added)
            if seq > count:
                last = max([turn.at for turn in turns])
                grown = "UPDATE conversations SET count = %s, last_at = greatest(last_at, %s::float8) WHERE n = %s RETURNING n"
                await fetched(connection, grown, (seq, last, n))

    async def _delete(self, connection: Connection, scope: Scope, id: str) -> Sequence[str] | None:
        async with connection.transaction():
            asked = f"SELECT n FROM conversations WHERE {_WHERE} FOR UPDATE"  # noqa: S608
            found = await fetched(connection, asked, _names(scope, id))
            if not found:
                return None
            deleted = await self._emptied(connection, [n for (n,) in found])
        return list(dict.fromkeys([stream_id for (stream_id,) in deleted if stream_id]))

    async def _erase(self, connection: Connection, scope: Scope, user: str | None) -> int:
        which = "" if user is None else _OF_USER
        asked = f"""SELECT n FROM conversations WHERE tenant = %(tenant)s AND key = %(key)s AND deleted_at IS NULL {which}
            ORDER BY n FOR UPDATE"""  # noqa: S608
        facts = {"tenant": scope.tenant, "key": scope.key, "user": storable(user or "")}
        async with connection.transaction():
            await connection.execute(_ERASING)
            await connection.execute(_ERASED, {**facts, "now": self._clock.now()})
            found = [n for (n,) in await fetched(connection, asked, facts)]
            await self._emptied(connection, found)
        return len(found)

    async def _emptied(self, connection: Connection, some: Sequence[int]) -> list[Any]:
        """Leave of these, by their numbers, that they were there; the streams of their turns."""
        deleted = await fetched(
            connection, "DELETE FROM turns WHERE conversation = ANY(%s) RETURNING stream_id", (some,)
        )
        gone = "UPDATE conversations SET title = '', user_id = '', count = 0, deleted_at = %s WHERE n = ANY(%s) RETURNING n"
        await fetched(connection, gone, (self._clock.now(), some))
        return deleted

    async def _sweep(self, connection: Connection, limit: int) -> int:
        now = self._clock.now()
        async with connection.transaction():
            over = """DELETE FROM conversations WHERE n IN (
                SELECT n FROM conversations WHERE deleted_at <= %s LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING n"""
            done = len(await fetched(connection, over, (now - TOMBSTONE, limit)))
            await connection.execute("DELETE FROM erased_owners WHERE erased_at <= %s", (now - TOMBSTONE,))
            if self._keep_for is None:
                return done
            old = """SELECT n FROM conversations WHERE last_at <= %s AND deleted_at IS NULL ORDER BY last_at LIMIT %s
                FOR UPDATE SKIP LOCKED"""
            rows = [n for (n,) in await fetched(connection, old, (now - self._keep_for, limit))]
            for table, column in (("turns", "conversation"), ("conversations", "n")):
                await connection.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)".encode(), (rows,))  # noqa: S608
        return done + len(rows)


def _names(scope: Scope, id: str) -> dict[str, Any]:
    return {"tenant": scope.tenant, "key": scope.key, "id": storable(id), "user": storable(scope.user or "")}
