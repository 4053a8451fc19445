"""The reading end of the ledger: cells of the database, and what is still in the spools.

It asks nothing of the writing ends, so it works beside a running server, in another process too, and while nothing can be written.
"""

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from cauce.domain.errors import Overloaded
from cauce.ports.usage import AllTenants, Holder, Query, Report, SpendUnit, Votes
from cauce.stores.attempts import Attempt
from cauce.stores.cells import Folding, Kind
from cauce.stores.grouping import Grouping, amount, spending
from cauce.stores.periods import DAY, Parts, day_of
from cauce.stores.sqlite.book import began, cell_of, decoded, positions
from cauce.stores.sqlite.ledger_tables import DAYS, HOURS, MONTHS, USER_DAYS, USER_MONTHS
from cauce.stores.sqlite.schema import BUSY
from cauce.stores.sqlite.spool import Position, read
from cauce.stores.sqlite.spools import folder_of

APPROVED = 30
"""Days of feedback that make a model's approval."""

_TRIES = 3
_KINDS = "SELECT id, tenant, provider, model, deployment, endpoint, key, level, outcome, source, estimated, error, user FROM kinds"

Unwritten = Callable[[], Iterable[bytes]]
"""Records that are not even in a spool."""

FILE = "ledger.sqlite"
"""What the database is called, in the ledger's folder."""


class Reading:
    """Answers questions about the ledger in `folder`. For one thread at a time."""

    def __init__(self, folder: Path, now: Callable[[], float], unwritten: Unwritten = tuple) -> None:
        self._folder = folder
        self._now = now
        self._unwritten = unwritten
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
            found[f"{provider}/{model}" if model else provider] = Votes(*votes)
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
        folding = Folding(began=partial(began, self._connection()))
        for (hour, kind), cell in folding.fold(self._waiting(before)).items():
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
            if kinds:
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
        if dimension in ("key", "user", "provider", "endpoint"):
            parts.append(f"{dimension} = ?")
            values.append(value)
    rows = database.execute(f"{_KINDS} WHERE {' AND '.join(parts)}", values)
    kinds = {row[0]: Kind._make(row[1:]) for row in rows}
    return {number: kind for number, kind in kinds.items() if grouping.wants(kind)}


Range = tuple[int, int, int, Callable[[int], int]]
"""A span, its first and end period, and what makes a period's first hour of it."""


def _ranges(parts: Parts, *, users: bool) -> list[Range]:
    months, days = (USER_MONTHS, USER_DAYS) if users else (MONTHS, DAYS)
    return [
        *[(months, first, end, lambda month: day_of(month) * 24) for first, end in parts.months],
        *[(days, first, end, lambda day: day * 24) for first, end in parts.days],
        *[(HOURS, first, end, lambda hour: hour) for first, end in parts.hours],
    ]
