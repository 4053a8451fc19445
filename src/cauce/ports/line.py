"""The connections to an upstream: opened before they are needed, and what making one took."""

from typing import Protocol, runtime_checkable

import msgspec


class Handshake(msgspec.Struct, frozen=True):
    """Seconds that a new connection took: to look up the address and connect; for TLS (None: there is none); from sending its
    first request to the first byte of the answer (None: it was asked nothing yet)."""

    connect: float
    tls: float | None = None
    first_byte: float | None = None


class Line(Protocol):
    async def warm(self) -> None:
        """Have a connection ready, if none is. An upstream that was asked nothing for a while is left alone. Raises `ProviderFailure`."""
        ...

    @property
    def handshake(self) -> Handshake | None:
        """What the newest connection took; None if there was none."""
        ...


@runtime_checkable
class Reached(Protocol):
    """A provider that is reached over connections of its own."""

    @property
    def line(self) -> Line | None:
        """None where there is nothing to connect to."""
        ...
