"""Reading the streams' file: short reads, each in a thread of a small pool, beside the one that writes."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cauce.domain.stream import GROUP_END, Head, StreamKey, Unreadable
from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.live_streams import AT_ONCE, OVERHEAD, LiveStream
from cauce.stores.shelf import NOT_THERE, Page, Shelved, Standing, Stored
from cauce.stores.sqlite.stream_tables import open_reading
from cauce.stores.stream_rows import COLUMNS, SEGMENT, of_segment, shelved, stored

_THREADS = 2

_POLL = 0.025
"""Seconds between looks whether another process has written."""

_LAST = "\U0010ffff"
"""Comes after every character that ids have."""

T = TypeVar("T")


class StreamReading:
    """See `stores.shelf.Shelf`. Any number of reads at a time; `close` lets go of the file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._pool = ThreadPoolExecutor(_THREADS, "streams-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._watching: sqlite3.Connection | None = None
        self._version = -1
        self._found: dict[int | str, int] = {}
        """The tail that each had when it was looked for last, at `_version`."""

    async def stored(self, key: StreamKey) -> Stored | None:
        return await self._run(lambda database: _stored(database, key))

    async def records(self, live: LiveStream, after: int, limit: int) -> Page:
        return await self._run(lambda database: _records(database, live.row, after, limit))

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, Standing]:
        known = {live.row: live for live in waited}
        tails = {row: live.tail for row, live in known.items()}
        found = await self._run(lambda database: self._moved(database, tails))
        if all([now.tail <= tails[row] and now.state != "expired" for row, now in found.items()]):
            await self._clock.sleep(_POLL)
        return {known[row].key: now for row, now in found.items()}

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        # The index of ids is the one to use, for those of a group are few: the plus signs keep the others out of it.
        statement = """SELECT id FROM streams WHERE principal = ? AND id >= ? AND id < ? AND +terminal_at IS NULL
            ORDER BY +key DESC LIMIT 1"""
        begins = group + GROUP_END
        facts = (principal, begins, begins + _LAST)
        found = await self._run(lambda database: database.execute(statement, facts).fetchone())
        return None if found is None else StreamKey(principal, found[0])

    async def history(self, live: LiveStream) -> Shelved | None:
        return await self._run(lambda database: _history(database, live))

    async def seen(self, key: StreamKey) -> float | None:
        """When a process last told of readers of the stream."""
        statement = "SELECT reader_seen FROM streams WHERE principal = ? AND id = ?"
        found = await self._run(lambda database: database.execute(statement, (key.principal, key.id)).fetchone())
        return None if found is None else found[0]

    async def orphans(self, orphaned: str, facts: dict[str, Any], limit: int) -> list[Head | Unreadable]:
        """Open streams of which the SQL `orphaned` says that nobody holds them."""
        # The index of what is open is small and the only one that can be used.
        statement = f"SELECT {COLUMNS} FROM streams WHERE terminal_at IS NULL AND {orphaned} ORDER BY key LIMIT :limit"  # noqa: S608
        found = await self._run(lambda database: database.execute(statement, {**facts, "limit": limit}).fetchall())
        return [head for row in found if (head := stored(row).head) is not None]

    async def unsettled(self, limit: int) -> list[StreamKey]:
        """See `ports.stream_log.StreamLog`."""
        statement = """SELECT principal, id FROM streams WHERE settled = 0 AND terminal_at IS NOT NULL AND state <> 'expired'
            ORDER BY key LIMIT ?"""
        found = await self._run(lambda database: database.execute(statement, (limit,)).fetchall())
        return [StreamKey(*names) for names in found]

    def close(self) -> None:
        """After this nothing is read."""
        self._pool.shutdown(wait=True)
        for connection in self._connections:
            connection.close()
        if self._watching is not None:
            self._watching.close()

    async def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, read)
        except sqlite3.Error as error:
            raise LogUnavailable("streams cannot be read now: try again", retry_after=1) from error

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reading(self._path)
            self._connections.append(connection)
        return read(connection)

    def _moved(self, database: sqlite3.Connection, tails: dict[int | str, int]) -> dict[int | str, Standing]:
        """How each stream of `tails` stands, by its number, if anything was written since the last time or one is not known there to
        be as long as it was found to be: whoever waits for it may have looked before."""
        if self._watching is None:
            self._watching = open_reading(self._path)
        # Told apart by one connection only: it counts what others have written.
        (version,) = self._watching.execute("PRAGMA data_version").fetchone()
        if version == self._version and all([self._found.get(row) == tail for row, tail in tails.items()]):
            return {}
        marks = ",".join("?" * len(tails))
        statement = f"SELECT key, tail, epoch, state FROM streams WHERE key IN ({marks})"  # noqa: S608
        found = {row: Standing(*now) for row, *now in database.execute(statement, tuple(tails))}
        self._version = version
        self._found = {row: now.tail for row, now in found.items() if now.state != "expired"}
        return {row: found.get(row, NOT_THERE) for row in tails}


def _stored(database: sqlite3.Connection, key: StreamKey) -> Stored | None:
    row = database.execute(
        # One without a wire was cancelled before it was made.
        f"SELECT {COLUMNS} FROM streams WHERE principal = ? AND id = ? AND wire <> ''",  # noqa: S608
        (key.principal, key.id),
    ).fetchone()
    return None if row is None else stored(row)


def _records(database: sqlite3.Connection, row: int | str, after: int, limit: int) -> Page:
    cursor = database.execute(
        f"""SELECT {SEGMENT} FROM segments WHERE stream = ?1 AND first_seq >= coalesce(
            (SELECT max(first_seq) FROM segments WHERE stream = ?1 AND first_seq <= ?2), 0) ORDER BY first_seq""",  # noqa: S608
        (row, after + 1),
    )
    page = Page([], 0)
    # Closed even where a record cannot be read: an open cursor keeps the log of writes from being taken into the file.
    with contextlib.closing(cursor):
        for segment in cursor:
            page = page.and_then(of_segment(*segment), len(segment[-1]), after)
            if len(page.records) >= limit or page.size + OVERHEAD * len(page.records) >= AT_ONCE:
                break
    return page.cut(limit)


def _history(database: sqlite3.Connection, live: LiveStream) -> Shelved | None:
    # In one transaction: as it was at one time.
    database.execute("BEGIN")
    try:
        found = database.execute(f"SELECT {COLUMNS} FROM streams WHERE key = ?", (live.row,)).fetchone()  # noqa: S608
        segments = f"SELECT {SEGMENT} FROM segments WHERE stream = ? ORDER BY first_seq"  # noqa: S608
        bills = "SELECT row FROM attempts WHERE stream = ? ORDER BY n"
        rest = [database.execute(statement, (live.row,)).fetchall() for statement in (segments, bills)]
    finally:
        database.execute("COMMIT")
    return None if found is None else shelved(found, *rest)
