"""Making connections: addresses are looked up once a minute and raced, TLS sessions are taken up again, and what each step took is known.

Nothing here knows HTTP. A server that is gone from an address that was looked up before is looked up anew.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import msgspec

from cauce.ports.line import Handshake

LOOKED_UP = 60.0
"""Seconds that the addresses of a host are kept: as short as the records of large services are valid."""

STAGGER = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305 5: the Connection Attempt Delay)."""

PROBE_AFTER, PROBE_EVERY, PROBES = 30, 10, 3
"""Seconds of silence after which the kernel asks whether the other side is there, and between such questions; how many it may leave unanswered."""

UNHEARD = 30_000
"""Milliseconds that what was sent may go without a sign of life from the other side (Linux only)."""

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
    descriptor: int


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
        descriptor = connected.fileno()
        context = self._context() if place.scheme == "https" else None
        try:
            transport, protocol = await loop.create_connection(
                make, sock=connected, ssl=context, server_hostname=place.host if context is not None else None
            )
        except BaseException:
            connected.close()
            raise
        took = Handshake(reached - began, loop.time() - reached if context is not None else None)
        return protocol, Dialed(transport, took, descriptor)

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
        try:
            address, connected = await _first(addresses, place.port)
        except asyncio.CancelledError:
            # None of them has answered in time: they may be those of yesterday.
            self._found.pop(place, None)
            raise
        except OSError as error:
            if not out_of_files(error):
                self._found.pop(place, None)
                if known:
                    return await self._connect(place)
            raise
        if address != addresses[0]:
            # For as long as they are kept, the one that works is the first to be tried.
            addresses.remove(address)
            addresses.insert(0, address)
        return connected

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


def out_of_files(error: OSError) -> bool:
    """Whether there was no connection because this process, or the machine, has no file descriptor left."""
    if isinstance(error, socket.gaierror):
        # A resolver that could not open anything says that there is no such name.
        try:
            socket.socket().close()
        except OSError as cause:
            error = cause
    return error.errno in (errno.EMFILE, errno.ENFILE)


async def _looked_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys([str(address[0]) for *_, address in found]))
    # The families take turns, the preferred one first (RFC 8305 4): often one of them as a whole leads nowhere.
    first = ":" in addresses[0]
    families = [[one for one in addresses if (":" in one) is family] for family in (first, not first)]
    return [one for pair in zip_longest(*families) for one in pair if one is not None]


async def _first(addresses: Sequence[str], port: int) -> tuple[str, socket.socket]:
    """The first of `addresses` to take a connection. Each is tried `STAGGER` seconds after the one before, or once one has failed."""
    if len(addresses) == 1:
        return addresses[0], await _connected(addresses[0], port)
    loop = asyncio.get_running_loop()
    left = list(addresses)
    tries: dict[asyncio.Task[socket.socket], str] = {}
    failed: OSError | None = None
    try:
        while left or tries:
            if left:
                address = left.pop(0)
                tries[loop.create_task(_connected(address, port))] = address
            done, _ = await asyncio.wait(tries, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                error = one.exception()
                if error is None:
                    return tries.pop(one), one.result()
                del tries[one]
                if not isinstance(error, OSError):
                    raise error
                failed = error if failed is None or out_of_files(error) else failed
    finally:
        for one in tries:
            one.cancel()
            one.add_done_callback(_let_go)
    assert failed is not None, "a host has an address, or looking it up fails"
    raise failed


def _let_go(one: asyncio.Task[socket.socket]) -> None:
    """Close what a try has connected that is not wanted any more."""
    if not one.cancelled() and one.exception() is None:
        one.result().close()


async def _connected(address: str, port: int) -> socket.socket:
    made = unconnected(address)
    try:
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


def unconnected(address: str) -> socket.socket:
    """A socket for a connection to `address` that notices when the path to it has silently died. Raises `OSError`."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _WATCH:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        # It also ends connections to who is there but reads nothing, as servers of one's own do that are busy with other requests.
        if _USER_TIMEOUT is not None and ipaddress.ip_address(address.partition("%")[0]).is_global:
            made.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, UNHEARD)
    except BaseException:
        made.close()
        raise
    return made


_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_WATCH = [
    (option, value)
    # What Linux calls TCP_KEEPIDLE, macOS calls TCP_KEEPALIVE.
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), PROBE_AFTER),
        (("TCP_KEEPINTVL",), PROBE_EVERY),
        (("TCP_KEEPCNT",), PROBES),
    )
    if (option := next((getattr(socket, name) for name in names if hasattr(socket, name)), None)) is not None
]
"""Socket options of TCP, as far as this platform has them, and their values."""
