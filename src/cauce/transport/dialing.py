"""Making connections: addresses are looked up once a minute, TLS sessions are taken up again, and what each step took is known.

Nothing here knows HTTP. A server that is gone from an address that was looked up before is looked up anew.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from cauce.ports.line import Handshake

LOOKED_UP = 60.0
"""Seconds that the addresses of a host are kept: as short as the records of large services are valid."""

MOST_SESSIONS = 64
"""TLS sessions that are kept: one per host."""

P = TypeVar("P", bound=asyncio.Protocol)


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads: what a connection is good for. `address`: see `port.Outgoing`."""

    scheme: str
    host: str
    port: int
    address: str | None = None


class Dialed(msgspec.Struct, frozen=True):
    """A connection that was made, and what it took."""

    transport: asyncio.BaseTransport
    handshake: Handshake


class _Resuming(ssl.SSLContext):
    """A client's context that takes up the last session with a host (RFC 8446 2.2): asyncio has no way to be handed one."""

    sessions: OrderedDict[str, ssl.SSLSession]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        kept = self.sessions.get(server_hostname) if isinstance(server_hostname, str) else None
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or kept)


class Dialer:
    """`tls` says whom to trust (None: whom the system trusts, which SSL_CERT_FILE can say)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._sessions: OrderedDict[str, ssl.SSLSession] = OrderedDict()
        self._found: dict[Place, tuple[float, asyncio.Task[list[str]]]] = {}

    async def dial(self, place: Place, make: Callable[[], P]) -> tuple[P, Dialed]:
        """A connection to `place`. Raises `OSError`, of which `ssl.SSLError` is one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        connected = await self._connect(place)
        reached = loop.time()
        context = self._context() if place.scheme == "https" else None
        try:
            transport, protocol = await loop.create_connection(
                make, sock=connected, ssl=context, server_hostname=place.host if context is not None else None
            )
        except BaseException:
            connected.close()
            raise
        took = Handshake(reached - began, loop.time() - reached if context is not None else None)
        return protocol, Dialed(transport, took)

    def keep_session(self, place: Place, transport: asyncio.BaseTransport) -> None:
        """Take up the session of `transport` again the next time. Tickets come behind the handshake: call it once something was read."""
        secured: Any = transport.get_extra_info("ssl_object")
        session: ssl.SSLSession | None = getattr(secured, "session", None)
        if session is not None and session.has_ticket:
            self._sessions[place.host] = session
            self._sessions.move_to_end(place.host)
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)

    async def _connect(self, place: Place) -> socket.socket:
        known = place in self._found
        addresses = await self._addresses(place)
        failed: OSError | None = None
        for address in addresses:
            try:
                return await _connected(address, place.port)
            except OSError as error:
                failed = failed or error
        self._found.pop(place, None)
        if known:
            return await self._connect(place)
        assert failed is not None, "a host has an address, or looking it up fails"
        raise failed

    async def _addresses(self, place: Place) -> list[str]:
        host = place.address or place.host
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        loop = asyncio.get_running_loop()
        found = self._found.get(place)
        if found is None or loop.time() >= found[0]:
            # Of many that connect at once, one looks it up.
            found = self._found[place] = (loop.time() + LOOKED_UP, loop.create_task(_looked_up(host, place.port)))
        try:
            return await asyncio.shield(found[1])
        except OSError:
            self._found.pop(place, None)
            raise

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # As `ssl.create_default_context` makes one.
            made = _Resuming(ssl.PROTOCOL_TLS_CLIENT)
            made.load_default_certs()
            if sys.version_info >= (3, 13):
                made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
            made.sessions = self._sessions
            self._tls = made
        return self._tls


async def _looked_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys([str(address[0]) for *_, address in found]))


async def _connected(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made
