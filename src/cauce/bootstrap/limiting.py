"""Limits and budgets, as the configuration describes them."""

import msgspec

from cauce.bootstrap.sharing import Sharing
from cauce.catalogue.vendors import HERE, vendor_of
from cauce.config import Config, ProviderSettings
from cauce.engine.amounts import Amounts
from cauce.engine.estimator import Estimator
from cauce.engine.limit_settings import Rates
from cauce.engine.limits import STARTING, LimitBook, ProviderRates, holder
from cauce.engine.policies.limit import Limiting
from cauce.engine.routing.router import Router
from cauce.ports.clock import Clock
from cauce.ports.limiter import Limit
from cauce.ports.metrics import Metrics
from cauce.ports.usage import Holder, Usage
from cauce.stores.inproc.limiter import InprocLimiter, Spent, nothing_spent


class Counting(msgspec.Struct, frozen=True):
    """What limits need of the other parts. Without `usage`, budgets begin anew with the process."""

    clock: Clock
    metrics: Metrics
    estimator: Estimator
    usage: Usage | None = None


def limiting(config: Config, router: Router, counting: Counting, shared: Sharing | None = None) -> Limiting | None:
    """Who counts what under which limits, alone or with others; None where nothing is counted."""
    if not _needed(config):
        return None

    def here(name: str) -> bool:
        source = router.source(name)
        return source is not None and (source.local or source.sole or source.vendor == HERE)

    providers = {name: rates for each in config.providers.items() for name, rates in _rates(*each).items()}
    spent = nothing_spent if counting.usage is None else _spent_of(counting.usage)
    alone = InprocLimiter(counting.clock, spent)
    return Limiting(
        alone if shared is None else shared.limiter(alone, spent),
        LimitBook(config.limits, config.budgets, providers, here),
        Amounts(counting.estimator, config.budgets.assumed_output),
        counting.metrics,
    )


def _needed(config: Config) -> bool:
    """Whether a limit is configured, or a provider is out there, which may have something to say about its own."""
    if config.limits.models or config.limits.keys or config.budgets.any:
        return True
    for settings in config.providers.values():
        for rates in (settings, *settings.deployments):
            if rates.max_concurrent or rates.requests_per_minute or rates.tokens_per_minute:
                return True
        if settings.base_url and vendor_of(settings.kind, settings.base_url) != HERE:
            return True
    return False


def _rates(name: str, settings: ProviderSettings) -> dict[str, ProviderRates]:
    """By the provider's name, or by `name@deployment` where it has several."""
    rates = Rates(settings.requests_per_minute, settings.tokens_per_minute, settings.max_concurrent)
    found = {name: ProviderRates(rates, _starting(settings.base_url))}
    for one in settings.deployments:
        own = Rates(
            rates.requests_per_minute if one.requests_per_minute is None else one.requests_per_minute,
            rates.tokens_per_minute if one.tokens_per_minute is None else one.tokens_per_minute,
            rates.concurrent if one.max_concurrent is None else one.max_concurrent,
        )
        found[f"{name}@{one.name}"] = ProviderRates(own, _starting(one.base_url or settings.base_url))
    return found


def _starting(base_url: str) -> tuple[tuple[str, Rates], ...]:
    """What holds at a maker's own address until something is configured."""
    # Asked as if of no maker's own kind: what speaks a maker's wire elsewhere has limits of its own.
    return STARTING.get(vendor_of("openai", base_url), ())


def _spent_of(usage: Usage) -> Spent:
    async def spent(limit: Limit, since: float) -> float:
        owner = holder(limit.key)
        assert owner.whose in ("key", "user", "tenant"), "only callers have budgets"
        assert limit.unit != "calls", "calls under way have no past"
        return await usage.spent(Holder(owner.whose, owner.tenant, owner.name), limit.unit, since)

    return spent
