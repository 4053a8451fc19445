"""One deadline for the whole call, whatever happens inside it."""

import msgspec

from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy


def deadline(clock: Clock) -> Policy:
    """Give each call the deadline its request asks for, else that of its most patient candidate."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            if call.deadline is None:
                seconds = call.request.timeout or max([candidate.timeouts.total for candidate in call.candidates])
                call = msgspec.structs.replace(call, deadline=clock.monotonic() + seconds)
            return await open(call)

        return opened

    return policy
