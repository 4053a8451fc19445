"""What happened to a request, for whoever reads the log, and how good the answers are, for whoever counts them."""

import logging

from cauce.domain.delta import Level
from cauce.domain.errors import CauceError
from cauce.ports.provider import Call, Deltas, Open, Policy

LEVELS: tuple[Level, ...] = ("primary", "fallback", "cache", "offline")
"""From the best to the last resort."""

logger = logging.getLogger("cauce.calls")


def trace(answers: dict[Level, int] | None = None) -> Policy:
    """Log calls that nobody could answer, with their request id. Those that were answered are counted in `answers`, by level."""
    counts: dict[Level, int] = {} if answers is None else answers
    counts.update(dict.fromkeys(LEVELS, 0))

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            try:
                deltas = await open(call)
            except CauceError as error:
                logger.warning(
                    "%s: no answer for model %r: %s (%s)",
                    call.request_id,
                    call.request.model,
                    error.message,
                    error.code,
                )
                raise
            counts[call.course.level] += 1
            return deltas

        return opened

    return policy
