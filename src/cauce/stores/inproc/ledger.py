"""The ledger in memory: the newest entries, and everything that can be told from them."""

from collections import deque
from math import inf

import msgspec

from cauce.domain.request import Scope
from cauce.ports.ledger import Entry, LedgerStanding
from cauce.ports.usage import Holder, Opinion, Query, Report, SpendUnit, Votes
from cauce.stores.attempts import attempt_of
from cauce.stores.cells import Cell, Folding, Kind, Kinds, conversed
from cauce.stores.grouping import Grouping, amount, spending
from cauce.stores.periods import HOUR

MOST_ENTRIES = 10_000


class _About(msgspec.Struct, frozen=True):
    """An opinion, and what the answer it is about counts as."""

    hour: int
    kind: Kind
    votes: Votes


class InprocLedger:
    """See `ports.ledger.Ledger`, `ports.usage.Usage` and `ports.usage.Feedback`. Keeps the newest `most` entries."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._entries: deque[Entry] = deque(maxlen=most)
        self._last: dict[str, Entry] = {}
        self._opinions: dict[tuple[str, str], dict[str, _About]] = {}
        """By tenant and request id, then by key."""
        self._approvals: dict[str, Votes] = {}

    def record(self, entry: Entry) -> None:
        if len(self._entries) == self._entries.maxlen:
            self._opinions.pop((self._entries[0].scope.tenant, self._entries[0].request_id), None)
        self._entries.append(entry)
        if entry.level != "cache":
            # Nobody was asked: it says nothing of how the provider stands.
            self._last[entry.provider] = entry

    @property
    def standing(self) -> LedgerStanding:
        return LedgerStanding()

    def entries(self) -> tuple[Entry, ...]:
        """The entries kept, oldest first."""
        return tuple(self._entries)

    def last(self, provider: str) -> Entry | None:
        """The newest entry of that provider."""
        return self._last.get(provider)

    async def report(self, query: Query) -> Report:
        grouping = Grouping(query, inf)
        attempts = [attempt_of(entry) for entry in self._entries]
        cells = conversed(attempts) if grouping.conversations else Folding().fold(attempts)
        for about in self._given():
            cells.setdefault((about.hour, about.kind), Cell()).votes.add(about.votes)
        for (hour, kind), cell in cells.items():
            if grouping.within(hour) and grouping.wants(kind):
                grouping.add(hour, kind, cell)
        return grouping.report()

    async def spent(self, holder: Holder, unit: SpendUnit, since: float) -> float:
        until = max([since, *[entry.at for entry in self._entries]]) + 1
        return amount(await self.report(spending(holder, since, until)), unit)

    async def give(self, scope: Scope, opinion: Opinion) -> bool:
        entry = self._answer(scope.tenant, opinion.id)
        if entry is None:
            return False
        about = _About(int(entry.at) // HOUR, Kinds().of(attempt_of(entry)), _votes(opinion))
        self._opinions.setdefault((scope.tenant, entry.request_id), {})[scope.key] = about
        approvals: dict[str, Votes] = {}
        for each in self._given():
            approvals.setdefault(each.kind.name, Votes()).add(each.votes)
        self._approvals = approvals
        return True

    async def erase_comments(self, scope: Scope) -> int:
        # None are kept.
        return 0

    def approval(self, model: str) -> Votes | None:
        return self._approvals.get(model)

    def _given(self) -> list["_About"]:
        return [about for opinions in self._opinions.values() for about in opinions.values()]

    def _answer(self, tenant: str, id: str) -> Entry | None:
        """The attempt that answered under that id of a stream or a request: the last that completed, else the last."""
        found: Entry | None = None
        for entry in self._entries:
            if id not in (entry.request_id, entry.stream_id) or entry.scope.tenant != tenant:
                continue
            if found is None or entry.outcome == "completed" or found.outcome != "completed":
                found = entry
        return found


def _votes(opinion: Opinion) -> Votes:
    scored = opinion.score is not None
    return Votes(opinion.thumb == "up", opinion.thumb == "down", int(scored), opinion.score or 0.0)
