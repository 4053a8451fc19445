"""Sums of attempts: a cell per hour and kind of attempt, which days and months are added up from.

A kind is everything that usage can be told apart by, so any report is a sum over cells. Users are many, so they have kinds of
their own, by day, that know nothing but who it was and how it went.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from cauce.domain.histogram import add, bucket
from cauce.ports.usage import Spread, Sums, Votes
from cauce.stores.attempts import Attempt
from cauce.stores.periods import HOUR

_MOST_OPEN = 4096
"""Requests whose first attempts failed, that the beginning of is remembered."""


class Kind(NamedTuple):
    """What attempts of one cell have in common. `source` is empty where nothing was used; `user` is for kinds of users only."""

    tenant: str
    provider: str
    model: str
    deployment: str
    endpoint: str
    key: str
    level: str
    outcome: str
    source: str
    estimated: bool
    error: str
    user: str = ""

    @property
    def name(self) -> str:
        """`provider/model`, or the provider alone where it has but one model."""
        return f"{self.provider}/{self.model}" if self.model else self.provider


class Cell(msgspec.Struct):
    """What the attempts of one kind in one period sum up to."""

    sums: Sums = msgspec.field(default_factory=Sums)
    spread: Spread = msgspec.field(default_factory=Spread)
    votes: Votes = msgspec.field(default_factory=Votes)

    def add(self, other: "Cell") -> None:
        """Take in `other`."""
        self.sums.add(other.sums)
        self.votes.add(other.votes)
        mine, more = self.spread, other.spread
        if more.latency:
            add(mine.latency, more.latency)
            add(mine.first_delta, more.first_delta)
            add(mine.request, more.request)
            add(mine.output, more.output)


Cells = dict[tuple[int, Kind], Cell]
"""By hour since 1970 and kind; for kinds of users, by the first hour of the day."""


class Folding:
    """Adds attempts up. It remembers when requests began, so that one that was answered at the second try has its whole time."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def fold(self, attempts: Iterable[Attempt], into: Cells | None = None) -> Cells:
        """The cells of `attempts`, added to those of `into`."""
        cells: Cells = {} if into is None else into
        for attempt in attempts:
            self._add(attempt, cells)
        return cells

    def _add(self, attempt: Attempt, cells: Cells) -> None:
        at, request_id = attempt[12], attempt[13]
        hour = int(at) // HOUR
        kind = kind_of(attempt)
        cell = cells.get((hour, kind))
        if cell is None:
            cell = cells[(hour, kind)] = Cell()
        _count(cell.sums, attempt)
        if kind.outcome == "completed":
            latency, first_delta, waited = attempt[26], attempt[27], attempt[28]
            spread = cell.spread
            _note(spread.latency, latency)
            if first_delta is not None:
                _note(spread.first_delta, first_delta)
            began = self._began.pop(request_id, None) if attempt[16] > 1 else None
            _note(spread.request, latency + waited if began is None else at - began)
            _note(spread.output, attempt[18])
        elif kind.outcome == "failed" and request_id not in self._began:
            self._began[request_id] = at - attempt[26] - attempt[28]
            if len(self._began) > _MOST_OPEN:
                del self._began[next(iter(self._began))]
        user = attempt[11]
        if user:
            mine = Kind(kind.tenant, "", "", "", "", kind.key, "", *kind[7:11], user)
            period = hour - hour % 24
            cell = cells.get((period, mine))
            if cell is None:
                cell = cells[(period, mine)] = Cell()
            _count(cell.sums, attempt)


def kind_of(attempt: Attempt) -> Kind:
    """The kind of `attempt`. Nothing that was used has no source, and is no estimate either."""
    if attempt[6] != "cache" and (attempt[17] or attempt[18] or attempt[23]):
        return Kind(*attempt[:10], attempt[10] or "")
    return Kind(*attempt[:8], "", False, attempt[10] or "")


def _count(sums: Sums, attempt: Attempt) -> None:
    sums.attempts += 1
    if attempt[16] == 1:
        sums.requests += 1
    if attempt[6] == "cache":
        return
    sums.input_tokens += attempt[17]
    sums.output_tokens += attempt[18]
    sums.cached_tokens += attempt[19]
    sums.cache_write_tokens += attempt[20]
    sums.reasoning_tokens += attempt[22]
    sums.cost += attempt[23]


def _note(counts: dict[int, int], value: float) -> None:
    index = bucket(value)
    counts[index] = counts.get(index, 0) + 1
