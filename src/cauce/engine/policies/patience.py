"""How long a candidate may take until its first delta."""

from collections.abc import Awaitable

from cauce.domain.errors import ProviderFailure
from cauce.engine.duration import in_words
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy

LONG = 300.0
"""Seconds from which on a plain answer needs no timer here."""


def patience(clock: Clock) -> Policy:
    """Give up a candidate that has nothing within `call.patience` seconds: its upstream is closed, and that is a failure of it."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            seconds = call.patience
            if seconds is None or (seconds >= LONG and not call.streamed):
                # Providers keep the bound of the whole call by themselves, and here the two are one.
                return open(call)
            return within(call, seconds)

        async def within(call: Call, seconds: float) -> Deltas:
            try:
                async with clock.timeout(seconds):
                    return await open(call)
            except TimeoutError as late:
                raise ProviderFailure(
                    f"{call.candidate.name} gave no answer within {in_words(seconds)}",
                    failure="transient",
                    provider=call.candidate.provider.name,
                    code="timeout",
                ) from late

        return opened

    return policy
