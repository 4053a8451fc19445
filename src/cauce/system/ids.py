"""Identifiers from the system's randomness."""

import os


class RandomIds:
    """See `ports.ids.Ids`: 96 random bits each."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{os.urandom(12).hex()}"
