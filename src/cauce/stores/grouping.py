"""From cells to a report: which periods a query is about, and which group each cell belongs to."""

from collections.abc import Callable, Iterable

from cauce.domain.errors import InvalidRequest
from cauce.domain.histogram import add
from cauce.ports.usage import AllTenants, Dimension, Group, Holder, Query, Report, SpendUnit
from cauce.stores.cells import Cell, Kind
from cauce.stores.periods import DAY, HOUR, Parts, date_of, day_of, month_of, parts

_OF_USERS: frozenset[Dimension] = frozenset({"user", "key", "tenant", "day"})
"""What is known of users."""

MOST_GROUPS = 50_000
"""Groups of one report. Making and ordering more would hold up the thread that answers requests."""

_MEMBERS: dict[Dimension, Callable[[Kind], str]] = {
    "provider": lambda kind: kind.provider,
    "model": lambda kind: kind.name,
    "endpoint": lambda kind: kind.endpoint,
    "key": lambda kind: kind.key,
    "user": lambda kind: kind.user,
    "conversation": lambda kind: kind.conversation,
    "level": lambda kind: kind.level,
    "tenant": lambda kind: kind.tenant,
    "deployment": lambda kind: kind.deployment,
}


class Grouping:
    """A query at work: `add` the cells of `spans`, then make the `report`."""

    def __init__(self, query: Query, now: float) -> None:
        """Raises `InvalidRequest` for a combination that is not kept."""
        named: set[Dimension] = {*query.by, *[dimension for dimension, _ in query.where]}
        self.conversations = "conversation" in named
        self.users = "user" in named and not self.conversations
        if self.users and not named <= _OF_USERS:
            left = ", ".join(sorted(named - _OF_USERS))
            raise InvalidRequest(
                f"group_by: users are known by key, tenant and day only, not by {left}", field="group_by"
            )
        self._query = query
        self._by = [_MEMBERS[dimension] for dimension in query.by if dimension != "day"]
        self._day_at = query.by.index("day") if "day" in query.by else None
        self._where = [(_MEMBERS[dimension], value) for dimension, value in query.where]
        unit = 24 if self.users or self.conversations else 1
        first = int(query.since) // (HOUR * unit) * unit
        end = -(-int(query.until) // (HOUR * unit)) * unit
        self._first, self._end = first, max(first, end)
        self._total = Group()
        self._groups: dict[tuple[str, ...], Group] = {}
        self._now = now

    @property
    def spans(self) -> Parts:
        """The periods to add up. Nothing is known of times to come, so what reaches into them takes their whole month."""
        end = self._end
        if end * HOUR >= self._now:
            end = day_of(month_of(int(max(self._now, end * HOUR)) // DAY) + 1) * 24
        return parts(self._first, max(self._first, end), months=self._day_at is None)

    @property
    def conversation(self) -> str | None:
        """The one conversation that is asked for."""
        return dict(self._query.where).get("conversation")

    def known_since(self, day: int) -> None:
        """Begin no sooner than on `day`, since 1970: there is nothing of before. Raises `InvalidRequest` if that is all that is asked for."""
        if day * 24 >= self._end:
            raise InvalidRequest(
                f"from: conversations are told as long as single attempts are kept ([ledger] keep_attempts), now since {date_of(day)}",
                field="from",
            )
        self._first = max(self._first, day * 24)

    def within(self, hour: int) -> bool:
        """Whether a cell of that hour is one of the query's."""
        return self._first <= hour < self._end

    def wants(self, kind: Kind) -> bool:
        """Whether cells of that kind are."""
        tenant = self._query.tenant
        apart = bool(kind.conversation) if self.conversations else bool(kind.user) == self.users
        if not apart or not (isinstance(tenant, AllTenants) or kind.tenant == tenant):
            return False
        return all([member(kind) == value for member, value in self._where])

    def add(self, hour: int, kind: Kind, cell: Cell) -> None:
        """Take in a cell; `hour` is the first of its period."""
        by = [member(kind) for member in self._by]
        if self._day_at is not None:
            by.insert(self._day_at, date_of(hour // 24))
        group = self._groups.get(key := tuple(by))
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                raise InvalidRequest(
                    f"group_by: there are more than {MOST_GROUPS:,} groups: ask for a shorter time, or tell less apart",
                    field="group_by",
                )
            group = self._groups[key] = Group(key)
        _take(group, kind, cell)

    def report(self) -> Report:
        """What was added."""
        for group in self._groups.values():
            _join(self._total, group)
        groups = self._groups.values() if self._query.by else ()
        return Report(self._first * HOUR, self._end * HOUR, self._total, tuple(self._ordered(groups)))

    def _ordered(self, groups: Iterable[Group]) -> list[Group]:
        if self._day_at == 0:
            return sorted(groups, key=lambda group: group.by)
        return sorted(groups, key=lambda group: (-group.sums.cost, -group.sums.tokens, -group.sums.attempts, group.by))


def spending(holder: Holder, since: float, until: float) -> Query:
    """The query whose total is what `holder` has spent."""
    where: tuple[tuple[Dimension, str], ...] = () if holder.kind == "tenant" else ((holder.kind, holder.name),)
    return Query(holder.tenant, since, until, where=where)


def amount(report: Report, unit: SpendUnit) -> float:
    """What `report` sums up to in `unit`."""
    sums = report.total.sums
    match unit:
        case "dollars":
            return sums.cost
        case "tokens":
            return float(sums.tokens)
        case "requests":
            return float(sums.requests)


def _take(group: Group, kind: Kind, cell: Cell) -> None:
    attempts = cell.sums.attempts
    # Cells do not keep it, since all of a kind ended alike.
    answered = attempts if kind.outcome == "completed" else 0
    takes = [group.sums]
    if kind.estimated:
        takes.append(group.estimated)
    if kind.source == "unpriced":
        takes.append(group.unpriced)
    for sums in takes:
        sums.add(cell.sums)
        sums.answered += answered
    group.outcomes[kind.outcome] = group.outcomes.get(kind.outcome, 0) + attempts
    if kind.error:
        group.errors[kind.error] = group.errors.get(kind.error, 0) + attempts
    group.votes.add(cell.votes)
    if cell.spread.request:
        _spread(group, cell)


def _spread(group: Group, cell: Cell | Group) -> None:
    mine, more = group.spread, cell.spread
    add(mine.latency, more.latency)
    add(mine.first_delta, more.first_delta)
    add(mine.request, more.request)
    add(mine.output, more.output)


def _join(total: Group, group: Group) -> None:
    total.sums.add(group.sums)
    total.estimated.add(group.estimated)
    total.unpriced.add(group.unpriced)
    total.votes.add(group.votes)
    add(total.outcomes, group.outcomes)
    add(total.errors, group.errors)
    _spread(total, group)
