"""What an upstream says it will still take."""

import msgspec


class Left(msgspec.Struct, frozen=True):
    """`left` units for the next `seconds`."""

    left: float
    seconds: float


class Headroom(msgspec.Struct, frozen=True):
    """As the headers of an answer tell it. None: nothing was said."""

    requests: Left | None = None
    tokens: Left | None = None
