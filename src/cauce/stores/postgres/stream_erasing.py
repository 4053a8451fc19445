"""Streams that are erased from PostgreSQL: said of all of them at once, and done a part at a time.

Once the first has been committed the erasure stands, whatever becomes of this process: the sweeper deletes what is due, and a stream that
was open is due when it ends. What deleted rows held is on the server's disk until it vacuums; that is its own matter.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.stream import ERASED, StreamKey, Whose
from cauce.stores.postgres.connections import Connection, fetched
from cauce.stores.postgres.stream_retention import EMPTY, EXPIRE, PURGE, Sweep

AT_ONCE = 300
"""Streams, and segments, that are deleted in one transaction."""

# Rows are locked in the order of their keys, as appends lock them: nobody waits for who waits for him.
_MARK = f"""
WITH mine AS MATERIALIZED (
    SELECT key, state, terminal_at IS NULL AS open FROM streams
     WHERE principal = %(principal)s AND (%(user)s::text IS NULL OR user_name = %(user)s)
       AND (%(id)s::text IS NULL OR id = %(id)s) AND NOT (state = 'expired' AND bytes = 0)
     ORDER BY key FOR UPDATE
)
UPDATE streams s SET cancel_reason = '{ERASED}', cancel_requested = s.cancel_requested OR mine.open,
       retention = CASE WHEN mine.open THEN 0 ELSE s.retention END, due = CASE WHEN NOT mine.open THEN 0 END
  FROM mine WHERE s.key = mine.key RETURNING s.key, s.id, mine.open, mine.state = 'expired'
"""  # noqa: S608


class Found(msgspec.Struct, frozen=True):
    """What there is to erase: numbers of ended streams, and keys of those that are not expired yet; keys of open ones."""

    rows: Sequence[int]
    ended: tuple[StreamKey, ...]
    open: tuple[StreamKey, ...]


async def mark(connection: Connection, whose: Whose) -> Found:
    """Have these be erased."""
    facts = {"principal": whose.principal, "user": whose.user, "id": whose.id}
    found = await fetched(connection, _MARK, facts)
    return Found(
        [row for row, _, still_open, _ in found if not still_open],
        tuple([StreamKey(whose.principal, id) for _, id, still_open, expired in found if not (still_open or expired)]),
        tuple([StreamKey(whose.principal, id) for _, id, still_open, _ in found if still_open]),
    )


async def delete(connection: Connection, rows: Sequence[int], now: float | None) -> Sequence[int]:
    """Delete some of what is left of the first of `rows`; returns those of which there is more."""
    some = rows[:AT_ONCE]
    facts: dict[str, Any] = {**Sweep(now, AT_ONCE).facts, "purged": some}
    async with connection.transaction():
        await fetched(connection, "SELECT 1 FROM streams WHERE key = ANY(%(purged)s) ORDER BY key FOR UPDATE", facts)
        for statement in (f"{EXPIRE} WHERE key = ANY(%(purged)s) AND state <> 'expired'", PURGE, EMPTY):
            await connection.execute(statement.encode(), facts)
        left = await fetched(connection, "SELECT key FROM streams WHERE key = ANY(%(purged)s) AND bytes > 0", facts)
    return [*[row for (row,) in left], *rows[AT_ONCE:]]
