"""Where chance comes from."""

from typing import Protocol


class Chance(Protocol):
    def random(self) -> float:
        """A number from 0 up to 1, any of them as likely. Not for secrets."""
        ...
