"""Reading streams in PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg

from cauce.domain.stream import GROUP_END, Head, StreamKey, Unreadable
from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.live_streams import AT_ONCE, OVERHEAD, LiveStream
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone, fetched, refuses
from cauce.stores.postgres.stream_tables import NOW
from cauce.stores.shelf import NOT_THERE, Page, Shelved, Standing, Stored
from cauce.stores.stream_rows import COLUMNS, SEGMENT, of_segment, shelved, stored

_POLL = 0.1
"""Seconds between looks whether another process has written. Nothing is told by `NOTIFY`: its lock puts all commits in a row."""

_SEGMENTS = 200
"""Segments that one read gives at most."""

_RECORDS = f"""
WITH near AS (
    SELECT first_seq, epoch, format, data, octet_length(data) + {OVERHEAD} * n AS size FROM segments
     WHERE stream = %(row)s AND first_seq <= %(last)s AND first_seq >= coalesce(
           (SELECT max(first_seq) FROM segments WHERE stream = %(row)s AND first_seq <= %(next)s), 0)
     ORDER BY first_seq LIMIT %(most)s
), summed AS (SELECT *, sum(size) OVER (ORDER BY first_seq) - size AS ahead FROM near)
SELECT {SEGMENT} FROM summed WHERE ahead < %(bytes)s ORDER BY first_seq
"""  # noqa: S608

T = TypeVar("T")


class StreamReading:
    """See `stores.shelf.Shelf`."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock

    async def ask(self, work: Callable[[Connection], Awaitable[T]], *, urgent: bool = False) -> T:
        """What `work` gives. `urgent`: it does not wait behind what readers ask. Raises `LogUnavailable`."""
        try:
            return await self._connections.run(work, urgent=urgent)
        except PostgresGone as error:
            raise LogUnavailable("streams cannot be read now: try again", retry_after=1) from error
        except psycopg.Error as error:
            if not refuses(error):
                raise
            raise LogUnavailable("streams cannot be read now: try again", retry_after=5) from error

    async def rows(
        self, statement: str, facts: Sequence[Any] | dict[str, Any] = (), *, urgent: bool = False
    ) -> list[Any]:
        """All rows that `statement` gives. Raises `LogUnavailable`."""
        return await self.ask(lambda connection: fetched(connection, statement, facts), urgent=urgent)

    async def stored(self, key: StreamKey) -> Stored | None:
        found = await self.rows(
            # One without a wire was cancelled before it was made.
            f"SELECT {COLUMNS} FROM streams WHERE principal = %s AND id = %s AND wire <> ''",  # noqa: S608
            (key.principal, key.id),
        )
        return stored(found[0]) if found else None

    async def records(self, live: LiveStream, after: int, limit: int) -> Page:
        segments = await self.rows(
            _RECORDS,
            {"row": live.row, "next": after + 1, "last": after + limit, "most": _SEGMENTS, "bytes": AT_ONCE},
        )
        page = Page([], 0)
        for segment in segments:
            page = page.and_then(of_segment(*segment), len(segment[-1]), after)
        return page.cut(limit)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        # How ids are sorted is the server's matter, so the index of what is open is gone through.
        found = await self.rows(
            """SELECT id FROM streams WHERE principal = %s AND starts_with(id, %s) AND terminal_at IS NULL
                ORDER BY key DESC LIMIT 1""",
            (principal, group + GROUP_END),
        )
        return StreamKey(principal, found[0][0]) if found else None

    async def history(self, live: LiveStream) -> Shelved | None:
        return await self.ask(lambda connection: _history(connection, live), urgent=True)

    async def orphans(self, time: float | None, limit: int) -> list[Head | Unreadable]:
        """Open streams whose lease is over. `time` None: by the server's own."""
        found = await self.rows(
            f"""SELECT {COLUMNS} FROM streams WHERE terminal_at IS NULL AND lease_until <= coalesce(%s::float8, {NOW})
                ORDER BY key LIMIT %s""",  # noqa: S608
            (time, limit),
            urgent=True,
        )
        return [head for row in found if (head := stored(row).head) is not None]

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, Standing]:
        known = {live.row: live for live in waited}
        # One question for all readers, and what they wait for: it does not stand in line with theirs.
        found = await self.rows(
            "SELECT key, tail, epoch, state FROM streams WHERE key = ANY(%s)", (list(known),), urgent=True
        )
        news = dict.fromkeys([live.key for live in waited], NOT_THERE)
        for row, *standing in found:
            news[known[row].key] = Standing(*standing)
        if all([tail <= known[row].tail for row, tail, *_ in found]):
            await self._clock.sleep(_POLL)
        else:
            await asyncio.sleep(0)
        return news


async def _history(connection: Connection, live: LiveStream) -> Shelved | None:
    found = await fetched(connection, f"SELECT {COLUMNS} FROM streams WHERE key = %s", (live.row,))  # noqa: S608
    segments = f"SELECT {SEGMENT} FROM segments WHERE stream = %s ORDER BY first_seq"  # noqa: S608
    bills = "SELECT row FROM attempts WHERE stream = %s ORDER BY n"
    rest = [await fetched(connection, statement, (live.row,)) for statement in (segments, bills)]
    return shelved(found[0], *rest) if found else None
