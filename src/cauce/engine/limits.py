"""Which limits hold: for a candidate, by its provider and its model; for a caller, by its key, its user and its tenant.

The key of a limit is `whose:who:what`, such as `provider:gemini:tokens/minute`, `model:gemini/gemini-2.5-flash:requests/minute`,
`key:default/web:calls`, `user:default/ana:dollars/day`, and `upstream:…` for what a provider says itself, or lets be seen. Names are
quoted.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from typing import Literal, cast
from urllib.parse import quote, unquote

import msgspec

from cauce.domain.request import Scope
from cauce.engine.limit_settings import Budget, BudgetsSettings, LimitsSettings, Rates
from cauce.ports.limiter import Limit, Unit
from cauce.ports.provider import Candidate, Provider

MOST_REMEMBERED = 4096
"""Candidates, and callers, whose limits are remembered before all are looked up again."""

Whose = Literal["provider", "model", "upstream", "key", "user", "tenant"]

STARTING: dict[str, tuple[tuple[str, Rates], ...]] = {
    "google": (("*flash*", Rates(60, 100_000)),),
    "openai": (("gpt-5-mini*", Rates(30, 50_000)),),
    "anthropic": (("claude-*haiku*", Rates(50, 80_000)),),
}
"""By maker, for globs of its models: what holds where nothing is configured, at the maker's own address only."""


class ProviderRates(msgspec.Struct, frozen=True):
    """What one provider may be asked in all, and for globs of its models what holds until something is configured."""

    rates: Rates = Rates()
    starting: tuple[tuple[str, Rates], ...] = ()


class CandidateLimits(msgspec.Struct, frozen=True):
    """`tokens`: one of them counts tokens."""

    limits: tuple[Limit, ...]
    tokens: bool


class CallerLimits(msgspec.Struct, frozen=True):
    """`rates` hold once per request, `budgets` for each attempt. `tokens`: one of the rates counts tokens. `settled`: one of them
    must be told what a request has used; those that count requests alone know it."""

    rates: tuple[Limit, ...]
    tokens: bool
    settled: bool
    budgets: tuple[Limit, ...]


class Holder(msgspec.Struct, frozen=True):
    """Whose limit it is. `name` is empty for a tenant."""

    whose: Whose
    tenant: str
    name: str


class LimitBook:
    """`providers` are by name, or by `name@deployment`."""

    def __init__(
        self, settings: LimitsSettings, budgets: BudgetsSettings, providers: Mapping[str, ProviderRates]
    ) -> None:
        self._settings = settings
        self._budgets = budgets
        self._providers = providers
        self._candidates: dict[tuple[Provider, str, str], CandidateLimits] = {}
        self._callers: dict[tuple[str, str, str | None], CallerLimits] = {}
        self._together: dict[tuple[int, int], tuple[CandidateLimits, CallerLimits, tuple[Limit, ...]]] = {}
        self._told: set[str] = set()

    def of_candidate(self, candidate: Candidate) -> CandidateLimits:
        """What holds for each attempt with `candidate`. Each of a provider's deployments is counted by itself."""
        key = (candidate.provider, candidate.deployment, candidate.model)
        known = self._candidates.get(key)
        if known is None:
            if len(self._candidates) >= MOST_REMEMBERED:
                self._candidates.clear()
            known = self._candidates[key] = self._for(candidate)
        return known

    def of_caller(self, scope: Scope, user: str | None) -> CallerLimits:
        """What holds for requests of `scope`, made for its `user`."""
        key = (scope.tenant, scope.key, user)
        known = self._callers.get(key)
        if known is None:
            if len(self._callers) >= MOST_REMEMBERED:
                self._callers.clear()
            known = self._callers[key] = self._of(scope, user)
        return known

    def together(self, held: CandidateLimits, caller: CallerLimits) -> tuple[Limit, ...]:
        """Those of a candidate and the budgets of who asks it: the same tuple each time, so that a limiter knows it again."""
        key = (id(held), id(caller))
        known = self._together.get(key)
        if known is None or known[0] is not held or known[1] is not caller:
            if len(self._together) >= MOST_REMEMBERED:
                self._together.clear()
            known = self._together[key] = (held, caller, held.limits + caller.budgets)
        return known[2]

    def upstream(self, candidate: Candidate, unit: Unit) -> Limit:
        """The limit that stands for what the upstream says of itself; from now on it holds for `candidate`."""
        limit = Limit(upstream_key(candidate, unit), unit, "minute", inf)
        if limit.key not in self._told:
            if len(self._told) >= MOST_REMEMBERED:
                self._told.clear()
            self._told.add(limit.key)
            self._candidates.clear()
        return limit

    def _for(self, candidate: Candidate) -> CandidateLimits:
        name = candidate.provider.name
        place = f"{name}@{candidate.deployment}" if candidate.deployment else name
        provider = self._providers.get(place) or self._providers.get(name) or ProviderRates()
        starting = [
            _unless(rates, provider.rates) for glob, rates in provider.starting if fnmatchcase(candidate.model, glob)
        ]
        fitting = [rates for glob, rates in self._settings.models.items() if fnmatchcase(candidate.name, glob)]
        told = [
            limit
            for limit in (
                Limit(upstream_key(candidate, "requests"), "requests", "minute", inf),
                Limit(upstream_key(candidate, "tokens"), "tokens", "minute", inf),
            )
            if limit.key in self._told
        ]
        limits = (
            *_rates("provider", quote(place, safe="@"), provider.rates),
            *_rates("model", _place(candidate), _merged([*starting, *fitting])),
            *told,
        )
        return CandidateLimits(limits, any([limit.unit == "tokens" for limit in limits]))

    def _of(self, scope: Scope, user: str | None) -> CallerLimits:
        # As the ledger knows them, which says what they have spent.
        user = scope.of(user).user
        tenant, key = quote(scope.tenant, safe=""), quote(scope.key, safe="")
        fitting = [rates for glob, rates in self._settings.keys.items() if fnmatchcase(scope.key, glob)]
        rates = _rates("key", f"{tenant}/{key}", _merged(fitting))
        budgets = [
            *_budget("key", f"{tenant}/{key}", self._budgets.keys, scope.key),
            *_budget("tenant", f"{tenant}/", self._budgets.tenants, scope.tenant),
        ]
        if user is not None:
            budgets += _budget("user", f"{tenant}/{quote(user, safe='')}", self._budgets.users, user)
        units = {limit.unit for limit in rates}
        return CallerLimits(tuple(rates), "tokens" in units, not units <= {"requests"}, tuple(budgets))


