"""The writing end of the ledger's database: what was spooled goes into rows and cells, and goes away again with age.

One thread of each process owns one. Every function is one transaction; one that fails leaves everything as it was and raises
`sqlite3.Error`. What is remembered between two of them holds until another process has written.
"""

import logging
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import msgspec

from cauce.ports.usage import Opinion, Spread, Sums, Votes
from cauce.stores.attempts import Attempt
from cauce.stores.cells import Cell, Cells, Folding, Kind, Kinds
from cauce.stores.periods import DAY, HOUR, date_of, month_of
from cauce.stores.sqlite.ledger_tables import DAYS, HOURS, MIGRATIONS, MONTHS, USER_DAYS, USER_MONTHS, day_tables
from cauce.stores.sqlite.schema import open_database
from cauce.stores.sqlite.spool import Position
from cauce.stores.sqlite.transaction import transaction

_LARGEST = 2**62
_MOST_CELLS = 4096
_MOST_KINDS = 65_536
"""Cells and kinds that are remembered between two transactions."""

_SLICE = 32
"""Attempts that are worked on at a stretch: the thread that answers requests must not wait long for its turn."""

_RANDOM = 24
"""Characters at the end of an id of ours that are random."""

_MEMBERS = 29
"""Members of an attempt in the spool, at least."""

_decode = msgspec.msgpack.Decoder(tuple).decode
_encode_spread = msgspec.msgpack.Encoder().encode
_decode_spread = msgspec.msgpack.Decoder(tuple[dict[int, int], ...]).decode

_CELL = "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KIND = """INSERT INTO kinds (tenant, provider, model, deployment, endpoint, key, level, outcome, source, estimated, error, user)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_FIND_KIND = """SELECT id FROM kinds WHERE tenant = ? AND provider = ? AND model = ? AND deployment = ? AND endpoint = ?
    AND key = ? AND level = ? AND outcome = ? AND source = ? AND estimated = ? AND error = ? AND user = ?"""

CellKey = tuple[int, int, int]
"""Span, period and kind."""

logger = logging.getLogger("cauce.ledger")


class Moved(Exception):
    """Another process has taken in what was to be taken in."""


