"""Versions of a database's tables: ordered migrations, each in a transaction of its own.

`PRAGMA user_version` counts the migrations that a file has been through. Nothing destructive is done without being one of them.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from cauce.stores.sqlite.transaction import transaction

Migration = tuple[str, ...]
"""Statements that lead from one version to the next."""

BUSY = 5.0
"""Seconds a statement waits for another process's lock."""

_LOOK = 0.02
"""Seconds between tries of what SQLite itself does not wait for."""


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
        write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        # What is deleted is overwritten, and what is moved.
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, path, migrations)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise SchemaError(f"{path} cannot be opened: {error}; put it aside to begin a new one") from error
        raise
    return connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Have changes written to a log beside the file. Where another process does the same just now, SQLite refuses instead of waiting."""
    until = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_LOOK)
        else:
            return


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    while _version(connection) != len(migrations):
        with transaction(connection):
            # Looked up again, now that nobody else can write: another process may have made the tables meanwhile.
            version = _version(connection)
            if version != len(migrations):
                _check(connection, path, version, len(migrations))
                _advance(connection, path, migrations, version)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def _check(connection: sqlite3.Connection, path: Path, version: int, known: int) -> None:
    if version > known:
        raise SchemaError(
            f"{path} was written by a newer version of Cauce (its tables are version {version}, this one knows "
            f"{known}): start that version, or put the file aside to begin a new one"
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise SchemaError(
            f"{path} holds tables that are not Cauce's: put the file aside, or have Cauce use another folder"
        )


def _advance(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration], version: int) -> None:
    try:
        for statement in migrations[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version + 1}")
    except sqlite3.Error as error:
        raise SchemaError(
            f"{path} could not be brought from version {version} of its tables to {version + 1}: {error}; it is as it was: "
            "start the version of Cauce that wrote it, or put the file aside to begin a new one"
        ) from error
