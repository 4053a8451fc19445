"""The reading end of the ledger: cells of the database, and what is still in the spools.

It asks nothing of the writing ends, so it works beside a running server, in another process too, and while nothing can be written.
"""

import sqlite3
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from pathlib import Path
from zlib import crc32

from cauce.domain.errors import InvalidRequest, Overloaded
from cauce.ports.provider import named
from cauce.ports.usage import AllTenants, Holder, Query, Report, SpendUnit, Sums, Votes
from cauce.stores.attempts import Attempt
from cauce.stores.cells import Cell, Folding, Kind, conversed
from cauce.stores.grouping import Grouping, amount, spending
from cauce.stores.periods import DAY, Parts, day_of
from cauce.stores.sqlite.book import began, cell_of, day_names, decoded, positions
from cauce.stores.sqlite.ledger_tables import DAYS, HOURS, MONTHS, USER_DAYS, USER_MONTHS
from cauce.stores.sqlite.schema import BUSY
from cauce.stores.sqlite.spool import Position, read
from cauce.stores.sqlite.spools import folder_of

APPROVED = 30
"""Days of feedback that make a model's approval."""

MOST_ROWS = 1_000_000
"""Attempts that conversations are told apart of for one question: about two seconds of CPU."""

_TRIES = 3
_KINDS = "SELECT id, tenant, provider, model, deployment, endpoint, key, level, outcome, source, estimated, error, user FROM kinds"

# `sum` would fail on a total that is beyond what an integer holds.
_SUMS = """SELECT a.conversation_id, a.kind, coalesce(a.user, ''), total(a.n = 1), count(*), total(a.input_tokens),
    total(a.output_tokens), total(a.cached_tokens), total(a.cache_write_tokens), total(a.reasoning_tokens), total(a.cost)"""

_EPOCH = date(1970, 1, 1)

Unwritten = Callable[[], Iterable[bytes]]
"""Records that are not even in a spool."""

FILE = "ledger.sqlite"
"""What the database is called, in the ledger's folder."""


