"""What is written to the streams' file: each a piece of work for `StreamWriter`, done in one transaction with others'.

An append is conditional on the epoch and the tail in the statement that writes; that nothing was written is told apart afterwards.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cauce.domain.stream import APPENDED, Hold, NewStream, Renewed, State, StreamKey, advance
from cauce.ports.stream_log import Cancelled, Fenced
from cauce.stores.sqlite.early_cancels import take_early_cancel
from cauce.stores.sqlite.stream_writer import Refused
from cauce.stores.stream_records import FORMAT

_APPEND = """
UPDATE streams SET tail = tail + ?1, bytes = bytes + ?2, lease_until = ?3, state = coalesce(?4, state), terminal_at = ?5,
    due = ?5 + retention, upstream = coalesce(?6, upstream), reader_mark = coalesce(nullif(?7, 0), reader_mark, ?7)
 WHERE key = ?8 AND epoch = ?9 AND tail = ?10 AND terminal_at IS NULL
   AND (cancel_requested = 0 OR ?12) AND (?11 IS NULL OR instr(?11, state))
"""
_SEGMENT = "INSERT INTO segments (stream, first_seq, n, epoch, format, data) VALUES (?, ?, ?, ?, ?, ?)"
_ATTEMPT = """
INSERT INTO attempts (stream, n, row) VALUES (?, ?, ?)
    ON CONFLICT (stream, n) DO UPDATE SET row = excluded.row, exported = 0
"""
_HELD = "principal = ? AND id = ? AND epoch = ? AND terminal_at IS NULL"
_BEFORE: dict[State, str] = {state: " ".join(sorted(before)) for state, before in APPENDED.items()}
"""For each state those an append may come from, for `instr`: no name of a state is part of another's."""

Committed = Callable[[Any], None]


class Create(msgspec.Struct):
    """Gives the new stream's number, and why it was cancelled if that came before it; None if the key is taken."""

    new: NewStream
    request: bytes
    first: bytes
    node: str
    lease_until: float
    retention: float
    now: float
    committed: Committed
    lasting: bool = True

    @property
    def size(self) -> int:
        return len(self.request) + len(self.first)

    def apply(self, database: sqlite3.Connection, again: bool) -> tuple[int, str | None] | None:
        new, cancelled = self.new, None
        row = self._insert(database)
        if row is None:
            # The key is taken, unless only by a cancel that came before.
            there, cancelled = take_early_cancel(database, new.key, self.now)
            row = self._insert(database) if there else None
        if row is None:
            return self._ours(database) if again else None
        database.execute(_SEGMENT, (row, 1, 1, 1, FORMAT, self.first))
        if cancelled is not None:
            Cancel(new.key, cancelled, self.committed).apply(database, again)
        return row, cancelled

    def _insert(self, database: sqlite3.Connection) -> int | None:
        """The number of the stream's row; None if the key is taken."""
        new = self.new
        cursor = database.execute(
            """INSERT INTO streams (principal, id, wire, request, request_hash, policy, node, lease_until, tail, bytes,
                created, retention, settled, user_name)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?) ON CONFLICT (principal, id) DO NOTHING""",
            (
                new.key.principal,
                new.key.id,
                new.wire,
                self.request,
                new.request_hash,
                new.policy,
                self.node,
                self.lease_until,
                len(self.first),
                new.created,
                self.retention,
                new.settled,
                new.user,
            ),
        )
        return cursor.lastrowid if cursor.rowcount else None

    def _ours(self, database: sqlite3.Connection) -> tuple[int, str | None] | None:
        """The same, if it was this work that made the stream and only the answer was lost."""
        found: tuple[int, str | None] | None = database.execute(
            "SELECT key, cancel_reason FROM streams WHERE principal = ? AND id = ? AND node = ? AND created = ? AND epoch = 1 AND tail = 1",
            (self.new.key.principal, self.new.key.id, self.node, self.new.created),
        ).fetchone()
        return found


class Append(msgspec.Struct):
    """Gives the hold for the next one. `n` records, as `data`."""

    row: int | str
    hold: Hold
    n: int
    data: bytes
    steps: tuple[State, ...]
    cancels: bool
    attempts: Sequence[tuple[int, bytes]]
    upstream: bytes | None
    terminal_at: float | None
    lease_until: float
    reader_mark: int | None
    committed: Committed

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def lasting(self) -> bool:
        """Its end is told to whoever asks, cancels included."""
        return self.terminal_at is not None

    def apply(self, database: sqlite3.Connection, again: bool) -> Hold:
        hold, steps = self.hold, self.steps
        after = hold.tail + self.n
        cursor = database.execute(
            _APPEND,
            (
                self.n,
                len(self.data) if self.n else 0,
                self.lease_until,
                steps[-1] if steps else None,
                self.terminal_at,
                self.upstream,
                self.reader_mark,
                self.row,
                hold.epoch,
                hold.tail,
                _BEFORE[steps[0]] if steps else None,
                self.cancels,
            ),
        )
        if cursor.rowcount == 0:
            self._tell_apart(database, again)
        else:
            if self.n:
                database.execute(_SEGMENT, (self.row, hold.tail + 1, self.n, hold.epoch, FORMAT, self.data))
            for n, row in self.attempts:
                database.execute(_ATTEMPT, (self.row, n, row))
        return Hold(hold.key, hold.epoch, after)

    def _tell_apart(self, database: sqlite3.Connection, again: bool) -> None:
        """Why nothing was written. Returns if it had been written before and only the answer was lost."""
        found = database.execute(
            "SELECT epoch, tail, cancel_requested, terminal_at, state FROM streams WHERE key = ?", (self.row,)
        ).fetchone()
        hold = self.hold
        if found is None or found[0] != hold.epoch:
            raise Refused(Fenced())
        _, tail, cancelled, terminal_at, state = found
        if again and self.n and tail == hold.tail + self.n:
            return
        if tail != hold.tail or terminal_at is not None:
            raise Refused(Fenced())
        if cancelled and not self.cancels:
            raise Refused(Cancelled())
        try:
            advance(state, *self.steps)
        except ValueError as error:
            raise Refused(error) from error
        raise Refused(Fenced())


