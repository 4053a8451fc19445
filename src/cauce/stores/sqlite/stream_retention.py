"""Streams whose time is over, in the streams' file: they expire, their records are deleted, and in the end what is left of them.

ended -> expired (its readers are told) -> a minute later without its records: a tombstone -> a week later gone

One that is erased (see `stream_erasing`) does not have its minute.
"""

import sqlite3

import msgspec

from cauce.domain.stream import ERASED, StreamKey
from cauce.stores.sqlite.cleaning import COUNT
from cauce.stores.sqlite.stream_work import Committed

PURGE_AFTER = 60.0
"""Seconds after a stream expired until its records are deleted: whoever still reads them is told first."""

TOMBSTONE = 7 * 86_400.0
"""Seconds that an id is remembered after that: it is gone and not unknown."""

_TOMBSTONE_BYTES = 300
"""What one takes in the file with its indexes, roughly."""

_TOMBSTONES = 0.25
"""The part of the file's bound that tombstones may take: beyond it the oldest ones go, before streams that can be read."""

_APART = 3600.0
"""Seconds that the time of another process may be ahead, which has the file open too: what it let go of is on its way out as well."""

_RECORDS_TAKE = "bytes + 30 * tail + 500"
"""Bytes that the records and bills of a stream take, roughly."""

_VACUUM = 512
"""Pages given back to the disk at a time."""

EXPIRE = f"""UPDATE streams SET state = 'expired', request = x'', request_hash = x'', policy = '', upstream = NULL,
    due = CASE cancel_reason WHEN '{ERASED}' THEN 0 ELSE ? END"""  # noqa: S608


class Sweep(msgspec.Struct):
    """Gives how much there was to do, and the keys of the streams that expired. `most` bounds what the file holds, in bytes."""

    now: float
    limit: int
    most: int
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> tuple[int, list[StreamKey]]:
        due = database.execute(
            "SELECT key, principal, id, state, bytes FROM streams WHERE due <= ? ORDER BY due LIMIT ?",
            (self.now, self.limit),
        ).fetchall()
        ended = [(row, StreamKey(principal, id)) for row, principal, id, state, _ in due if state != "expired"]
        self._expire(database, ended)
        excess = self._excess(database)
        old = self._too_many(database) if excess > 0 else 0
        forgotten = self._forget(database, old)
        # Those that are left of them go next.
        early = self._too_much(database, excess - old * _TOMBSTONE_BYTES, len(ended))
        self._expire(database, early)
        ended += early
        left = self.limit
        for row in [row for row, _, _, state, size in due if state == "expired" and size]:
            if left > 0:
                left -= delete_records(database, row, left, self.now)
        database.executemany(
            "DELETE FROM streams WHERE key = ?",
            [(row,) for row, _, _, state, size in due if state == "expired" and not size],
        )
        if due or forgotten:
            (free,) = database.execute("PRAGMA freelist_count").fetchone()
            for _ in range(min(free, _VACUUM)):
                # The driver takes one step of it, which is one page.
                database.execute("PRAGMA incremental_vacuum(1)")
        count = len(ended) + forgotten + sum(state == "expired" for _, _, _, state, _ in due)
        return count, [key for _, key in ended]

    def _expire(self, database: sqlite3.Connection, streams: list[tuple[int, StreamKey]]) -> None:
        database.executemany(f"{EXPIRE} WHERE key = ?", [(self.now + PURGE_AFTER, row) for row, _ in streams])

    def _excess(self, database: sqlite3.Connection) -> int:
        """Bytes that the file holds and may not; what is on its way out counts as gone."""
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        (page,) = database.execute("PRAGMA page_size").fetchone()
        excess = (pages - free) * page - self.most
        if excess <= 0:
            return 0
        (going,) = database.execute(
            f"""SELECT coalesce(sum({_RECORDS_TAKE}), 0) FROM streams WHERE due <= ? AND state = 'expired' AND bytes > 0""",  # noqa: S608
            (self.now + PURGE_AFTER + _APART,),
        ).fetchone()
        return excess - going

    def _too_many(self, database: sqlite3.Connection) -> int:
        """How many more tombstones there are than may be."""
        (there,) = database.execute("SELECT count(*) FROM streams WHERE state = 'expired' AND bytes = 0").fetchone()
        return max(0, there - int(_TOMBSTONES * self.most / _TOMBSTONE_BYTES))

    def _forget(self, database: sqlite3.Connection, count: int) -> int:
        """Delete at most `count` of the oldest tombstones; returns how many."""
        return database.execute(
            """DELETE FROM streams WHERE key IN
                (SELECT key FROM streams WHERE state = 'expired' AND bytes = 0 ORDER BY due LIMIT ?)""",
            (min(count, self.limit),),
        ).rowcount

    def _too_much(self, database: sqlite3.Connection, excess: int, done: int) -> list[tuple[int, StreamKey]]:
        """As many of the oldest ended streams as take `excess` bytes."""
        found: list[tuple[int, StreamKey]] = []
        if excess <= 0:
            return found
        oldest = database.execute(
            f"""SELECT key, principal, id, {_RECORDS_TAKE} + length(request) + length(policy) FROM streams
                WHERE due > ? AND state <> 'expired' ORDER BY due LIMIT ?""",  # noqa: S608
            (self.now, max(0, self.limit - done)),
        )
        for row, principal, id, size in oldest:
            found.append((row, StreamKey(principal, id)))
            excess -= size
            if excess <= 0:
                oldest.close()
                break
        return found


def delete_records(database: sqlite3.Connection, row: int, most: int, now: float) -> int:
    """Delete at most `most` segments of the stream, which has expired; returns how many. Fewer: nothing is left of it but its id."""
    deleted = database.execute(
        """DELETE FROM segments WHERE stream = ?1 AND first_seq IN
            (SELECT first_seq FROM segments WHERE stream = ?1 ORDER BY first_seq LIMIT ?2)""",
        (row, most),
    ).rowcount
    if deleted < most:
        database.execute("DELETE FROM attempts WHERE stream = ?", (row,))
        erased = f"SELECT 1 FROM streams WHERE key = ? AND cancel_reason = '{ERASED}'"  # noqa: S608
        database.execute(f"{COUNT} WHERE EXISTS ({erased})", (row,))
        database.execute(
            "UPDATE streams SET bytes = 0, due = ?, user_name = NULL, cancel_reason = NULL WHERE key = ?",
            (now + TOMBSTONE, row),
        )
    return deleted
