"""Streams whose time is over, in PostgreSQL: they expire, their records are deleted, and in the end what is left of them.

What all take together is bounded. A table does not become smaller by what is deleted in it, so what is left in it is counted: `kept` of
streams that have ended, which an index has, and those that are open. Only who has found that the tables are larger than that counts.
"""

from typing import Any

import msgspec

from cauce.domain.stream import ERASED, StreamKey
from cauce.stores.postgres.connections import Connection, fetched
from cauce.stores.postgres.stream_tables import GIVEN_NOW, TOMBSTONE_BYTES, takes

PURGE_AFTER = 60.0
TOMBSTONE = 7 * 86_400.0
"""Seconds from a stream's expiry to the deletion of its records, and from then on to that of its id."""

_TOMBSTONES = 0.25
"""The part of the bound that tombstones may take: beyond it the oldest ones go, before streams that can be read."""

ROOM_LOCK = 0x63617564
"""Of several processes that look at once, one makes room. In one database each schema has its own."""

EXPIRE = f"""
UPDATE streams SET state = 'expired', request = '', request_hash = '', policy = '', upstream = NULL, kept = 0,
       due = CASE cancel_reason WHEN '{ERASED}' THEN 0 ELSE {GIVEN_NOW} + %(purge)s END
"""  # noqa: S608
_DUE = f"""
SELECT key, principal, id, state = 'expired', bytes > 0 FROM streams WHERE due <= {GIVEN_NOW} ORDER BY due
 LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608
# From its beginning on, and not all at once: a transaction is as long as it deletes.
PURGE = """
DELETE FROM segments s USING (
    SELECT one.* FROM unnest(%(purged)s::bigint[]) AS p (key) CROSS JOIN LATERAL (
        SELECT stream, first_seq FROM segments WHERE stream = p.key ORDER BY first_seq LIMIT %(limit)s) AS one
     LIMIT %(limit)s) AS first
 WHERE s.stream = first.stream AND s.first_seq = first.first_seq
"""
EMPTY = f"""
WITH empty AS (
    UPDATE streams SET bytes = 0, due = {GIVEN_NOW} + %(forget)s, user_name = NULL, cancel_reason = NULL WHERE key = ANY(%(purged)s)
       AND NOT EXISTS (SELECT 1 FROM segments WHERE stream = key) RETURNING key
) DELETE FROM attempts USING empty WHERE stream = empty.key
"""  # noqa: S608
_SIZE = "pg_total_relation_size('streams') + pg_total_relation_size('segments') + pg_total_relation_size('attempts')"
_LARGE = f"SELECT TRUE WHERE {_SIZE} > %(most)s"
_MINE = f"SELECT pg_try_advisory_xact_lock({ROOM_LOCK}, hashtext(current_schema()))"
_TAKEN = f"""
SELECT coalesce(sum(kept), 0)::bigint, count(*) FILTER (WHERE kept = 0),
       (SELECT coalesce(sum({takes("tail", "bytes")}), 0)::bigint FROM streams WHERE terminal_at IS NULL)
  FROM streams WHERE due IS NOT NULL
"""  # noqa: S608
_OLD = """
DELETE FROM streams WHERE key IN (
    SELECT key FROM streams WHERE due IS NOT NULL AND kept = 0 AND bytes = 0 ORDER BY due LIMIT %(old)s FOR UPDATE SKIP LOCKED
) RETURNING key
"""
_OLDEST = f"""
SELECT key, principal, id, kept FROM streams WHERE due > {GIVEN_NOW} AND kept > 0 ORDER BY due
 LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608


class Sweep(msgspec.Struct, frozen=True):
    """Each of its methods is one transaction. `limit` bounds what it does; `now` None: the server's own time."""

    now: float | None
    limit: int

    async def due(self, connection: Connection) -> tuple[int, list[StreamKey]]:
        """How much was due, and which streams expired."""
        facts = self.facts
        async with connection.transaction():
            due = await fetched(connection, _DUE, facts)
            facts["ended"] = [row for row, _, _, expired, _ in due if not expired]
            facts["purged"] = [row for row, _, _, expired, full in due if expired and full]
            facts["gone"] = [row for row, _, _, expired, full in due if expired and not full]
            for statement in (
                f"{EXPIRE} WHERE key = ANY(%(ended)s)",
                PURGE,
                EMPTY,
                "DELETE FROM streams WHERE key = ANY(%(gone)s)",
            ):
                await connection.execute(statement.encode(), facts)
        return len(due), [StreamKey(principal, id) for _, principal, id, expired, _ in due if not expired]

    async def room(self, connection: Connection, most: int) -> tuple[int, list[StreamKey]]:
        """Have all take `most` bytes: how many tombstones were deleted, and which streams expired, those that ended first."""
        facts = {**self.facts, "most": most}
        async with connection.transaction():
            if not await fetched(connection, _LARGE, facts):
                return 0, []
            [(mine,)] = await fetched(connection, _MINE)
            if not mine:
                return 0, []
            [(ended, tombstones, still_open)] = await fetched(connection, _TAKEN)
            excess = ended + tombstones * TOMBSTONE_BYTES + still_open - most
            if excess <= 0:
                return 0, []
            old = max(0, tombstones - int(_TOMBSTONES * most / TOMBSTONE_BYTES))
            forgotten = await fetched(connection, _OLD, {"old": min(old, self.limit)}) if old else []
            excess -= old * TOMBSTONE_BYTES
            early: list[tuple[int, StreamKey]] = []
            for row, principal, id, size in await fetched(connection, _OLDEST, facts) if excess > 0 else []:
                early.append((row, StreamKey(principal, id)))
                excess -= size
                if excess <= 0:
                    break
            facts["early"] = [row for row, _ in early]
            await connection.execute(f"{EXPIRE} WHERE key = ANY(%(early)s)".encode(), facts)
        return len(forgotten), [key for _, key in early]

    @property
    def facts(self) -> dict[str, Any]:
        """What its statements are told."""
        return {"now": self.now, "limit": self.limit, "purge": PURGE_AFTER, "forget": TOMBSTONE}
