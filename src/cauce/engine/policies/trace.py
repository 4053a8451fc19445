"""What happened to a request, for whoever reads the log."""

import logging

from cauce.domain.errors import CauceError
from cauce.ports.provider import Call, Deltas, Open, Policy

logger = logging.getLogger("cauce.calls")


def trace() -> Policy:
    """Log calls that nobody could answer, with their request id. Costs nothing on calls that were answered."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            try:
                return await open(call)
            except CauceError as error:
                logger.warning(
                    "%s: no answer for model %r: %s (%s)",
                    call.request_id,
                    call.request.model,
                    error.message,
                    error.code,
                )
                raise

        return opened

    return policy
