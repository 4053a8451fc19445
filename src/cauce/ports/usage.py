"""The ledger, read: sums over attempts, what somebody has spent, what people thought of the answers.

Every question names a tenant. `ALL_TENANTS` is for whoever runs the server, and no request of a client may say it.
"""

from typing import Final, Literal, Protocol

import msgspec

from cauce.domain.histogram import Counts
from cauce.domain.request import Scope

Dimension = Literal[
    "provider", "model", "endpoint", "key", "user", "conversation", "level", "day", "tenant", "deployment"
]
"""What usage can be told apart by. A model is told as `provider/model`, a day as `2026-11-21` (UTC)."""

SpendUnit = Literal["dollars", "tokens", "requests"]


class AllTenants(msgspec.Struct, frozen=True):
    """See `ALL_TENANTS`."""


ALL_TENANTS: Final = AllTenants()

Tenants = str | AllTenants


class Query(msgspec.Struct, frozen=True):
    """Attempts that ended from `since` (inclusive) to `until` (exclusive), UNIX times, kept to whole hours: see `Report`.

    `by` is what groups are made by, `where` what a dimension (but the day) must be equal to. Users are known by day, with their key and tenant
    only: a query that names `user` may name those and `day`, and its times are kept to whole days. One that names `conversation` may
    name anything, is about what belongs to one, is kept to whole days too, and goes back as far as single attempts are kept.
    """

    tenant: Tenants
    since: float
    until: float
    by: tuple[Dimension, ...] = ()
    where: tuple[tuple[Dimension, str], ...] = ()


class Sums(msgspec.Struct):
    """What attempts used. A request counts where it was asked first; `answered` are the attempts that completed, so a request counts
    there where it was answered. `cost` is USD; what is unpriced adds nothing to it.

    Answers out of a cache count as requests and attempts; they used no tokens.
    """

    requests: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    answered: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def add(self, other: "Sums") -> None:
        """Take in `other`."""
        self.requests += other.requests
        self.attempts += other.attempts
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost += other.cost
        self.answered += other.answered


class Votes(msgspec.Struct):
    """What people thought of answers: thumbs, and scores from 0 to 1."""

    up: int = 0
    down: int = 0
    scores: int = 0
    score_sum: float = 0.0

    @property
    def mean_score(self) -> float | None:
        """The mean of the scores; None without any."""
        return self.score_sum / self.scores if self.scores else None

    def add(self, other: "Votes") -> None:
        """Take in `other`."""
        self.up += other.up
        self.down += other.down
        self.scores += other.scores
        self.score_sum += other.score_sum


class Spread(msgspec.Struct):
    """How completed attempts are spread: seconds of the attempt, to its first delta, of the whole request up to its end (what it
    waited here included); tokens of the answer. Answers out of the cache are in `request` only. See `domain.histogram`."""

    latency: Counts = msgspec.field(default_factory=dict[int, int])
    first_delta: Counts = msgspec.field(default_factory=dict[int, int])
    request: Counts = msgspec.field(default_factory=dict[int, int])
    output: Counts = msgspec.field(default_factory=dict[int, int])


class Group(msgspec.Struct):
    """One line of a report. `estimated` and `unpriced` are those parts of `sums` that are so; `outcomes` and `errors` count attempts."""

    by: tuple[str, ...] = ()
    """The values of `Query.by`, in its order."""
    sums: Sums = msgspec.field(default_factory=Sums)
    estimated: Sums = msgspec.field(default_factory=Sums)
    unpriced: Sums = msgspec.field(default_factory=Sums)
    outcomes: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    errors: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    spread: Spread = msgspec.field(default_factory=Spread)
    votes: Votes = msgspec.field(default_factory=Votes)

    @property
    def error_rate(self) -> float:
        """The share of attempts that failed or broke off, from 0 to 1."""
        failed = self.outcomes.get("failed", 0) + self.outcomes.get("incomplete", 0)
        return failed / self.sums.attempts if self.sums.attempts else 0.0


class Report(msgspec.Struct, frozen=True):
    """`since` and `until` are what was really added up: the query's times, moved outwards to whole hours (days, for users and
    conversations); for conversations, from the first day that attempts are kept of.

    Groups are ordered by cost, then tokens, the greatest first; days by date.
    """

    since: float
    until: float
    total: Group
    groups: tuple[Group, ...]


class Holder(msgspec.Struct, frozen=True):
    """Whose spending: a whole tenant, one of its keys, or one of its users (whatever key they come with). `name` is empty for a tenant."""

    kind: Literal["tenant", "key", "user"]
    tenant: str
    name: str = ""


class Opinion(msgspec.Struct, frozen=True):
    """What somebody thinks of an answer. `id` is that of its stream or of its request; `score` is from 0 to 1."""

    id: str
    thumb: Literal["up", "down"] | None = None
    score: float | None = None
    comment: str = ""


class Usage(Protocol):
    """What is recorded counts from the moment `Ledger.record` returns."""

    async def report(self, query: Query) -> Report:
        """Sums, rates and percentiles. Raises `InvalidRequest` for a combination that is not kept."""
        ...

    async def spent(self, holder: Holder, unit: SpendUnit, since: float) -> float:
        """What `holder` has used since the beginning of the UTC hour that `since` (UNIX time) is in; of the UTC day, for users."""
        ...


class Feedback(Protocol):
    async def give(self, scope: Scope, opinion: Opinion) -> bool:
        """Join `opinion` to the answer; it replaces an earlier one of this key. False if `scope.tenant` has no answer of that id.

        Raises `Overloaded` when it cannot be kept now.
        """
        ...

    async def erase_comments(self, scope: Scope) -> int:
        """Delete what was written to answers that `scope.key` asked for, for `scope.user` alone if it names one; without one also what the key
        wrote to those of others. Votes stay. Returns how many comments. Raises `Overloaded`."""
        ...

    def approval(self, model: str) -> Votes | None:
        """What people thought of the answers of `provider/model` in the last 30 days; None if nobody said. Costs a look-up."""
        ...
