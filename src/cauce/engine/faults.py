"""What the newest call of each provider failed with by the provider's own fault. In memory, of this process alone."""

import logging

from cauce.domain.delta import Outcome
from cauce.domain.errors import CauceError, Overloaded, ProviderFailure
from cauce.engine.policies.breaker import hurried
from cauce.ports.provider import Call

_CODES = frozenset({"provider_error", "timeout", "overloaded", "rate_limited", "quota_exceeded"})

logger = logging.getLogger("cauce.calls")


class Faults:
    """Told of every attempt that has ended."""

    def __init__(self) -> None:
        self._kept: dict[str, CauceError] = {}

    def of(self, provider: str) -> CauceError | None:
        """Why `provider` counts as down; None while it does not."""
        return self._kept.get(provider)

    def note(self, call: Call, outcome: Outcome, error: CauceError | None) -> None:
        """An attempt has ended. What its client cut short, what a filter refused of it and what we had no room for says nothing of the provider."""
        provider = call.candidates[0].provider.name
        if error is None:
            if outcome != "cancelled" and self._kept:
                self._kept.pop(provider, None)
        elif isinstance(error, Overloaded):
            return
        elif error.code not in _CODES:
            self._kept.pop(provider, None)
        elif not (isinstance(error, ProviderFailure) and (hurried(call, error) or _of_one_request(error))):
            before = self._kept.get(provider)
            self._kept[provider] = error
            if error.failure == "auth" and (before is None or before.failure != "auth"):
                logger.warning("%s", error.message)


def _of_one_request(error: ProviderFailure) -> bool:
    return error.upstream_status == 403 and error.failure == "transient"
