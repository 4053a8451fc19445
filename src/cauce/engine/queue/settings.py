"""Settings of the queue, as the configuration fills them."""

from typing import Annotated

import msgspec


class QueueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `length` calls wait (0: none does), whose requests are at most `bytes` together, each at most `wait` seconds."""

    length: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    bytes: Annotated[int, msgspec.Meta(gt=0)] = 268_435_456
    wait: Annotated[float, msgspec.Meta(gt=0)] = 60.0
