"""What a candidate's health is measured by: when its first delta came, how many calls it has under way, that it failed."""

from cauce.domain.errors import ProviderFailure, says_unwell
from cauce.engine.health import Health
from cauce.engine.policies.breaker import hurried
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy


def health(clock: Clock, known: Health) -> Policy:
    """Write down in `known` how each candidate does."""
    monotonic = clock.monotonic

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            vitals = known.of(call.candidate)
            vitals.under_way += 1
            began = monotonic()
            try:
                deltas = await open(call)
            except BaseException as error:
                vitals.under_way -= 1
                if isinstance(error, ProviderFailure) and says_unwell(error) and not hurried(call, error):
                    vitals.failed()
                raise
            vitals.answered(began, streamed=call.streamed)
            deltas.on_end(vitals.ended)
            return deltas

        return opened

    return policy