def upstream_key(candidate: Candidate, unit: Unit) -> str:
    """The key of what is known of the limits of `candidate` by its own doing: what it says (in a minute), what it refuses (calls)."""
    return f"upstream:{_place(candidate)}:{unit}" + ("" if unit == "calls" else "/minute")


def holder(key: str) -> Holder:
    """Whose limit the one with `key` is."""
    whose, who, _ = key.split(":", 2)
    tenant, _, name = who.partition("/")
    if whose not in ("key", "user", "tenant"):
        return Holder(cast(Whose, whose), "", unquote(who))
    return Holder(whose, unquote(tenant), unquote(name))


def described(limit: Limit) -> str:
    """`limit` in words, as in "the limit of 60 requests per minute of model gemini/gemini-2.5-flash"."""
    owner = holder(limit.key)
    whose = f"{owner.whose} {owner.name or owner.tenant}"
    if owner.whose == "upstream":
        return f"what {owner.name} says it takes now"
    if limit.unit == "dollars":
        return f"the budget of {limit.most:g} USD a {limit.per} of {whose}"
    if limit.unit == "calls":
        return f"the limit of {limit.most:g} calls at once of {whose}"
    return f"the limit of {limit.most:,.10g} {limit.unit} a {limit.per} of {whose}"


def _place(candidate: Candidate) -> str:
    deployment = f"@{candidate.deployment}" if candidate.deployment else ""
    return quote(candidate.name + deployment, safe="/@")


def _rates(whose: Whose, who: str, rates: Rates) -> list[Limit]:
    limits: list[Limit] = []
    if rates.concurrent:
        limits.append(Limit(f"{whose}:{who}:calls", "calls", "moment", rates.concurrent))
    if rates.requests_per_minute:
        limits.append(Limit(f"{whose}:{who}:requests/minute", "requests", "minute", rates.requests_per_minute))
    if rates.tokens_per_minute:
        limits.append(Limit(f"{whose}:{who}:tokens/minute", "tokens", "minute", rates.tokens_per_minute))
    return limits


def _budget(whose: Whose, who: str, budgets: Mapping[str, Budget], name: str) -> list[Limit]:
    day: float | None = None
    month: float | None = None
    for glob, budget in budgets.items():
        if fnmatchcase(name, glob):
            day = budget.day if budget.day is not None else day
            month = budget.month if budget.month is not None else month
    limits: list[Limit] = []
    if day:
        limits.append(Limit(f"{whose}:{who}:dollars/day", "dollars", "day", day))
    if month:
        limits.append(Limit(f"{whose}:{who}:dollars/month", "dollars", "month", month))
    return limits


def _merged(several: Sequence[Rates]) -> Rates:
    requests: float | None = None
    tokens: float | None = None
    concurrent: float | None = None
    for rates in several:
        requests = rates.requests_per_minute if rates.requests_per_minute is not None else requests
        tokens = rates.tokens_per_minute if rates.tokens_per_minute is not None else tokens
        concurrent = rates.concurrent if rates.concurrent is not None else concurrent
    return Rates(requests, tokens, concurrent)


def _unless(starting: Rates, configured: Rates) -> Rates:
    """What of `starting` is left where the provider has figures of its own."""
    return Rates(
        starting.requests_per_minute if configured.requests_per_minute is None else None,
        starting.tokens_per_minute if configured.tokens_per_minute is None else None,
    )
