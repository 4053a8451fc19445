"""What is written to a database together."""

import contextlib
import sqlite3
from collections.abc import Generator


@contextlib.contextmanager
def transaction(file: sqlite3.Connection) -> Generator[None]:
    """All of what is done in it, or nothing. No other process writes meanwhile. Raises `sqlite3.Error`."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        # What has happened to the file is what is told, not that nothing is left to take back.
        with contextlib.suppress(sqlite3.Error):
            file.execute("ROLLBACK")
        raise
