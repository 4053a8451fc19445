"""Versions of a database's tables: ordered migrations, each in a transaction of its own.

`PRAGMA user_version` counts the migrations that a file has been through. Nothing destructive is done without being one of them.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

Migration = tuple[str, ...]
"""Statements that lead from one version to the next."""

BUSY = 5.0
"""Seconds a statement waits for another process's lock."""


class SchemaError(Exception):
    """A database cannot be used as it is: what happened and what to do, in one sentence."""


def open_database(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """The database at `path`, made or brought to the newest version. The connection may be handed to another thread.

    Raises `SchemaError`: for a file of a newer version, one that is damaged or no database, and a migration that failed (then
    the file is as it was before that one).
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _migrate(connection, path, migrations)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise SchemaError(f"{path} cannot be opened: {error}; put it aside to begin a new one") from error
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SchemaError(
            f"{path} was written by a newer version of Cauce (its tables are version {version}, this one knows "
            f"{len(migrations)}): start that version, or put the file aside to begin a new one"
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise SchemaError(
            f"{path} holds tables that are not Cauce's: put the file aside, or set another [server] data_dir"
        )
    for number in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.rollback()
            raise SchemaError(
                f"{path} could not be brought from version {number} of its tables to {number + 1}: {error}; it is as it was: "
                "start the version of Cauce that wrote it, or put the file aside to begin a new one"
            ) from error
