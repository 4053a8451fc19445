"""What is written to a database together is written whole or not at all, and another can follow."""

import contextlib
import sqlite3

import pytest

from cauce.stores.sqlite.transaction import transaction

TABLES = """
CREATE TABLE conversations (n INTEGER PRIMARY KEY);
CREATE TABLE turns (n INTEGER REFERENCES conversations DEFERRABLE INITIALLY DEFERRED);
"""


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        (("INSERT INTO conversations VALUES (1)", "INSERT INTO nowhere VALUES (1)"), sqlite3.OperationalError),
        # SQLite finds this out at the end, and leaves the transaction open.
        (("INSERT INTO conversations VALUES (1)", "INSERT INTO turns VALUES (2)"), sqlite3.IntegrityError),
    ],
    ids=["within", "at its end"],
)
def test_transaction_that_fails_leaves_nothing_and_does_not_stand_in_the_way_of_the_next(
    statements: tuple[str, ...], error: type[sqlite3.Error]
) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        file.executescript(TABLES)
        file.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(error), transaction(file):
            for statement in statements:
                file.execute(statement)
        with transaction(file):
            file.execute("INSERT INTO conversations VALUES (3)")
        assert file.execute("SELECT n FROM conversations").fetchall() == [(3,)]
