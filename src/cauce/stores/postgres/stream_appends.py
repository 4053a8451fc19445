"""Appending to streams in PostgreSQL: everything that waits goes into one transaction, on a connection of its own.

    append -> what waits (grows while the server answers) -> lock in the order of keys, fenced update, COPY, COMMIT -> answers

What was not acknowledged is tried again as it is: it may have been committed.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from cauce.domain.stream import APPENDED, Hold, State, advance
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Cancelled, Fenced, LogUnavailable
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone
from cauce.stores.stream_records import FORMAT

PATIENCE = 10.0
"""Seconds that an append waits for the server to take it."""

_AT_ONCE = 1000
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 0.5

_LOCK = """
SELECT key, epoch, tail, cancel_requested, terminal_at IS NOT NULL, state FROM streams WHERE key = ANY(%s) ORDER BY key FOR UPDATE
"""
_UPDATE = """
UPDATE streams s SET tail = s.tail + a.n, bytes = s.bytes + a.size, lease_until = a.lease_until, state = coalesce(a.state, s.state),
       terminal_at = a.terminal_at, due = a.terminal_at + s.retention, upstream = coalesce(a.upstream, s.upstream),
       reader_mark = coalesce(a.mark, s.reader_mark)
  FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::float8[],
              %s::bytea[], %s::int[]) AS a (key, epoch, tail, n, size, state, before, lease_until, terminal_at, upstream, mark)
 WHERE s.key = a.key AND s.epoch = a.epoch AND s.tail = a.tail AND s.terminal_at IS NULL
   AND (NOT s.cancel_requested OR a.state = 'cancelled') AND (a.before IS NULL OR strpos(a.before, s.state) > 0)
RETURNING s.key
"""
_COPY = "COPY segments (stream, first_seq, n, epoch, format, data) FROM STDIN (FORMAT BINARY)"
_ATTEMPT = """
INSERT INTO attempts (stream, n, row) VALUES (%s, %s, %s)
    ON CONFLICT (stream, n) DO UPDATE SET row = excluded.row, exported = FALSE
"""
_BEFORE: dict[State, str] = {state: " ".join(sorted(before)) for state, before in APPENDED.items()}


class Append(msgspec.Struct, frozen=True):
    """`n` records, as `data`."""

    row: int
    hold: Hold
    n: int
    data: bytes
    steps: tuple[State, ...]
    attempts: Sequence[tuple[int, bytes]]
    upstream: bytes | None
    terminal_at: float | None
    lease_until: float
    reader_mark: int | None


class _Pending:
    __slots__ = ("again", "append", "future", "refused", "until")

    def __init__(self, append: Append, until: float) -> None:
        self.append = append
        self.until = until
        self.again = False
        self.refused: Exception | None = None
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class StreamAppends:
    """`submit` belongs to one event loop."""

    def __init__(self, connections: Connections, clock: Clock, patience: float = PATIENCE) -> None:
        """`connections` are for this alone."""
        self._connections = connections
        self._clock = clock
        self._patience = patience
        self._waiting: list[_Pending] = []
        self._task: asyncio.Task[None] | None = None
        self.commits = 0
        """Transactions so far."""

    async def stop(self) -> None:
        """Answer what waits, as far as the server does."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, append: Append) -> None:
        """Returns once it is committed. Raises `Fenced`, `Cancelled`, `LogUnavailable`, and ValueError for an illegal state."""
        pending = _Pending(append, self._clock.monotonic() + self._patience)
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="streams to PostgreSQL")
        await pending.future

    async def _work(self) -> None:
        wait = _FIRST_WAIT
        while self._waiting:
            batch = self._gather()
            try:
                await self._connections.run(lambda connection, batch=batch: self._transact(connection, batch))
            except PostgresGone:
                self._waiting = [*self._still(batch), *self._waiting]
                if self._waiting:
                    await self._clock.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            except (psycopg.Error, ValueError, OverflowError) as error:
                # Something in it cannot be written at all: each is tried alone, so that it fails alone.
                await self._each(batch, error)
            self.commits += 1
            wait = _FIRST_WAIT
            for pending in batch:
                if not pending.future.done():
                    if pending.refused is None:
                        pending.future.set_result(None)
                    else:
                        pending.future.set_exception(pending.refused)

    def _gather(self) -> list[_Pending]:
        """What waits, at most one append of each stream."""
        batch: dict[int, _Pending] = {}
        left: list[_Pending] = []
        for pending in self._waiting:
            if pending.append.row in batch or len(batch) >= _AT_ONCE:
                left.append(pending)
            else:
                batch[pending.append.row] = pending
        self._waiting = left
        return list(batch.values())

    async def _each(self, batch: list[_Pending], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].refused = error
            return
        for pending in batch:
            try:
                await self._connections.run(lambda connection, pending=pending: self._transact(connection, [pending]))
            except PostgresGone:
                pending.refused = unavailable()
            except (psycopg.Error, ValueError, OverflowError) as own:
                pending.refused = own

    async def _transact(self, connection: Connection, batch: list[_Pending]) -> None:
        by_row = {pending.append.row: pending for pending in batch}
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(_LOCK, (list(by_row),))
            stood = {row: rest for row, *rest in await cursor.fetchall()}
            await cursor.execute(_UPDATE, _columns([pending.append for pending in batch]))
            survivors = {row for (row,) in await cursor.fetchall()}
            segments = [by_row[row].append for row in survivors if by_row[row].append.n]
            if segments:
                async with cursor.copy(_COPY) as copy:
                    copy.set_types(["int8", "int4", "int4", "int4", "int4", "bytea"])
                    for one in segments:
                        await copy.write_row((one.row, one.hold.tail + 1, one.n, one.hold.epoch, FORMAT, one.data))
            bills = [(row, n, data) for row in survivors for n, data in by_row[row].append.attempts]
            if bills:
                await cursor.executemany(_ATTEMPT, bills)
        for row, pending in by_row.items():
            pending.refused = None if row in survivors else _why(pending, stood.get(row))

    def _still(self, batch: Sequence[_Pending]) -> list[_Pending]:
        """Those of `batch` that may wait on. The others are told."""
        now = self._clock.monotonic()
        still: list[_Pending] = []
        for pending in batch:
            pending.again = True
            if pending.until > now:
                still.append(pending)
            elif not pending.future.done():
                pending.future.set_exception(unavailable())
        return still


def unavailable() -> LogUnavailable:
    """What callers get while the server is gone."""
    return LogUnavailable("streams cannot be written now: try again", retry_after=5)


def _columns(appends: Sequence[Append]) -> list[list[Any]]:
    rows = [
        (
            one.row,
            one.hold.epoch,
            one.hold.tail,
            one.n,
            len(one.data) if one.n else 0,
            one.steps[-1] if one.steps else None,
            _BEFORE[one.steps[0]] if one.steps else None,
            one.lease_until,
            one.terminal_at,
            one.upstream,
            one.reader_mark,
        )
        for one in appends
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _why(pending: _Pending, stood: Sequence[Any] | None) -> Exception | None:
    """Why nothing was written; None if it had been written before and only the answer was lost."""
    hold, steps = pending.append.hold, pending.append.steps
    if stood is None or stood[0] != hold.epoch:
        return Fenced()
    _, tail, cancelled, ended, state = stood
    if pending.again and pending.append.n and tail == hold.tail + pending.append.n:
        return None
    if tail != hold.tail or ended:
        return Fenced()
    if cancelled and steps[-1:] != ("cancelled",):
        return Cancelled()
    try:
        advance(state, *steps)
    except ValueError as error:
        return error
    return Fenced()
