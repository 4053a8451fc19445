"""Where fresh identifiers come from."""

from typing import Protocol


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """A new identifier, `<prefix>_<unguessable>`: URL-safe, at least 96 bits of randomness."""
        ...
