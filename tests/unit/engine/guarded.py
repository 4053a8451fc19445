"""The cascade with its guards, as bootstrap composes it, over scripted providers, with time and chance that tests decide."""

import asyncio

from cauce.domain.delta import Attempt, Status
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import Stale, fallback
from cauce.engine.hedging import hedgeable
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.breaker import Breakers, breaker
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.meter import meter
from cauce.engine.policies.patience import patience
from cauce.engine.policies.retry import Allowances, retry
from cauce.ports.provider import Call, Candidate, Deltas, Policy, Timeouts
from cauce.ports.resilience import BreakerSettings, RetrySettings
from cauce.stores.inproc.ledger import InprocLedger
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.chance import FakeChance
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider

ONCE = RetrySettings(attempts=1)


def failing(failure: str = "transient", **more: object) -> ProviderFailure:
    return ProviderFailure("it is down", failure=failure, provider="p", **more)  # pyright: ignore[reportArgumentType]


class Guarded:
    """`limits` stand where those of candidates do."""

    def __init__(
        self,
        *providers: ScriptedProvider,
        retries: RetrySettings | None = None,
        breaking: BreakerSettings | None = None,
        limits: tuple[Policy, ...] = (),
        entry: tuple[Policy, ...] = (),
        stale: Stale | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.chance = FakeChance(0.5)
        self.ledger = InprocLedger()
        self.noticed: list[Status | Attempt] = []
        self.breakers = Breakers(breaking or BreakerSettings(), self.clock)
        self.beside = Allowances()
        self.candidates = tuple(
            [
                Candidate(one, "m", "offline" if one.name == "offline" else "primary", Timeouts(first_delta=60))
                for one in providers
            ]
        )

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        one = compose(
            ask,
            retry(retries or RetrySettings(), self.clock, self.chance, Allowances(), queued=bool(entry)),
            breaker(self.breakers),
            *limits,
            attempt(),
            meter(self.clock, self.ledger, PrometheusMetrics(), Estimator()),
            patience(self.clock),
        )
        self.open = compose(
            one,
            deadline(self.clock),
            hedgeable(self.beside),
            *entry,
            fallback(self.clock, stale, queued=bool(entry), allowances=self.beside),
        )

    def call(self, *, timeout: float | None = None, streamed: bool = True, key: str = "anonymous") -> Call:
        request = Request("x", (Message("user", (TextPart("hi"),)),), timeout=timeout)
        scope = Scope(key=key)
        return Call(request, scope, self.candidates, "req_1", notice=self.noticed.append, streamed=streamed)

    async def ask(self, **about: object) -> str:
        """The text of an answer. Raises what there is instead."""
        completion = await collect(await self.open(self.call(**about)))  # pyright: ignore[reportArgumentType]
        return completion.choices[0].text

    def asking(self, **about: object) -> "asyncio.Task[str]":
        return asyncio.create_task(self.ask(**about))

    @property
    def told(self) -> list[tuple[int, str, str]]:
        """Number, provider and strategy of each attempt."""
        return [(one.n, one.provider, one.strategy) for one in self.noticed if isinstance(one, Attempt)]


async def settled() -> None:
    """Let everything run that can run."""
    for _ in range(100):
        await asyncio.sleep(0)
