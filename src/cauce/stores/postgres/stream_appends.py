"""Appending to streams in PostgreSQL: everything that waits goes into one statement, on a connection of its own.

    append -> what waits (grows while the server answers) -> lock in the order of keys, fenced update, segments, bills -> answers

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
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone, fetched, refuses
from cauce.stores.postgres.stream_tables import CLOCK, takes
from cauce.stores.stream_records import FORMAT

_AT_ONCE = 1000

# One statement: no transaction is ever open while this process does something else, or nothing. Rows are locked in the order of their keys,
# and what is asked of them is asked of what was locked: another append may have come between.
_APPEND = f"""
WITH stood AS MATERIALIZED (
    SELECT key, epoch, tail, cancel_requested AS cancelled, terminal_at IS NOT NULL AS ended, state FROM streams
     WHERE key = ANY(%(key)s) ORDER BY key FOR UPDATE
), asked AS MATERIALIZED (
    SELECT *
      FROM unnest(%(key)s::bigint[], %(epoch)s::int[], %(tail)s::int[], %(n)s::int[], %(data)b::bytea[], %(state)s::text[],
                  %(before)s::text[], %(time)s::float8[], %(lease)s::float8[], %(ends)s::bool[], %(cancels)s::bool[],
                  %(upstream)s::bytea[], %(mark)s::int[])
           AS u (key, epoch, tail, n, data, state, before, time, lease, ends, cancels, upstream, mark)
), written AS (
    UPDATE streams s SET tail = s.tail + a.n, bytes = s.bytes + octet_length(a.data), lease_until = coalesce(a.time, {CLOCK}) + a.lease,
           state = coalesce(a.state, s.state),
           terminal_at = CASE WHEN a.ends THEN coalesce(a.time, {CLOCK}) END,
           due = CASE WHEN a.ends THEN coalesce(a.time, {CLOCK}) + s.retention END,
           kept = CASE WHEN a.ends THEN {takes("s.tail + a.n", "s.bytes + octet_length(a.data)", "s.")} END,
           upstream = coalesce(a.upstream, s.upstream), reader_mark = coalesce(nullif(a.mark, 0), s.reader_mark, a.mark)
      FROM asked a JOIN stood ON stood.key = a.key
     WHERE s.key = stood.key AND stood.epoch = a.epoch AND stood.tail = a.tail AND NOT stood.ended
       AND (NOT stood.cancelled OR a.cancels) AND (a.before IS NULL OR strpos(a.before, stood.state) > 0)
    RETURNING s.key
), segment AS (
    INSERT INTO segments (stream, first_seq, n, epoch, format, data)
    SELECT a.key, a.tail + 1, a.n, a.epoch, {FORMAT}, a.data FROM asked a JOIN written USING (key) WHERE a.n > 0
), bill AS (
    INSERT INTO attempts (stream, n, row)
    SELECT b.* FROM unnest(%(billed)s::bigint[], %(bill)s::int[], %(row)b::bytea[]) AS b (key, n, row) JOIN written USING (key)
    ON CONFLICT (stream, n) DO UPDATE SET row = excluded.row, exported = FALSE
)
SELECT stood.key, written.key IS NOT NULL, stood.epoch, stood.tail, stood.cancelled, stood.ended, stood.state
  FROM stood LEFT JOIN written ON written.key = stood.key
"""  # noqa: S608
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
        found = await fetched(connection, _APPEND, _columns([pending.work for pending in batch]))
        stood = {row: (written, rest) for row, written, *rest in found}
        refused: list[Exception | None] = []
        for pending in batch:
            written, rest = stood.get(pending.work.row, (False, None))
            refused.append(None if written else _why(pending, rest))
        return refused


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


def _columns(appends: Sequence[Append]) -> dict[str, list[Any]]:
    bills = [(one.row, n, data) for one in appends for n, data in one.attempts]
    return {
        "key": [one.row for one in appends],
        "epoch": [one.hold.epoch for one in appends],
        "tail": [one.hold.tail for one in appends],
        "n": [one.n for one in appends],
        "data": [one.data if one.n else b"" for one in appends],
        "state": [one.steps[-1] if one.steps else None for one in appends],
        "before": [_BEFORE[one.steps[0]] if one.steps else None for one in appends],
        "time": [one.time for one in appends],
        "lease": [one.lease for one in appends],
        "ends": [one.ends for one in appends],
        "cancels": [one.cancels for one in appends],
        "upstream": [one.upstream for one in appends],
        "mark": [one.reader_mark for one in appends],
        "billed": [row for row, _, _ in bills],
        "bill": [n for _, n, _ in bills],
        "row": [data for _, _, data in bills],
    }


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
