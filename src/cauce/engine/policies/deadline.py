"""One deadline for the whole call, whatever happens inside it."""

from collections.abc import Awaitable

import msgspec

from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy


def deadline(clock: Clock) -> Policy:
    """Give each call the deadline its request asks for, else that of its most patient candidate."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            if call.deadline is None:
                seconds = call.request.timeout or max([candidate.timeouts.total for candidate in call.candidates])
                call = msgspec.structs.replace(call, deadline=clock.monotonic() + seconds)
            return open(call)

        return opened

    return policy
