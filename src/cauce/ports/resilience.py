"""What the failures of a candidate are met with, as the configuration says it: it is asked again, left alone, its broken answers are
gone on with."""

from typing import Annotated

import msgspec

Tries = Annotated[int, msgspec.Meta(ge=1, le=10)]
Pause = Annotated[float, msgspec.Meta(ge=0)]
"""Seconds, or none."""
Span = Annotated[float, msgspec.Meta(gt=0)]
"""Seconds."""
Results = Annotated[int, msgspec.Meta(ge=1)]
Ratio = Annotated[float, msgspec.Meta(gt=0, le=1)]
Recoveries = Annotated[int, msgspec.Meta(ge=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]


class RetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`attempts` of one candidate, the first included. `base` and `cap` are seconds: before the nth retry it waits a random time up
    to `base` * 2^(n-1), at most `cap`."""

    attempts: Tries = 3
    base: Pause = 0.25
    cap: Pause = 8.0


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times are in seconds. It opens when `ratio` of at least `results` results of the last `window` are failures, for `cooldown`,
    which doubles with each probe that fails, up to `longest`. A probe without a first delta after `probe` has failed."""

    enabled: bool = True
    window: Span = 30.0
    results: Results = 5
    ratio: Ratio = 0.5
    cooldown: Span = 5.0
    longest: Span = 60.0
    probe: Span = 10.0


class RecoverySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer is gone on with at most `attempts` times, and only while it made progress within the last `no_progress` seconds, is no
    older than `age` seconds, and its attempts have cost less than `max_cost` dollars together (0: any). What has no price costs nothing.
    """

    attempts: Recoveries = 20
    no_progress: Span = 300.0
    age: Span = 1800.0
    max_cost: Dollars = 2.0


class Resilience(msgspec.Struct, frozen=True):
    """What holds for one candidate. None: what holds for all."""

    retry: RetrySettings | None = None
    breaker: BreakerSettings | None = None
    recovery: RecoverySettings | None = None
    route: str = ""
    """The route whose own circuit this candidate has, since it says of breakers what others do not; empty: the one that all others share."""


COMMON = Resilience()
