"""Sums of attempts: a cell per hour and kind of attempt, which days and months are added up from.

A kind is everything that usage can be told apart by, so any report is a sum over cells. Users are many, so they have kinds of
their own, by day, that know nothing but who it was and how it went.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from cauce.domain.histogram import add, bucket
from cauce.ports.provider import named
from cauce.ports.usage import Spread, Sums, Votes
from cauce.stores.attempts import Attempt
from cauce.stores.periods import HOUR

_MOST_KINDS = 4096
_MOST_OPEN = 4096
"""Requests whose first attempts failed, that the beginning of is remembered."""


class Kind(NamedTuple):
    """What attempts of one cell have in common. `source` is empty where nothing was used; `user` is for kinds of users only, and
    `conversation` for what is made of attempts when it is asked for."""

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
    conversation: str = ""

    @property
    def name(self) -> str:
        """`provider/model`, or the provider alone where it has but one model."""
        return named(self.provider, self.model)


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
        if more.request:
            add(mine.latency, more.latency)
            add(mine.first_delta, more.first_delta)
            add(mine.request, more.request)
            add(mine.output, more.output)


Cells = dict[tuple[int, Kind], Cell]
"""By hour since 1970 and kind; for kinds of users, by the first hour of the day."""


class Kinds:
    """The kinds of attempts, each made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Kind] = {}

    def of(self, attempt: Attempt) -> Kind:
        """The kind of `attempt`. Nothing that was used has no source, and is no estimate either; so has what the cache gave."""
        used = attempt[6] != "cache" and bool(attempt[17] or attempt[18] or attempt[23])
        key = (used, attempt[:11])
        kind = self._known.get(key)
        if kind is None:
            if len(self._known) > _MOST_KINDS:
                self._known.clear()
            source, estimated = (attempt[8], attempt[9]) if used else ("", False)
            kind = self._known[key] = Kind(*attempt[:8], source, estimated, attempt[10] or "")
        return kind


Began = Callable[[str, float], float | None]
"""When the request of that id, an attempt of which ended at that time, began; None if its first attempt is not known."""


class Folding:
    """Adds attempts up. It remembers when requests began, so that one that was answered at the second try has its whole time.

    `began` tells it of those whose first attempts were added up elsewhere.
    """

    def __init__(self, kinds: Kinds | None = None, began: Began = lambda request_id, at: None) -> None:
        self._kinds = kinds or Kinds()
        self._elsewhere = began
        self._began: dict[str, float] = {}

    def fold(self, attempts: Iterable[Attempt], into: Cells | None = None) -> Cells:
        """The cells of `attempts`, added to those of `into`."""
        cells: Cells = {} if into is None else into
        for attempt in attempts:
            kind = self._kinds.of(attempt)
            hour = int(attempt[12]) // HOUR
            cell = cells.get((hour, kind))
            if cell is None:
                cell = cells[(hour, kind)] = Cell()
            _count(cell.sums, attempt)
            if kind.outcome == "completed":
                self._time(cell.spread, attempt)
            elif kind.outcome == "failed" and attempt[13] not in self._began:
                self._began[attempt[13]] = attempt[12] - attempt[26] - attempt[28]
                if len(self._began) > _MOST_OPEN:
                    del self._began[next(iter(self._began))]
            if attempt[11]:
                mine = Kind(kind.tenant, "", "", "", "", kind.key, "", *kind[7:11], attempt[11])
                key = (hour - hour % 24, mine)
                cell = cells.get(key)
                if cell is None:
                    cell = cells[key] = Cell()
                _count(cell.sums, attempt)
        return cells

    def _time(self, spread: Spread, attempt: Attempt) -> None:
        latency, first_delta, cached = attempt[26], attempt[27], attempt[6] == "cache"
        index = bucket(latency)
        if not cached:
            spread.latency[index] = spread.latency.get(index, 0) + 1
        began = None
        if attempt[16] > 1:
            began = self._began.pop(attempt[13], None)
            if began is None:
                began = self._elsewhere(attempt[13], attempt[12])
        if began is not None or attempt[28]:
            index = bucket(latency + attempt[28] if began is None else attempt[12] - began)
        spread.request[index] = spread.request.get(index, 0) + 1
        if cached:
            # How fast we are says nothing of the model.
            return
        if first_delta is not None:
            index = bucket(first_delta)
            spread.first_delta[index] = spread.first_delta.get(index, 0) + 1
        index = bucket(attempt[18])
        spread.output[index] = spread.output.get(index, 0) + 1


def conversed(attempts: Iterable[Attempt]) -> Cells:
    """The cells of those of `attempts` that belong to a conversation, by the first hour of the day: what was used, and no times."""
    kinds = Kinds()
    cells: Cells = {}
    for attempt in attempts:
        if attempt[15]:
            kind = kinds.of(attempt)._replace(user=attempt[11] or "", conversation=attempt[15])
            hour = int(attempt[12]) // HOUR
            _count(cells.setdefault((hour - hour % 24, kind), Cell()).sums, attempt)
    return cells


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
