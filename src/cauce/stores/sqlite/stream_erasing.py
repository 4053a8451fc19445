"""Streams that are erased from the streams' file: `Erase` says so of all of them at once, `Delete` does it, a part at a time.

Once the first has been written the erasure stands, whatever becomes of this process: the sweeper deletes what is due, and a stream that
was open is due when it ends.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.stream import ERASED, StreamKey, Whose
from cauce.stores.sqlite.stream_retention import EXPIRE, delete_records
from cauce.stores.sqlite.stream_work import Committed

AT_ONCE = 300
"""Segments that are deleted in one transaction."""


class Found(msgspec.Struct, frozen=True):
    """What there is to erase: numbers of ended streams, and keys of those that are not expired yet; keys of open ones."""

    rows: Sequence[int] = ()
    ended: tuple[StreamKey, ...] = ()
    open: tuple[StreamKey, ...] = ()


class Erase(msgspec.Struct):
    """Gives a `Found`."""

    whose: Whose
    committed: Committed
    size: int = 0
    lasting: bool = True

    def apply(self, database: sqlite3.Connection, again: bool) -> Found:
        which, facts = self._which
        still_open = database.execute(
            f"SELECT key, principal, id FROM streams WHERE {which} AND terminal_at IS NULL",  # noqa: S608
            facts,
        ).fetchall()
        # At its end it is due as soon as that.
        database.executemany(
            f"UPDATE streams SET cancel_requested = 1, cancel_reason = '{ERASED}', retention = 0 WHERE key = ?",  # noqa: S608
            [(row,) for row, _, _ in still_open],
        )
        ended = database.execute(
            f"""SELECT key, principal, id, state FROM streams WHERE {which} AND terminal_at IS NOT NULL
                AND NOT (state = 'expired' AND bytes = 0)""",  # noqa: S608
            facts,
        ).fetchall()
        database.executemany(
            f"UPDATE streams SET cancel_reason = '{ERASED}', due = 0 WHERE key = ?",  # noqa: S608
            [(row,) for row, *_ in ended],
        )
        return Found(
            [row for row, *_ in ended],
            tuple([StreamKey(principal, id) for _, principal, id, state in ended if state != "expired"]),
            tuple([StreamKey(principal, id) for _, principal, id in still_open]),
        )

    @property
    def _which(self) -> tuple[str, tuple[Any, ...]]:
        whose = self.whose
        which, facts = "principal = ?", (whose.principal,)
        if whose.user is not None:
            which, facts = f"{which} AND user_name = ?", (*facts, whose.user)
        if whose.id is not None:
            which, facts = f"{which} AND id = ?", (*facts, whose.id)
        return which, facts


class Delete(msgspec.Struct):
    """Gives how many of `rows`, the numbers of streams that are to be erased, are done with: the first ones."""

    rows: Sequence[int]
    now: float
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> int:
        left = AT_ONCE
        for done, row in enumerate(self.rows):
            if left <= 0:
                return done
            database.execute(f"{EXPIRE} WHERE key = ? AND state <> 'expired'", (self.now, row))
            # A stream has one segment at least: who is done has deleted fewer than it might have.
            deleted = delete_records(database, row, left, self.now)
            if deleted == left:
                return done
            left -= max(1, deleted)
        return len(self.rows)
