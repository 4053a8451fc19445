"""Limits and budgets, as the configuration describes them."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from cauce.bootstrap.sharing import Sharing
from cauce.catalogue.vendors import HERE, vendor_of
from cauce.config import Config, ProviderSettings
from cauce.domain.errors import CauceError
from cauce.engine.amounts import Amounts
from cauce.engine.estimator import Estimator
from cauce.engine.limit_settings import Rates
from cauce.engine.limits import STARTING, LimitBook, ProviderRates, holder
from cauce.engine.policies.limit import Limiting
from cauce.ports.clock import Clock
from cauce.ports.limiter import Limit, Limiter
from cauce.ports.metrics import Metrics
from cauce.ports.usage import Holder, Usage
from cauce.stores.inproc.limiter import InprocLimiter, Spent, nothing_spent

RENEWAL = 1.0
"""Seconds between looks at what other processes have spent that write into the same ledger, where Redis does not tell."""

logger = logging.getLogger("cauce.bootstrap")


def _one() -> int:
    return 1


class Counting(msgspec.Struct, frozen=True):
    """What limits need of the other parts. Without `usage`, budgets begin anew with the process. `workers` says how many processes
    write into what `usage` tells, and `node` what that is called beside those of other nodes."""

    clock: Clock
    metrics: Metrics
    estimator: Estimator
    usage: Usage | None = None
    workers: Callable[[], int] = _one
    node: str = ""


def limiting(config: Config, counting: Counting, shared: Sharing | None = None) -> Limiting | None:
    """Who counts what under which limits, alone or with others; None where nothing is counted."""
    if not _needed(config):
        return None

    providers = {name: rates for each in config.providers.items() for name, rates in _rates(*each).items()}
    spent = nothing_spent if counting.usage is None else spent_of(counting.usage)

    async def part(limit: Limit, since: float) -> float:
        # Each of them keeps to a share of its own while Redis is gone.
        return await spent(limit, since) / counting.workers()

    alone = InprocLimiter(counting.clock, spent if shared is None else part)
    return Limiting(
        alone if shared is None else shared.limiter(alone, spent, counting.node),
        LimitBook(config.limits, config.budgets, providers),
        Amounts(counting.estimator, config.budgets.assumed_output),
        counting.metrics,
    )


class Renewal:
    """Has the budgets of a process that counts alone keep up with what others spend that write into the same ledger."""

    def __init__(self, limiter: Limiter | None, clock: Clock, workers: Callable[[], int]) -> None:
        self._alone = limiter if isinstance(limiter, InprocLimiter) else None
        self._clock = clock
        self._workers = workers
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, where there is anything to keep up with."""
        if self._alone is not None:
            self._task = asyncio.create_task(self._renew(self._alone))

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _renew(self, alone: InprocLimiter) -> None:
        several = False
        while True:
            await self._clock.sleep(RENEWAL)
            before, several = several, self._workers() > 1
            if not several and not before:
                continue
            try:
                # Once more after the last of the others is gone: it has spent since it was looked.
                await alone.renew()
            except CauceError as error:
                several = True
                logger.debug("what other processes have spent is not known now: %s", error.message)


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


def spent_of(usage: Usage) -> Spent:
    """What `usage` knows of those who have budgets."""

    async def spent(limit: Limit, since: float) -> float:
        owner = holder(limit.key)
        assert owner.whose in ("key", "user", "tenant"), "only callers have budgets"
        assert limit.unit != "calls", "calls under way have no past"
        return await usage.spent(Holder(owner.whose, owner.tenant, owner.name), limit.unit, since)

    return spent
