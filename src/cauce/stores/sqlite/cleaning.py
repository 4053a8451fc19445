"""Having nothing left on the disk of what was deleted from a database.

`secure_delete`, which is on wherever something is deleted, overwrites it. It does not reach copies that SQLite left behind when it moved
rows between pages, nor what stands in the log of writes.
"""

import sqlite3

from cauce.ports.clock import Clock

ERASURES = ("CREATE TABLE erasures (traces INTEGER NOT NULL)", "INSERT INTO erasures VALUES (0)")
"""Of a migration: the table that says of how many erasures there may be traces in the file."""

COUNT = "UPDATE erasures SET traces = traces + 1"

MOST_REWRITTEN = 64 * 1024 * 1024
"""Bytes of a file that is rewritten after an erasure, which takes half a second. In a larger one, copies that were left behind stay until
their pages are used again: about one row in ten thousand had one."""

_PART = 0.01
"""The part of the time that rewriting may take."""

_AFTER_FAILURE = 60.0
"""Seconds until a file is rewritten that could not be."""


def rewrite(database: sqlite3.Connection) -> None:
    """Have no copies left behind in its pages, unless it is too large. Raises `sqlite3.Error` where others write."""
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    if pages * size <= MOST_REWRITTEN:
        # No file but its own has any of it.
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("VACUUM")


def empty_log(database: sqlite3.Connection) -> bool:
    """Take what was written into the file itself, and cut its log to nothing; False while others read."""
    busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


class Cleaning:
    """What is left to do in a file once something was erased there. Its `ERASURES` count that, so that it is done after a crash too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rewritten = 0
        """At which count it was rewritten."""
        self._not_before = clock.monotonic()

    def clean(self, database: sqlite3.Connection, *, at_once: bool = False) -> bool:
        """Whether nothing is left to do. Raises `sqlite3.Error` where others write. `at_once`: however much time it has taken lately."""
        (traces,) = database.execute("SELECT traces FROM erasures").fetchone()
        if not traces:
            # Another process may have done it.
            self._rewritten = 0
            return True
        if traces != self._rewritten:
            began = self._clock.monotonic()
            if began < self._not_before and not at_once:
                return False
            try:
                rewrite(database)
            except sqlite3.Error as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    # A disk without room, for one: who writes needs what there is.
                    self._not_before = began + _AFTER_FAILURE
                raise
            now = self._clock.monotonic()
            self._not_before = now + (now - began) / _PART
            self._rewritten = traces
        if not empty_log(database):
            return False
        # There may be more by now.
        database.execute("UPDATE erasures SET traces = 0 WHERE traces = ?", (traces,))
        self._rewritten = 0
        return True
