"""Identifiers from the system's randomness."""

import os

_BYTES = 12
_STOCK = 128 * _BYTES


class RandomIds:
    """See `ports.ids.Ids`: 96 random bits each, fetched from the system for 128 of them at a time."""

    def __init__(self) -> None:
        self._stock = b""
        self._used = _STOCK

    def new(self, prefix: str) -> str:
        if self._used == _STOCK:
            self._stock, self._used = os.urandom(_STOCK), 0
        start = self._used
        self._used += _BYTES
        return f"{prefix}_{self._stock[start : self._used].hex()}"
