"""Databases that are made while others make them too."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