class Book:
    """See the module."""

    def __init__(self, path: Path) -> None:
        """Raises `SchemaError`."""
        self.connection = open_database(path, MIGRATIONS)
        self.connection.execute("PRAGMA journal_size_limit = 67108864")
        self._kind_of = Kinds()
        self._folding = Folding(self._kind_of, partial(began, self.connection))
        self._kinds: dict[Kind, int] = {}
        self._cells: dict[CellKey, Cell] = {}
        self._next: dict[int, int] = {}
        self._version = 0
        (self.node,) = self.connection.execute("SELECT id FROM node").fetchone()

    @property
    def positions(self) -> dict[int, Position]:
        """Up to where each spool is in here."""
        return positions(self.connection)

    def begin(self, spool: int) -> Position:
        """Up to where `spool` is in here, which may be a new one."""
        if spool not in self.positions:
            self.connection.execute("INSERT OR IGNORE INTO position (file, byte, spool) VALUES (0, 0, ?)", (spool,))
        return self.positions[spool]

    def write(self, attempts: Sequence[Attempt], spool: int, before: Position, after: Position) -> None:
        """Take in `attempts`, which are what is between `before` and `after` in `spool`. Raises `Moved` if that is in here by now."""
        cells: Cells = {}
        with self.transaction() as database:
            if positions(database)[spool] != before:
                raise Moved
            for start in range(0, len(attempts), _SLICE):
                some = attempts[start : start + _SLICE]
                for day, ones in _by_day(some).items():
                    self._rows(database, day, ones)
                self._folding.fold(some, cells)
            self._add_up(database, cells)
            database.execute("UPDATE position SET file = ?, byte = ? WHERE spool = ?", (*after, spool))

    def give(self, tenant: str, key: str, opinion: Opinion, now: float) -> bool:
        """Join `opinion` to the answer it is about; False if there is none."""
        found = find(self.connection, tenant, opinion.id)
        if found is None:
            return False
        request_id, kind, hour, user = found
        with self.transaction() as database:
            earlier = database.execute(
                "SELECT hour, kind, thumb, score FROM feedback WHERE tenant = ? AND request_id = ? AND key = ?",
                (tenant, request_id, key),
            ).fetchone()
            dirty: set[CellKey] = set()
            if earlier is not None:
                dirty |= self._vote(database, earlier[0], earlier[1], _votes(earlier[2], earlier[3], -1))
            dirty |= self._vote(database, hour, kind, _votes(opinion.thumb, opinion.score, 1))
            self._save(database, dirty)
            database.execute(
                "INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (tenant, request_id, key, now, hour, kind, opinion.thumb, opinion.score, opinion.comment, user),
            )
        return True

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """All of what is done in it, or nothing. No other process writes meanwhile."""
        database = self.connection
        try:
            with transaction(database):
                (version,) = database.execute("PRAGMA data_version").fetchone()
                if version != self._version:
                    # Another process has written.
                    self.forget()
                    self._version = version
                yield database
        except BaseException:
            self.forget()
            raise
        if len(self._cells) > _MOST_CELLS or len(self._kinds) > _MOST_KINDS:
            self.forget()

    def forget(self) -> None:
        """Forget what is remembered of the tables: they may be otherwise now."""
        self._cells.clear()
        self._kinds.clear()
        self._next.clear()

    def _rows(self, database: sqlite3.Connection, day: int, attempts: list[Attempt]) -> None:
        name = day_name(day)
        number = self._next.get(day)
        if number is None:
            if not has_table(database, f"attempts_{name}"):
                for statement in day_tables(name):
                    database.execute(statement)
            number = database.execute(f"SELECT coalesce(max(id), 0) + 1 FROM attempts_{name}").fetchone()[0]  # noqa: S608
        rows: list[Any] = []
        ids: list[int] = []
        known, kind_of = self._kinds, self._kind_of.of
        for attempt in attempts:
            request_id, stream_id, conversation_id, kind = attempt[13], attempt[14], attempt[15], kind_of(attempt)
            place = known.get(kind) or self._kind(database, kind)
            rows += (number, attempt[12], place, attempt[11], *attempt[13:29])
            if stream_id[-_RANDOM:] == request_id[-_RANDOM:]:
                # A stream of a name of our own: both are found by what they share.
                ids += (crc32(request_id[-_RANDOM:].encode()), number)
            else:
                ids += (crc32(request_id.encode()), number)
                if stream_id:
                    ids += (crc32(stream_id.encode()), number)
            if conversation_id:
                ids += (crc32(conversation_id.encode()), number)
            number += 1
        _insert(database, f"INSERT INTO attempts_{name}", 20, rows)
        _insert(database, f"INSERT OR IGNORE INTO ids_{name}", 2, ids)
        self._next[day] = number

    def _add_up(self, database: sqlite3.Connection, cells: Cells) -> None:
        dirty: set[CellKey] = set()
        for (hour, kind), cell in cells.items():
            number, day = self._kind(database, kind), hour // 24
            if kind.user:
                keys = ((USER_DAYS, day, number), (USER_MONTHS, month_of(day), number))
            else:
                keys = ((HOURS, hour, number), (DAYS, day, number), (MONTHS, month_of(day), number))
            for key in keys:
                self._cell(database, key).add(cell)
            dirty.update(keys)
        self._save(database, dirty)

    def _vote(self, database: sqlite3.Connection, hour: int, kind: int, votes: Votes) -> set[CellKey]:
        day = hour // 24
        keys = {(HOURS, hour, kind), (DAYS, day, kind), (MONTHS, month_of(day), kind)}
        for key in keys:
            self._cell(database, key).votes.add(votes)
        return keys

    def _kind(self, database: sqlite3.Connection, kind: Kind) -> int:
        number = self._kinds.get(kind)
        if number is None:
            row = database.execute(_FIND_KIND, kind[:12]).fetchone()
            number = row[0] if row is not None else cast(int, database.execute(_KIND, kind[:12]).lastrowid)
            self._kinds[kind] = number
        return number

    def _cell(self, database: sqlite3.Connection, key: CellKey) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            row = database.execute("SELECT * FROM cells WHERE span = ? AND period = ? AND kind = ?", key).fetchone()
            cell = self._cells[key] = cell_of(row) if row is not None else Cell()
        return cell

    def _save(self, database: sqlite3.Connection, keys: Iterable[CellKey]) -> None:
        for key in keys:
            database.execute(_CELL, (*key, *_columns(self._cells[key])))


def positions(database: sqlite3.Connection) -> dict[int, Position]:
    """Up to where each spool is in the tables."""
    rows = database.execute("SELECT spool, file, byte FROM position")
    return {spool: Position(file, byte) for spool, file, byte in rows}


