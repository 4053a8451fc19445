"""The transport port: a request goes out, an answer's head comes back, its body follows."""

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import msgspec

from cauce.ports.line import Line

MAX_BODY = 32 * 1024 * 1024
"""Bytes a plain answer may have."""


class Outgoing(msgspec.Struct, frozen=True):
    """A request. Times are seconds: to `connect`, `idle` between reads of a streamed body, `total` for everything (None: no
    bound). How long the first byte may take is the engine's to say: it cancels.

    `address` is an IP address to connect to in place of looking up the host of `url`, which still names it in the Host header
    and to TLS. Such a connection serves this one request.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    connect: float = 5.0
    idle: float | None = None
    total: float | None = None
    address: str | None = None


class Incoming(Protocol):
    """An answer whose body has not been read yet. One of `read`, `chunks` or `aclose` must be used to its end.

    Names in `headers` are in lower case.
    """

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Of several headers with one name the last."""
        ...

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The whole body. Raises `ProviderFailure` when it is larger than `limit` bytes or breaks off."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, each item what was there to read. Closing the generator closes the connection."""
        ...

    def leave(self, seconds: float) -> None:
        """Nothing more is wanted, and the body is about to end: keep the connection if it does within that time."""
        ...

    async def aclose(self) -> None:
        """Close the connection if the body was not read to its end."""
        ...


class Transport(Protocol):
    async def send(self, outgoing: Outgoing) -> Incoming:
        """Send and wait for the answer's head, whatever its status. Raises `ProviderFailure`, `DeadlineExceeded` and, where
        nobody could be asked, `Overloaded`."""
        ...

    def line(self, url: str) -> Line:
        """The connections to where `url` leads."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
