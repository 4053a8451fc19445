"""Settings of recovery, as the configuration fills them."""

from typing import Annotated

import msgspec


class RecoverySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer is gone on with at most `attempts` times, and only while it made progress within the last `no_progress` seconds, is no
    older than `age` seconds, and its attempts have cost less than `max_cost` dollars together (0: any)."""

    attempts: Annotated[int, msgspec.Meta(ge=0)] = 10
    no_progress: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    age: Annotated[float, msgspec.Meta(gt=0)] = 1800.0
    max_cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
