"""Databases that are made while others make them too, and those that an earlier version has made."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cauce.stores.sqlite import responses, stream_tables
from cauce.stores.sqlite.schema import Migration, open_database
from cauce.stores.sqlite.stream_tables import MIGRATIONS, open_streams

SERVERS, FILES = 4, 30


def test_servers_that_make_one_file_at_the_same_time_all_have_its_tables(tmp_path: Path) -> None:
    together = threading.Barrier(SERVERS)

    def start(path: Path) -> tuple[int, int]:
        together.wait()
        database = open_streams(path, "normal")
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            (gives_back,) = database.execute("PRAGMA auto_vacuum").fetchone()
        finally:
            database.close()
        return version, gives_back

    with ThreadPoolExecutor(SERVERS) as pool:
        for number in range(FILES):
            found = list(pool.map(start, [tmp_path / str(number) / "streams.db"] * SERVERS))
            assert found == [(len(MIGRATIONS), 2)] * SERVERS


STREAM = """INSERT INTO streams (principal, id, wire, request, request_hash, policy, lease_until, tail, bytes, created, retention)
    VALUES ('p', ?, 'native', ?, x'', '', 0, 0, 0, 0, 0)"""
RESPONSE = "INSERT INTO responses (principal, id, created, state, body) VALUES ('p', ?, 0, 'kept', ?)"


@pytest.mark.parametrize(
    ("migrations", "insert", "column"),
    [(stream_tables.MIGRATIONS, STREAM, "user_name"), (responses.MIGRATIONS, RESPONSE, "user")],
    ids=["streams", "responses"],
)
def test_what_an_earlier_version_has_kept_is_found_by_its_user(
    tmp_path: Path, migrations: tuple[Migration, ...], insert: str, column: str
) -> None:
    added = next(n for n, step in enumerate(migrations) if any(f"ADD COLUMN {column} TEXT" in one for one in step))
    table = insert.split()[2]
    with closing(open_database(tmp_path / "file", migrations[:added])) as old:
        bodies = [
            b'{"user":"ana"}',
            b'{"user":null}',
            b'{"user":""}',
            b"{}",
            b"",
            b"\xff",
            b'{"user":"%s"}' % (b"x" * 300),
        ]
        old.executemany(insert, [(str(n), body) for n, body in enumerate(bodies)])
    with closing(open_database(tmp_path / "file", migrations)) as database:
        found = [user for (user,) in database.execute(f"SELECT {column} FROM {table} ORDER BY id")]
    assert found == ["ana", None, None, None, None, None, "x" * 200]