class Reading:
    """Answers questions about the ledger in `folder`. For one thread at a time. Of conversations at most `most_rows` attempts are looked at."""

    def __init__(
        self, folder: Path, now: Callable[[], float], unwritten: Unwritten = tuple, *, most_rows: int = MOST_ROWS
    ) -> None:
        self._folder = folder
        self._now = now
        self._unwritten = unwritten
        self._most_rows = most_rows
        self._database: sqlite3.Connection | None = None

    def report(self, query: Query) -> Report:
        """See `ports.usage.Usage.report`."""
        for _ in range(_TRIES):
            grouping, settled = self._grouped(query)
            if settled:
                return grouping.report()
        return self._grouped(query)[0].report()

    def spent(self, holder: Holder, unit: SpendUnit, since: float) -> float:
        """See `ports.usage.Usage.spent`."""
        return amount(self.report(spending(holder, since, self._now())), unit)

    def approvals(self) -> dict[str, Votes]:
        """What people thought of each model's answers lately."""
        found: dict[str, Votes] = {}
        rows = self._connection().execute(
            """SELECT k.provider, k.model, sum(c.up), sum(c.down), sum(c.scores), sum(c.score_sum)
            FROM cells c JOIN kinds k ON k.id = c.kind
            WHERE c.span = ? AND c.period > ? AND (c.up OR c.down OR c.scores) GROUP BY 1, 2""",
            (DAYS, int(self._now()) // DAY - APPROVED),
        )
        for provider, model, *votes in rows:
            found[named(provider, model)] = Votes(*votes)
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _grouped(self, query: Query) -> tuple[Grouping, bool]:
        """What `query` asks for, and whether all of it was seen: not if a spool file went into the database behind our back."""
        grouping = Grouping(query, self._now())
        before = self._add_cells(query, grouping)
        waiting = self._waiting(before)
        folding = Folding(began=partial(began, self._connection()))
        cells = conversed(waiting) if grouping.conversations else folding.fold(waiting)
        for (hour, kind), cell in cells.items():
            if grouping.within(hour) and grouping.wants(kind):
                grouping.add(hour, kind, cell)
        after = positions(self._connection())
        return grouping, all([after[spool].file == position.file for spool, position in before.items()])

    def _waiting(self, before: dict[int, Position]) -> list[Attempt]:
        """What is in the spools after `before`, and what is not even there."""
        records: list[bytes] = []
        for spool, position in before.items():
            folder = folder_of(self._folder, spool)
            while True:
                try:
                    some, position = read(folder, position)
                except FileNotFoundError:
                    break
                if not some:
                    break
                records.extend(some)
        records.extend(self._unwritten())
        return decoded(records)

    def _add_cells(self, query: Query, grouping: Grouping) -> dict[int, Position]:
        """Add the cells of `query`; returns up to where each spool was in them."""
        database = self._connection()
        database.execute("BEGIN")
        try:
            before = positions(database)
            kinds = _kinds(database, query, grouping)
            if grouping.conversations:
                _add_rows(database, kinds, grouping, self._most_rows)
            elif kinds:
                for span, first, end, hours in _ranges(grouping.spans, users=grouping.users):
                    rows = database.execute(
                        "SELECT * FROM cells WHERE span = ? AND period >= ? AND period < ?", (span, first, end)
                    )
                    for row in rows:
                        kind = kinds.get(row[2])
                        if kind is not None:
                            grouping.add(hours(row[1]), kind, cell_of(row))
            return before
        finally:
            database.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                self._database = sqlite3.connect(
                    f"{(self._folder / FILE).absolute().as_uri()}?mode=ro",
                    timeout=BUSY,
                    isolation_level=None,
                    check_same_thread=False,
                    uri=True,
                )
            except sqlite3.Error as error:
                raise Overloaded(f"the ledger cannot be read: {error}") from error
        return self._database


def _kinds(database: sqlite3.Connection, query: Query, grouping: Grouping) -> dict[int, Kind]:
    """The kinds that `query` is about, by number."""
    parts = ["user <> ''" if grouping.users else "user = ''"]
    values: list[str] = []
    if not isinstance(query.tenant, AllTenants):
        parts.append("tenant = ?")
        values.append(query.tenant)
    for dimension, value in query.where:
        if dimension in ("key", "provider", "endpoint") or (dimension == "user" and grouping.users):
            parts.append(f"{dimension} = ?")
            values.append(value)
    rows = database.execute(f"{_KINDS} WHERE {' AND '.join(parts)}", values)
    kinds = {row[0]: Kind(*row[1:]) for row in rows}
    return {number: kind for number, kind in kinds.items() if grouping.conversations or grouping.wants(kind)}


def _add_rows(database: sqlite3.Connection, kinds: dict[int, Kind], grouping: Grouping, most: int) -> None:
    """Add what single attempts say of conversations, which are too many to have sums."""
    days = {(date.fromisoformat(name) - _EPOCH).days: name for name in sorted(day_names(database))}
    if not days:
        return
    grouping.known_since(min(days))
    days = {day: name for day, name in days.items() if grouping.within(day * 24)}
    one = grouping.conversation
    if one is None:
        newest = "SELECT coalesce(max(id), 0) FROM attempts_"
        if sum([database.execute(newest + name).fetchone()[0] for name in days.values()]) > most:
            raise InvalidRequest(
                f"group_by: conversations are told apart of {most:,} attempts at most: ask for fewer days, or for one conversation",
                field="group_by",
            )
    for day, name in days.items():
        found = f"FROM attempts_{name} a WHERE a.conversation_id <> ''"
        values: tuple[int | str, ...] = ()
        if one is not None:
            found = f"FROM ids_{name} i JOIN attempts_{name} a ON a.id = i.attempt WHERE i.hash = ? AND a.conversation_id = ?"
            values = (crc32(one.encode("utf-8", "replace")), one)
        for conversation, number, user, *counts, cost in database.execute(f"{_SUMS} {found} GROUP BY 1, 2, 3", values):
            if number not in kinds:
                continue
            kind = kinds[number]._replace(user=user, conversation=conversation)
            if grouping.wants(kind):
                whole = [int(count) for count in counts]
                sums = Sums(*whole[:2]) if kind.level == "cache" else Sums(*whole, cost=cost)
                grouping.add(day * 24, kind, Cell(sums))


Range = tuple[int, int, int, Callable[[int], int]]
"""A span, its first and end period, and what makes a period's first hour of it."""


def _ranges(parts: Parts, *, users: bool) -> list[Range]:
    months, days = (USER_MONTHS, USER_DAYS) if users else (MONTHS, DAYS)
    return [
        *[(months, first, end, lambda month: day_of(month) * 24) for first, end in parts.months],
        *[(days, first, end, lambda day: day * 24) for first, end in parts.days],
        *[(HOURS, first, end, lambda hour: hour) for first, end in parts.hours],
    ]
