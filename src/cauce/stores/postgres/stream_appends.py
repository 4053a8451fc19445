"""Appending to streams in PostgreSQL: everything that waits goes into one transaction, on a connection of its own.

    append -> what waits (grows while the server answers) -> lock in the order of keys, fenced update, COPY, COMMIT -> answers

What was not acknowledged is tried again as it is: it may have been committed.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from cauce.domain.stream import APPENDED, Hold, State, advance
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Cancelled, Fenced
from cauce.stores.batches import PATIENCE, Batches, Pending, unavailable
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone, refuses
from cauce.stores.postgres.stream_tables import NOW
from cauce.stores.stream_records import FORMAT

_AT_ONCE = 1000

_LOCK = """
SELECT key, epoch, tail, cancel_requested, terminal_at IS NOT NULL, state FROM streams WHERE key = ANY(%s) ORDER BY key FOR UPDATE
"""
_UPDATE = f"""
UPDATE streams s SET tail = s.tail + a.n, bytes = s.bytes + a.size, lease_until = a.now + a.lease, state = coalesce(a.state, s.state),
       terminal_at = CASE WHEN a.ends THEN a.now END, due = CASE WHEN a.ends THEN a.now + s.retention END,
       upstream = coalesce(a.upstream, s.upstream), reader_mark = coalesce(nullif(a.mark, 0), s.reader_mark, a.mark)
  FROM (SELECT u.*, coalesce(u.time, {NOW}) AS now
          FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::float8[],
                      %s::bool[], %s::bool[], %s::bytea[], %s::int[])
               AS u (key, epoch, tail, n, size, state, before, time, lease, ends, cancels, upstream, mark)) a
 WHERE s.key = a.key AND s.epoch = a.epoch AND s.tail = a.tail AND s.terminal_at IS NULL
   AND (NOT s.cancel_requested OR a.cancels) AND (a.before IS NULL OR strpos(a.before, s.state) > 0)
RETURNING s.key
"""  # noqa: S608
_COPY = "COPY segments (stream, first_seq, n, epoch, format, data) FROM STDIN (FORMAT BINARY)"
_ATTEMPT = """
INSERT INTO attempts (stream, n, row) VALUES (%s, %s, %s)
    ON CONFLICT (stream, n) DO UPDATE SET row = excluded.row, exported = FALSE
"""
_BEFORE: dict[State, str] = {state: " ".join(sorted(before)) for state, before in APPENDED.items()}


class Append(msgspec.Struct, frozen=True):
    """`n` records, as `data`. `time` None: the server's own; `lease` in seconds."""

    row: int
    hold: Hold
    n: int
    data: bytes
    steps: tuple[State, ...]
    cancels: bool
    attempts: Sequence[tuple[int, bytes]]
    upstream: bytes | None
    ends: bool
    time: float | None
    lease: float
    reader_mark: int | None


class StreamAppends:
    """`submit` returns once an append is committed."""

    def __init__(self, connections: Connections, clock: Clock, patience: float = PATIENCE) -> None:
        """`connections` are for this alone."""
        self._connections = connections
        self._batches = Batches[Append](clock, patience, _one_of_each, self._together, PostgresGone)
        self.stop = self._batches.stop
        self.commits = 0
        """Transactions so far."""

    async def submit(self, append: Append) -> None:
        """Raises `Fenced`, `Cancelled`, `LogUnavailable`, and ValueError for an illegal state."""
        await self._batches.submit(append)

    async def _together(self, batch: list[Pending[Append]]) -> list[Pending[Append]]:
        try:
            refused = await self._connections.run(lambda connection: self._transact(connection, batch))
        except (psycopg.Error, ValueError, OverflowError) as error:
            # Something in it cannot be written at all: each is tried alone, so that it fails alone.
            refused = await self._each(batch, error)
        self.commits += 1
        for pending, why in zip(batch, refused, strict=True):
            pending.answer(why)
        return []

    async def _each(self, batch: list[Pending[Append]], error: Exception) -> list[Exception | None]:
        if len(batch) == 1:
            return [_own(error)]
        refused: list[Exception | None] = []
        for pending in batch:
            try:
                refused += await self._connections.run(
                    lambda connection, pending=pending: self._transact(connection, [pending])
                )
            except PostgresGone:
                refused.append(unavailable())
            except (psycopg.Error, ValueError, OverflowError) as own:
                refused.append(_own(own))
        return refused

    async def _transact(self, connection: Connection, batch: list[Pending[Append]]) -> list[Exception | None]:
        """Why each was not written, in their order; None for those that were."""
        by_row = {pending.work.row: pending for pending in batch}
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(_LOCK, (list(by_row),))
            stood = {row: rest for row, *rest in await cursor.fetchall()}
            await cursor.execute(_UPDATE, _columns([pending.work for pending in batch]))
            survivors = {row for (row,) in await cursor.fetchall()}
            segments = [by_row[row].work for row in survivors if by_row[row].work.n]
            if segments:
                async with cursor.copy(_COPY) as copy:
                    copy.set_types(["int8", "int4", "int4", "int4", "int4", "bytea"])
                    for one in segments:
                        await copy.write_row((one.row, one.hold.tail + 1, one.n, one.hold.epoch, FORMAT, one.data))
            bills = [(row, n, data) for row in survivors for n, data in by_row[row].work.attempts]
            if bills:
                await cursor.executemany(_ATTEMPT, bills)
        return [None if row in survivors else _why(pending, stood.get(row)) for row, pending in by_row.items()]


def _one_of_each(waiting: list[Pending[Append]]) -> tuple[list[Pending[Append]], list[Pending[Append]]]:
    """Of each stream at most one append: the next one follows it."""
    batch: dict[int, Pending[Append]] = {}
    left: list[Pending[Append]] = []
    for pending in waiting:
        if pending.work.row in batch or len(batch) >= _AT_ONCE:
            left.append(pending)
        else:
            batch[pending.work.row] = pending
    return list(batch.values()), left


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
            one.time,
            one.lease,
            one.ends,
            one.cancels,
            one.upstream,
            one.reader_mark,
        )
        for one in appends
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _own(error: Exception) -> Exception:
    """What whoever wanted to write gets to see."""
    return unavailable() if isinstance(error, psycopg.Error) and refuses(error) else error


def _why(pending: Pending[Append], stood: Sequence[Any] | None) -> Exception | None:
    """Why nothing was written; None if it had been written before and only the answer was lost."""
    hold, steps = pending.work.hold, pending.work.steps
    if stood is None or stood[0] != hold.epoch:
        return Fenced()
    _, tail, cancelled, ended, state = stood
    if pending.again and pending.work.n and tail == hold.tail + pending.work.n:
        return None
    if tail != hold.tail or ended:
        return Fenced()
    if cancelled and not pending.work.cancels:
        return Cancelled()
    try:
        advance(state, *steps)
    except ValueError as error:
        return error
    return Fenced()
