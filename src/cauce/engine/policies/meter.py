"""One ledger entry and one set of figures per attempt, however it ended."""

from cauce.domain.delta import Outcome
from cauce.domain.errors import CauceError
from cauce.domain.usage import Usage
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.metrics import Metrics
from cauce.ports.provider import Call, Deltas, Open, Policy


def meter(clock: Clock, ledger: Ledger, metrics: Metrics) -> Policy:
    """Account for every attempt: failed ones when they fail, opened ones when their deltas end."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            began = clock.monotonic()
            candidate = call.candidate

            def record(outcome: Outcome, usage: Usage, error: CauceError | None, first_delta: float | None) -> None:
                latency = clock.monotonic() - began
                provider = candidate.provider.name
                metrics.attempt(provider, candidate.model, outcome, latency, first_delta, usage)
                ledger.record(
                    Entry(
                        clock.now(),
                        call.request_id,
                        call.scope,
                        provider,
                        candidate.model,
                        candidate.level,
                        outcome,
                        error.code if error is not None else None,
                        usage,
                        latency,
                        first_delta,
                    )
                )

            try:
                deltas = await open(call)
            except CauceError as error:
                record("failed", Usage(estimated=True), error, None)
                raise
            except BaseException:
                # The caller left or the attempt was given up: cancellation, not a failure of the provider.
                record("cancelled", Usage(estimated=True), None, None)
                raise
            first_delta = clock.monotonic() - began

            async def ended(outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
                record(outcome, usage, error, first_delta)

            deltas.on_end(ended)
            return deltas

        return opened

    return policy
