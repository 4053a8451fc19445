"""When a stream that lost its connection asks again, and when it gives up."""

import msgspec

from cauce.domain.errors import CauceError
from cauce.ports.chance import Chance

MOST_WAIT = 60.0
"""Seconds that a server may ask us to wait. Who asks for more gets the error told at once."""


class Reconnect(msgspec.Struct, frozen=True):
    """Only reconnects that brought nothing new count: each new delta begins the count again.

    `attempts` are those of a stream whose server was reached once, `unreached` of one whose server never was. The wait doubles
    from `base` to `most` seconds and is shortened by chance, so that a thousand clients do not come back in the same instant.
    A connection without a byte for `idle` seconds is given up: the server sends one every ten.
    """

    attempts: int = 8
    unreached: int = 3
    base: float = 0.25
    most: float = 10.0
    idle: float = 30.0

    def delay(self, failures: int, chance: Chance) -> float:
        """Seconds to wait after so many failures in a row: from half of the step to the whole of it."""
        step = min(self.most, self.base * 2.0 ** (failures - 1))
        return step * (0.5 + 0.5 * chance.random())

    def bound(self, *, reached: bool) -> int:
        """Failures in a row that are borne."""
        return self.attempts if reached else min(self.attempts, self.unreached)


class Lost(Exception):
    """The connection is gone, and the stream may still be there. `error` is what is raised when nobody tries again."""

    def __init__(self, error: CauceError) -> None:
        super().__init__(error.message)
        self.error = error


class Rewritten(Exception):
    """The server does not know our place in the stream: what we have of it is no longer true."""