def decoded(records: Iterable[bytes]) -> list[Attempt]:
    """The attempts in `records`. One that is none is told in the log and left out: it must not hold up those behind it."""
    attempts: list[Attempt] = []
    for record in records:
        try:
            attempt = _decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            attempt = ()
        if len(attempt) < _MEMBERS:
            logger.error("a record of %d bytes in the ledger's spool is none: it is left out", len(record))
            continue
        attempts.append(cast(Attempt, attempt[:_MEMBERS]))
    return attempts


def cell_of(row: tuple[Any, ...]) -> Cell:
    """The cell in a row of `cells`."""
    spread = Spread(*_decode_spread(row[15])) if row[15] is not None else Spread()
    return Cell(Sums(*row[3:11]), spread, Votes(*row[11:15]))


def find(database: sqlite3.Connection, tenant: str, id: str) -> tuple[str, int, int, str] | None:
    """The attempt that answered under `id` of a stream or a request: its request id, kind, hour, and user. None if there is none.

    Of several the one that completed, and of those the last.
    """
    for name in sorted(day_names(database), reverse=True):
        row = database.execute(
            f"""SELECT a.request_id, a.kind, a.at, a.user FROM ids_{name} i JOIN attempts_{name} a ON a.id = i.attempt
            JOIN kinds k ON k.id = a.kind
            WHERE i.hash IN (?, ?) AND (a.stream_id = ? OR a.request_id = ?) AND k.tenant = ?
            ORDER BY k.outcome = 'completed' DESC, a.id DESC LIMIT 1""",  # noqa: S608
            (*id_hashes(id), id, id, tenant),
        ).fetchone()
        if row is not None:
            return row[0], row[1], int(row[2]) // HOUR, row[3] or ""
    return None


def id_hashes(id: str) -> tuple[int, int]:
    """What an id may stand under: all of it, or its end, which a stream of a name of ours shares with its request."""
    return crc32(id.encode("utf-8", "replace")), crc32(id[-_RANDOM:].encode("utf-8", "replace"))


def began(database: sqlite3.Connection, request_id: str, at: float) -> float | None:
    """When the request began that an attempt of ended `at`: at its first attempt that failed, that day or the day before."""
    ids = id_hashes(request_id)
    for day in (int(at) // DAY - 1, int(at) // DAY):
        name = day_name(day)
        if has_table(database, f"attempts_{name}"):
            (first,) = database.execute(
                f"""SELECT min(a.at - a.latency - a.waited) FROM ids_{name} i JOIN attempts_{name} a ON a.id = i.attempt
                JOIN kinds k ON k.id = a.kind WHERE i.hash IN (?, ?) AND a.request_id = ? AND k.outcome = 'failed'""",  # noqa: S608
                (*ids, request_id),
            ).fetchone()
            if first is not None:
                return first
    return None


def day_name(day: int) -> str:
    """What the tables of `day` (since 1970) are called after."""
    return date_of(day).replace("-", "")


def day_names(database: sqlite3.Connection) -> list[str]:
    """The days that attempts are kept of."""
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'attempts_*'")
    return [name.removeprefix("attempts_") for (name,) in tables]


def has_table(database: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table called `name`."""
    return database.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone() is not None


def _insert(database: sqlite3.Connection, into: str, width: int, values: list[Any]) -> None:
    """Rows of `width` values each, in one statement: each statement lets go of the interpreter and waits to get it back."""
    row = f"({', '.join('?' * width)})"
    database.execute(f"{into} VALUES {', '.join([row] * (len(values) // width))}", values)


def _by_day(attempts: Sequence[Attempt]) -> dict[int, list[Attempt]]:
    days: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        days.setdefault(int(attempt[12]) // DAY, []).append(attempt)
    return days


def _columns(cell: Cell) -> tuple[Any, ...]:
    sums, votes, spread = cell.sums, cell.votes, cell.spread
    parts = (spread.latency, spread.first_delta, spread.request, spread.output)
    return (
        sums.requests,
        sums.attempts,
        min(sums.input_tokens, _LARGEST),
        min(sums.output_tokens, _LARGEST),
        min(sums.cached_tokens, _LARGEST),
        min(sums.cache_write_tokens, _LARGEST),
        min(sums.reasoning_tokens, _LARGEST),
        sums.cost,
        votes.up,
        votes.down,
        votes.scores,
        votes.score_sum,
        _encode_spread(parts) if spread.request else None,
    )


def _votes(thumb: str | None, score: float | None, sign: int) -> Votes:
    return Votes(
        sign * (thumb == "up"),
        sign * (thumb == "down"),
        sign * (score is not None),
        sign * score if score is not None else 0.0,
    )
