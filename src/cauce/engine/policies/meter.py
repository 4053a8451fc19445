"""One ledger entry and one set of figures per attempt, however it ended; what an answer cost is told in its `Finish`."""

import asyncio

import msgspec

from cauce.domain.delta import Outcome
from cauce.domain.errors import CauceError
from cauce.domain.price import cost, settled
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator
from cauce.engine.faults import Faults
from cauce.engine.structure.asking import cannot_ask
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
    faults: Faults


def meter(clock: Clock, ledger: Ledger, metrics: Metrics, estimator: Estimator, faults: Faults | None = None) -> Policy:
    """Account for every attempt: failed ones when they fail, opened ones when their deltas end.

    An attempt that failed before its first delta used nothing that is known of. One that was given up, timed out or broke off
    made the provider read the request: what it reported by then counts, and estimates stand for the rest. One that was to read the
    provider's own stream on, and got nothing of it, made nobody read anything: whoever asked for that stream has the bill.
    """
    accounts = Accounts(clock, ledger, metrics, estimator, faults or Faults())

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            attempt = _Attempt(accounts, call)
            try:
                deltas = await open(call)
            except CauceError as error:
                if cannot_ask(error):
                    # The attempt goes on.
                    raise
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
    __slots__ = ("_accounts", "_call", "_candidate", "_n", "_prices", "began", "first_delta")

    def __init__(self, accounts: Accounts, call: Call) -> None:
        self._accounts = accounts
        self._call = call
        self._candidate = call.candidates[0]
        # Another may be asked beside it before this one ends.
        self._n = call.course.attempts
        self._prices = self._candidate.facts.prices
        self.began = accounts.clock.monotonic()
        self.first_delta: float | None = None

    def settle(self, usage: Usage) -> Usage:
        """`usage` with what nobody has reported, and what it cost."""
        if usage.estimated and usage.extra is None:
            usage = msgspec.structs.replace(usage, input_tokens=self._estimated_input())
        return settled(usage, self._prices)

    def ended(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """Write it down. `usage` is that of `settle`."""
        if outcome != "completed" and self._attaches and usage.estimated and not usage.output_tokens:
            usage = _NOTHING
        self.record(outcome, usage, error)
        if not usage.estimated and self._accounts.estimator.due(self._candidate.name):
            # Weighing the request again can wait until its answer has left.
            call = self._call
            learn = self._accounts.estimator.learn
            asyncio.get_running_loop().call_soon(learn, call.request, self._candidate.name, usage)

    def was_asked(self, error: CauceError) -> bool:
        """Whether the provider had the request when time ran out: connecting has a bound of its own."""
        waited = self._accounts.clock.monotonic() - self.began
        return error.code == "timeout" and waited > self._candidate.timeouts.connect

    def unanswered(self) -> Usage:
        """What an attempt used, as far as can be told, that has no first delta."""
        if self._attaches:
            return _NOTHING
        return settled(Usage(self._estimated_input(), estimated=True), self._prices)

    def record(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """One attempt, into ledger and figures."""
        accounts, call, candidate, prices = self._accounts, self._call, self._candidate, self._prices
        provider, request, course = candidate.provider.name, call.request, call.course
        latency = accounts.clock.monotonic() - self.began
        accounts.faults.note(call, outcome, error)
        accounts.metrics.attempt(provider, candidate.model, outcome, latency, self.first_delta, usage)
        listed = None
        if prices is not None:
            listed = usage.cost if usage.cost_source == "priced" else cost(usage, prices)
        accounts.ledger.record(
            Entry(
                accounts.clock.now(),
                call.request_id,
                call.scope.of(request.user),
                provider,
                candidate.model,
                candidate.level,
                outcome,
                error.code if error is not None else None,
                usage,
                latency,
                self.first_delta,
                listed,
                prices.snapshot if prices is not None else "",
                call.stream_id,
                request.conversation_id or "",
                call.endpoint,
                candidate.deployment,
                self._n,
                course.waited,
            )
        )

    @property
    def _attaches(self) -> bool:
        return self._call.upstream is not None

    def _estimated_input(self) -> int:
        return self._accounts.estimator.estimate(self._call.request, self._candidate.name)
