"""Cancels of streams that are not there yet, in the streams' file.

Each is a tombstone before its stream: a row of `streams` without a wire, which what makes the stream takes away, and the sweeper else. So
the index of ids says which of the two came first.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import EARLY, MOST_EARLY

_REMEMBER = """
INSERT INTO streams (principal, id, wire, request, request_hash, policy, state, lease_until, tail, bytes, created, retention,
                     cancel_requested, cancel_reason, terminal_at, due, settled)
VALUES (?1, ?2, '', x'', x'', '', 'expired', 0, 0, 0, ?3, 0, 1, ?4, ?3, ?3 + ?5, 1) ON CONFLICT (principal, id) DO UPDATE SET
    cancel_requested = 1, cancel_reason = excluded.cancel_reason, due = CASE wire WHEN '' THEN excluded.due ELSE due END
 WHERE wire = '' OR (terminal_at IS NULL AND cancel_requested = 0)
"""
_TOO_MANY = """
DELETE FROM streams WHERE key IN
    (SELECT key FROM streams WHERE principal = ? AND wire = '' ORDER BY due DESC LIMIT -1 OFFSET ?)
"""


class EarlyCancel(msgspec.Struct):
    """Cancels a stream that was not there when it was looked for. Gives whether it is now."""

    key: StreamKey
    reason: str
    now: float
    committed: Callable[[Any], None]
    size: int = 0
    lasting: bool = True

    def apply(self, database: sqlite3.Connection, again: bool) -> bool:
        name = (self.key.principal, self.key.id)
        database.execute(_REMEMBER, (*name, self.now, self.reason, EARLY))
        database.execute(_TOO_MANY, (self.key.principal, MOST_EARLY))
        (wire,) = database.execute("SELECT wire FROM streams WHERE principal = ? AND id = ?", name).fetchone()
        return bool(wire)


def take_early_cancel(database: sqlite3.Connection, key: StreamKey, now: float) -> tuple[bool, str | None]:
    """Whether a cancel came before the stream, of which nothing is left then; and its reason, if it still holds."""
    found = database.execute(
        "SELECT key, cancel_reason, due FROM streams WHERE principal = ? AND id = ? AND wire = ''",
        (key.principal, key.id),
    ).fetchone()
    if found is None:
        return False, None
    row, reason, until = found
    database.execute("DELETE FROM streams WHERE key = ?", (row,))
    return True, reason if until > now else None