class Cancel(msgspec.Struct):
    """Gives nothing."""

    key: StreamKey
    reason: str
    committed: Committed
    size: int = 0
    lasting: bool = True

    def apply(self, database: sqlite3.Connection, again: bool) -> None:
        database.execute(
            """UPDATE streams SET cancel_requested = 1, cancel_reason = ?
                WHERE principal = ? AND id = ? AND terminal_at IS NULL AND cancel_requested = 0""",
            (self.reason, self.key.principal, self.key.id),
        )


class Claim(msgspec.Struct):
    """Gives (number, tail, state, bytes, cancel requested) of a stream that is ours now, None if it is another's. `orphaned` says in SQL who may be claimed."""

    key: StreamKey
    epoch: int
    node: str
    lease_until: float
    orphaned: str
    facts: dict[str, Any]
    committed: Committed
    size: int = 0
    lasting: bool = True

    def apply(self, database: sqlite3.Connection, again: bool) -> tuple[int, int, State, int, int] | None:
        facts = {
            **self.facts,
            "principal": self.key.principal,
            "id": self.key.id,
            "epoch": self.epoch,
            "claimer": self.node,
            "lease": self.lease_until,
        }
        cursor = database.execute(
            f"""UPDATE streams SET epoch = epoch + 1, node = :claimer, lease_until = :lease,
                    state = CASE state WHEN 'queued' THEN 'queued' ELSE 'recovering' END,
                    reader_mark = CASE reader_mark WHEN -1 THEN tail ELSE reader_mark END
                WHERE principal = :principal AND id = :id AND epoch = :epoch AND terminal_at IS NULL AND {self.orphaned}""",  # noqa: S608
            facts,
        )
        found = database.execute(
            "SELECT key, tail, state, bytes, cancel_requested, epoch, node FROM streams WHERE principal = ? AND id = ?",
            (self.key.principal, self.key.id),
        ).fetchone()
        if found is None:
            return None
        # Tried again, it may be its own claim that it meets.
        ours = again and found[5:] == (self.epoch + 1, self.node)
        return found[:5] if cursor.rowcount or ours else None


class Renew(msgspec.Struct):
    """Gives a `Renewed` for each of `holds`."""

    holds: Sequence[Hold]
    lease_until: float
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> list[Renewed]:
        renewed: list[Renewed] = []
        for hold in self.holds:
            name = (hold.key.principal, hold.key.id, hold.epoch)
            found = database.execute(
                f"SELECT key, cancel_requested FROM streams WHERE {_HELD}",  # noqa: S608
                name,
            ).fetchone()
            if found is None:
                renewed.append(Renewed(hold.key, "lost"))
                continue
            row, cancelled = found
            database.execute("UPDATE streams SET lease_until = ? WHERE key = ?", (self.lease_until, row))
            renewed.append(Renewed(hold.key, "cancel" if cancelled else "kept"))
        return renewed


class Release(msgspec.Struct):
    """Gives nothing."""

    holds: Sequence[Hold]
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> None:
        database.executemany(
            f"UPDATE streams SET lease_until = 0 WHERE {_HELD}",  # noqa: S608
            [(hold.key.principal, hold.key.id, hold.epoch) for hold in self.holds],
        )


class Seen(msgspec.Struct):
    """Gives nothing."""

    keys: Sequence[StreamKey]
    now: float
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> None:
        database.executemany(
            "UPDATE streams SET reader_seen = ? WHERE principal = ? AND id = ? AND terminal_at IS NULL",
            [(self.now, key.principal, key.id) for key in self.keys],
        )


class FreeAll(msgspec.Struct):
    """Gives nothing. Every open stream is an orphan: nobody else has the file open."""

    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> None:
        database.execute("UPDATE streams SET lease_until = 0 WHERE terminal_at IS NULL")


class Settle(msgspec.Struct):
    """Gives nothing."""

    key: StreamKey
    committed: Committed
    size: int = 0
    lasting: bool = False

    def apply(self, database: sqlite3.Connection, again: bool) -> None:
        database.execute(
            "UPDATE streams SET settled = 1 WHERE principal = ? AND id = ? AND terminal_at IS NOT NULL",
            (self.key.principal, self.key.id),
        )
