"""One ledger entry and one set of figures per attempt, however it ended; what an answer cost is told in its `Finish`."""

import asyncio

import msgspec

from cauce.domain.delta import Finish, Outcome
from cauce.domain.errors import CauceError
from cauce.domain.price import Prices, cost, settled
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.metrics import Metrics
from cauce.ports.provider import Call, Deltas, Open, Policy

_NOTHING = Usage(estimated=True)


class Accounts(msgspec.Struct, frozen=True):
    """Where attempts are written down, and who estimates what nobody has counted."""

    clock: Clock
    ledger: Ledger
    metrics: Metrics
    estimator: Estimator


def meter(clock: Clock, ledger: Ledger, metrics: Metrics, estimator: Estimator) -> Policy:
    """Account for every attempt: failed ones when they fail, opened ones when their deltas end.

    An attempt that failed before its first delta used nothing that is known of. One that was given up, timed out or broke off
    made the provider read the request: its input is estimated, what it had answered by then is not in the figures.
    """
    accounts = Accounts(clock, ledger, metrics, estimator)

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            attempt = _Attempt(accounts, call)
            try:
                deltas = await open(call)
            except CauceError as error:
                attempt.record("failed", attempt.unanswered() if attempt.was_asked(error) else _NOTHING, error)
                raise
            except BaseException:
                # The caller left or the attempt was given up: cancellation, not a failure of the provider.
                attempt.record("cancelled", attempt.unanswered(), None)
                raise
            attempt.first_delta = clock.monotonic() - attempt.began
            deltas.on_finish(attempt.settle)
            deltas.on_end(attempt.ended)
            return deltas

        return opened

    return policy


class _Attempt:
    __slots__ = ("_accounts", "_call", "_finished", "began", "first_delta")

    def __init__(self, accounts: Accounts, call: Call) -> None:
        self._accounts = accounts
        self._call = call
        self._finished = False
        self.began = accounts.clock.monotonic()
        self.first_delta: float | None = None

    @property
    def _prices(self) -> Prices | None:
        return self._call.candidate.facts.prices

    def settle(self, finish: Finish) -> Finish:
        """`finish` with what the answer cost."""
        self._finished = True
        usage = finish.usage
        if usage.estimated:
            usage = msgspec.structs.replace(usage, input_tokens=self._estimated_input())
        usage = settled(usage, self._prices)
        if usage is finish.usage:
            return finish
        return Finish(finish.reason, usage, finish.reasons, finish.outcome, finish.error, finish.choice, finish.extra)

    async def ended(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """Write it down. `usage` is that of `settle`, if there was a `Finish` at all."""
        self.record(outcome, usage if self._finished else self.unanswered(), error)
        if self._finished and not usage.estimated and self._accounts.estimator.due(self._call.candidate.name):
            # Weighing the request again can wait until its answer has left.
            call = self._call
            learn = self._accounts.estimator.learn
            asyncio.get_running_loop().call_soon(learn, call.request, call.candidate.name, usage)

    def was_asked(self, error: CauceError) -> bool:
        """Whether the provider had the request when time ran out: connecting has a bound of its own."""
        waited = self._accounts.clock.monotonic() - self.began
        return error.code == "timeout" and waited > self._call.candidate.timeouts.connect

    def unanswered(self) -> Usage:
        """What an attempt used, as far as can be told, that has no `Finish`."""
        return settled(Usage(self._estimated_input(), estimated=True), self._prices)

    def record(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """One attempt, into ledger and figures."""
        accounts, call, prices = self._accounts, self._call, self._prices
        candidate = call.candidate
        provider = candidate.provider.name
        latency = accounts.clock.monotonic() - self.began
        accounts.metrics.attempt(provider, candidate.model, outcome, latency, self.first_delta, usage)
        accounts.ledger.record(
            Entry(
                at=accounts.clock.now(),
                request_id=call.request_id,
                scope=call.scope,
                provider=provider,
                model=candidate.model,
                level=candidate.level,
                outcome=outcome,
                error_code=error.code if error is not None else None,
                usage=usage,
                latency=latency,
                first_delta=self.first_delta,
                listed_cost=cost(usage, prices) if prices is not None else None,
                price_snapshot=prices.snapshot if prices is not None else "",
            )
        )

    def _estimated_input(self) -> int:
        return self._accounts.estimator.estimate(self._call.request, self._call.candidate.name)
