"""One deadline for the whole call, whatever happens inside it."""

from collections.abc import Awaitable

import msgspec

from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy, Timeouts


def seconds_of(call: Call) -> float:
    """The time of the whole call: what its request asks for, else that of its most patient candidate."""
    totals = [candidate.timeouts.total for candidate in call.candidates]
    return call.request.timeout or max(totals, default=Timeouts().total)


def deadline(clock: Clock) -> Policy:
    """Give each call its deadline, but for those that have one: another process began them."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            if call.deadline is None:
                call = msgspec.structs.replace(call, deadline=clock.monotonic() + seconds_of(call))
            return open(call)

        return opened

    return policy
