"""What goes away with age, and when the ledger's file is full: a day of attempts at once, sums a period at a time.

Room that becomes free is used again, so the file does not grow past its bound; it does not shrink either.
"""

import logging
import sqlite3

from cauce.stores.periods import DAY, month_of
from cauce.stores.sqlite.book import Book, day_name, day_names
from cauce.stores.sqlite.ledger_tables import DAYS, HOURS, MONTHS, USER_DAYS, USER_MONTHS
from cauce.stores.sqlite.settings import LedgerSettings

_BATCH = 1000

logger = logging.getLogger("cauce.ledger")


def prune(book: Book, settings: LedgerSettings, now: float) -> bool:
    """Delete one portion of what is too old or too much. Whether there was any: then call again."""
    # Another process that looks too sees what is left by this one.
    with book.transaction():
        return _prune(book, settings, now)


def _prune(book: Book, settings: LedgerSettings, now: float) -> bool:
    database, today = book.connection, int(now) // DAY
    names = sorted(day_names(database))
    if names and names[0] < day_name(today - settings.keep_attempts + 1):
        _drop(book, names[0])
        return True
    horizon = today - settings.keep_rollups + 1
    for span, first_kept in (
        (HOURS, horizon * 24),
        (USER_DAYS, horizon),
        (DAYS, horizon),
        (USER_MONTHS, month_of(horizon)),
        (MONTHS, month_of(horizon)),
    ):
        if _forget_period(book, span, first_kept):
            return True
    if _forget_feedback(database, horizon * 24):
        return True
    return used(database) > settings.max_bytes and _make_room(book, names)


def used(database: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (free,) = database.execute("PRAGMA freelist_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    return (pages - free) * size


def _make_room(book: Book, names: list[str]) -> bool:
    """Delete what is missed least: attempts, then users, then hours."""
    if names:
        logger.warning(
            "the ledger is larger than [ledger] max_bytes: the attempts of %s are deleted, their sums stay", names[0]
        )
        _drop(book, names[0])
        return True
    for span, what in ((USER_DAYS, "users by day"), (HOURS, "single hours"), (USER_MONTHS, "users by month")):
        if _forget_period(book, span, None):
            logger.warning("the ledger is larger than [ledger] max_bytes: the oldest sums of %s are deleted", what)
            return True
    return False


def _drop(book: Book, name: str) -> None:
    database = book.connection
    book.forget()
    database.execute(f"DROP TABLE IF EXISTS ids_{name}")
    database.execute(f"DROP TABLE attempts_{name}")


def _forget_period(book: Book, span: int, first_kept: int | None) -> bool:
    """Delete the oldest period of `span`, if it is before `first_kept` (None: in any case)."""
    database = book.connection
    (oldest,) = database.execute("SELECT min(period) FROM cells WHERE span = ?", (span,)).fetchone()
    if oldest is None or (first_kept is not None and oldest >= first_kept):
        return False
    book.forget()
    database.execute("DELETE FROM cells WHERE span = ? AND period = ?", (span, oldest))
    if span in (MONTHS, USER_MONTHS):
        # Every kind that is still in use has a month of it.
        used = "SELECT kind FROM cells WHERE span IN (?, ?)"
        database.execute(f"DELETE FROM kinds WHERE id NOT IN ({used})", (MONTHS, USER_MONTHS))  # noqa: S608
    return True


def _forget_feedback(database: sqlite3.Connection, first_kept: int) -> bool:
    deleted = database.execute(
        """DELETE FROM feedback WHERE (tenant, request_id, key) IN
        (SELECT tenant, request_id, key FROM feedback WHERE hour < ? LIMIT ?)""",
        (first_kept, _BATCH),
    )
    return deleted.rowcount > 0
