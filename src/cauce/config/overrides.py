"""What a provider or a route may say for itself of what `[retry]`, `[breaker]` and `[recovery]` say for all: a route's word goes before
a provider's, and that before the common one, member by member."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from cauce.ports.resilience import Dollars, Pause, Ratio, Recoveries, Results, Span, Tries

S = TypeVar("S", bound=msgspec.Struct)


class RetryOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Members of `RetrySettings`."""

    attempts: Tries | None = None
    base: Pause | None = None
    cap: Pause | None = None


class BreakerOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Members of `BreakerSettings`."""

    enabled: bool | None = None
    window: Span | None = None
    results: Results | None = None
    ratio: Ratio | None = None
    cooldown: Span | None = None
    longest: Span | None = None
    probe: Span | None = None


class RecoveryOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Members of `RecoverySettings`."""

    attempts: Recoveries | None = None
    no_progress: Span | None = None
    age: Span | None = None
    max_cost: Dollars | None = None


def given(overrides: msgspec.Struct) -> dict[str, object]:
    """The members of `overrides` that have a value."""
    return {name: value for name, value in msgspec.structs.asdict(overrides).items() if value is not None}


def laid_over(common: S, overrides: Iterable[msgspec.Struct]) -> S:
    """`common` with what `overrides` say, the last one strongest; `common` itself where they say nothing."""
    members = {name: value for one in overrides for name, value in given(one).items()}
    return msgspec.structs.replace(common, **members) if members else common
