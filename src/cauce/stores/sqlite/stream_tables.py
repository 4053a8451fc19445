"""Tables of the streams' file, `streams.db`, and how a connection to it is made.

The file is apart from all others: its checkpoints and what is deleted in it are nobody else's.
"""

import sqlite3
from pathlib import Path
from typing import Literal

from cauce.stores.sqlite.cleaning import ERASURES
from cauce.stores.sqlite.schema import BUSY, Migration, SchemaError, open_database, write_ahead

FILE = "streams.db"
"""What the file is called, in the data folder."""

Synchronous = Literal["full", "normal"]
"""`full`: what was acknowledged survives a power cut, where the disk keeps what it has synced. `normal`: the end of a process, and of
a power cut that a stream was made, taken over, cancelled or has ended."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        # `due` is when the sweeper has something to do for the stream: nothing while it is open.
        # AUTOINCREMENT: the number of a stream that was deleted never comes back.
        """CREATE TABLE streams (
            key INTEGER PRIMARY KEY AUTOINCREMENT, principal TEXT NOT NULL, id TEXT NOT NULL,
            wire TEXT NOT NULL, request BLOB NOT NULL, request_hash BLOB NOT NULL, policy TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'queued', epoch INTEGER NOT NULL DEFAULT 1, node TEXT, lease_until REAL NOT NULL,
            tail INTEGER NOT NULL, bytes INTEGER NOT NULL,
            cancel_requested INTEGER NOT NULL DEFAULT 0, cancel_reason TEXT,
            upstream TEXT, reader_mark INTEGER, settled INTEGER NOT NULL DEFAULT 0,
            created REAL NOT NULL, retention REAL NOT NULL, terminal_at REAL, due REAL,
            UNIQUE (principal, id)
        )""",
        "CREATE INDEX open_streams ON streams (key) WHERE terminal_at IS NULL",
        "CREATE INDEX due_streams ON streams (due) WHERE due IS NOT NULL",
        # One row per stream and commit.
        """CREATE TABLE segments (
            stream INTEGER, first_seq INTEGER, n INTEGER NOT NULL, epoch INTEGER NOT NULL, format INTEGER NOT NULL,
            data BLOB NOT NULL, PRIMARY KEY (stream, first_seq)
        ) WITHOUT ROWID""",
        """CREATE TABLE attempts (
            stream INTEGER, n INTEGER, row BLOB NOT NULL, exported INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (stream, n)
        ) WITHOUT ROWID""",
    ),
    ("ALTER TABLE streams ADD COLUMN reader_seen REAL",),
    # What is left of streams of which nothing else is, to be counted.
    ("CREATE INDEX tombstones ON streams (due) WHERE state = 'expired' AND bytes = 0",),
    (
        "UPDATE streams SET settled = 1 WHERE terminal_at IS NOT NULL",
        "CREATE INDEX unsettled_streams ON streams (key) WHERE settled = 0 AND terminal_at IS NOT NULL",
    ),
    (
        # Who asked, to find what is to be erased.
        "ALTER TABLE streams ADD COLUMN user_name TEXT",
        """UPDATE streams SET user_name = CASE WHEN json_valid(CAST(request AS TEXT))
            THEN nullif(substr(json_extract(CAST(request AS TEXT), '$.user'), 1, 200), '') END""",
        "CREATE INDEX streams_of_users ON streams (principal, user_name) WHERE user_name IS NOT NULL",
        *ERASURES,
    ),
    # Cancels that came before their streams: see `early_cancels.py`.
    ("CREATE INDEX early_cancels ON streams (principal, due) WHERE wire = ''",),
)


def open_streams(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """The connection that writes. Raises `SchemaError`, and `OSError` when the folder cannot be written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _prepare(path)
    database = open_database(path, MIGRATIONS)
    database.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
    # Another thread does that: the one that writes would make everybody wait for it.
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("PRAGMA journal_size_limit = 67108864")
    return database


def open_reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads."""
    database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA query_only = ON")
    return database


def _prepare(path: Path) -> None:
    """Have a new file give back what is deleted: that can only be said before its first table."""
    if path.exists() and path.stat().st_size:
        return
    try:
        database = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
        try:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            write_ahead(database)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise SchemaError(
            f"{path} cannot be made: {error}; see that its folder can be written, or set another"
        ) from error
