"""Who is asked now, told before it is: below every policy that may still deny the call, so that a denial is no attempt."""

from collections.abc import Awaitable

from cauce.domain.delta import Attempt
from cauce.ports.provider import Call, Deltas, Open, Policy


def attempt() -> Policy:
    """Number the attempt within its request, and tell of it: `call.admitted` and `call.notice`."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            if call.strategy == "same":
                return open(call)
            candidate, course, after = call.candidates[0], call.course, call.after
            course.attempts += 1
            course.level = candidate.level
            course.asked = candidate
            call.admitted()
            call.notice(
                Attempt(
                    course.attempts,
                    candidate.provider.name,
                    candidate.model,
                    candidate.level,
                    strategy=call.strategy,
                    reason=None if after is None else after.message,
                    reason_code=None if after is None else after.code,
                    deployment=candidate.deployment,
                    missed=course.cache == "miss",
                )
            )
            # Nothing is done afterwards: `open` is awaited by whoever called.
            return open(call)

        return opened

    return policy
