"""The HTTP/1.1 client: a keep-alive pool per provider.

TCP_NODELAY (set by asyncio and uvloop on every TCP socket), no redirects, no cookies, no proxies from the environment,
capped bodies. What breaks becomes `ProviderFailure` or `DeadlineExceeded` here, once; what this process has no room for, `Overloaded`.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from math import inf
from urllib.parse import SplitResult, urlsplit

import msgspec

from cauce.domain.errors import CauceError, DeadlineExceeded, Overloaded, ProviderFailure
from cauce.ports.line import Handshake, Line
from cauce.transport.answer import Answer, Broken
from cauce.transport.connection import Connection
from cauce.transport.dialing import Dialed, Dialer, Place, out_of_files
from cauce.transport.port import Outgoing

KEEP_ALIVE = 75.0
"""Seconds an unused connection is kept."""

STALE = 1.0
"""Seconds after which a server may have given up an unused connection: no keep-alive is shorter."""

WARM_CONNECT = 5.0
"""Seconds that a connection may take that nobody waits for."""

QUIET_ROUNDS = 10
"""Times a connection is kept ready for an upstream that nobody asks anything."""

_MOST_IDLE = 1000
_MOST_HEADS = 256
"""Heads that are kept: a provider has a handful of addresses, a client one per stream."""

_PORTS = {"http": 80, "https": 443}


class _Late(TimeoutError):
    """The total time is over."""


class KeptWarm:
    """See `ports.line.Line`: the connections of `transport` to where `url` leads."""

    def __init__(self, transport: "HTTPTransport", url: str) -> None:
        self._transport = transport
        self._url = url
        self._seen = 0
        self._quiet = 0

    async def warm(self) -> None:
        asked = self._transport.asked
        self._quiet = 0 if asked != self._seen else self._quiet + 1
        self._seen = asked
        if self._quiet <= QUIET_ROUNDS:
            await self._transport.ready(self._url, WARM_CONNECT)

    @property
    def handshake(self) -> Handshake | None:
        return self._transport.handshake


class HTTPTransport:
    """See `port.Transport`. `connections` bounds the requests under way at once; further ones wait (0: no bound).

    `tls` says whom to trust (None: whom the system trusts, which SSL_CERT_FILE can say). Connections with a file descriptor of `kept_below`
    or more are not kept once they are idle.
    """

    def __init__(
        self, provider: str, connections: int = 0, tls: ssl.SSLContext | None = None, *, kept_below: float = inf
    ) -> None:
        self._provider = provider
        self._slots = asyncio.Semaphore(connections) if connections else None
        self._kept_below = kept_below
        self._idle: dict[Place, deque[Connection]] = {}
        self._places: dict[Connection, Place] = {}
        self._heads: dict[tuple[str, str], tuple[Mapping[str, str], Place, bytes]] = {}
        self._dialer = Dialer(tls)
        self._fresh: dict[Connection, Dialed] = {}
        """Connections that no request has gone over."""
        self._handshake: Handshake | None = None
        self._asked = 0

    async def send(self, outgoing: Outgoing) -> Answer:
        if self._slots is None:
            return await self._send(outgoing)
        await self._slots.acquire()
        try:
            answer = await self._send(outgoing)
        except BaseException:
            self._slots.release()
            raise
        answer.on_over(self._slots.release)
        return answer

    async def _send(self, outgoing: Outgoing) -> Answer:
        place, data = self._request(outgoing)

        def explain(error: Exception) -> CauceError:
            return self._explain(error, outgoing)

        while True:
            connection = self._take(place)
            stale = connection is not None and connection.loop.time() - connection.idle_since >= STALE
            if connection is None:
                connection = await self._dial(place, outgoing)
            self._asked += 1
            fresh = self._fresh.pop(connection, None) if self._fresh else None
            began = connection.loop.time() if fresh is not None else 0.0
            answer = connection.ask(data, explain)
            answer.bound(outgoing.total, outgoing.idle, _Late)
            try:
                await answer.head()
                if fresh is not None:
                    self._know(fresh, place, connection.loop.time() - began)
            except (Broken, TimeoutError) as error:
                await answer.aclose()
                # A server that gives up an idle connection just as we take it has not seen the request: ask once more.
                if not (stale and isinstance(error, Broken) and error.early):
                    raise explain(error) from error
            except BaseException:
                await answer.aclose()
                raise
            else:
                return answer

    @property
    def asked(self) -> int:
        """Requests that were sent so far."""
        return self._asked

    @property
    def handshake(self) -> Handshake | None:
        """What the newest connection took; None if there was none."""
        return self._handshake

    async def ready(self, url: str, connect: float) -> None:
        """Have an idle connection to where `url` leads, made within `connect` seconds. Raises `ProviderFailure`."""
        outgoing = Outgoing("GET", url, {}, connect=connect)
        place, _ = self._request(outgoing)
        connection = self._take(place)
        if connection is None:
            connection = await self._dial(place, outgoing)
            connection.idle_since = connection.loop.time()
        # What was taken keeps its age: it is as stale as before.
        self._idle.setdefault(place, deque()).append(connection)

    def line(self, url: str) -> Line:
        return KeptWarm(self, url)

    async def aclose(self) -> None:
        for connection in list(self._places):
            connection.abort()
        self._idle.clear()
        # The loop tells each of them that its connection is lost.
        await asyncio.sleep(0)

    def _request(self, outgoing: Outgoing) -> tuple[Place, bytes]:
        """Where the request goes, and its bytes. A provider's heads differ in their length only, so they are kept."""
        key = (outgoing.method, outgoing.url)
        kept = self._heads.get(key) if outgoing.address is None else None
        if kept is None or kept[0] is not outgoing.headers:
            try:
                url = urlsplit(outgoing.url)
                place = self._place(url, outgoing.address)
            except ValueError as error:
                raise self._failure(f"{_shown(outgoing)} is no http:// or https:// address: {error}") from error
            kept = (outgoing.headers, place, self._head(outgoing, url))
            if outgoing.address is None:
                if len(self._heads) >= _MOST_HEADS:
                    self._heads.clear()
                self._heads[key] = kept
        _, place, head = kept
        if outgoing.body is None:
            return place, head + b"\r\n"
        return place, b"%sContent-Length: %d\r\n\r\n%s" % (head, len(outgoing.body), outgoing.body)

    def _place(self, url: SplitResult, address: str | None) -> Place:
        if url.scheme not in _PORTS or not url.hostname:
            raise self._failure(f"{url.geturl()} is no http:// or https:// address")
        return Place(url.scheme, url.hostname, url.port or _PORTS[url.scheme], address)

    def _head(self, outgoing: Outgoing, url: SplitResult) -> bytes:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = url.netloc.rpartition("@")[2]
        lines = [f"{outgoing.method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in outgoing.headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise self._failure("a header or its API key holds a line break: correct the configuration")
        return ("\r\n".join(lines) + "\r\n").encode("latin-1", "replace")

    def _take(self, place: Place) -> Connection | None:
        """An idle connection to `place`, the one used last."""
        idle = self._idle.get(place)
        if not idle:
            return None
        horizon = idle[-1].loop.time() - KEEP_ALIVE
        while idle and idle[0].idle_since < horizon:
            idle.popleft().abort()
        while idle:
            connection = idle.pop()
            if connection.alive:
                return connection
        return None

    async def _dial(self, place: Place, outgoing: Outgoing) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(outgoing.connect):
                connection, fresh = await self._dialer.dial(place, lambda: Connection(loop, self._released))
        except TimeoutError as error:
            raise self._failure(
                f"no connection to {_shown(outgoing)} within {outgoing.connect:g} s", timeout=True
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise self._failure(
                f"the certificate of {_shown(outgoing)} is not trusted: {error.verify_message}"
            ) from error
        except OSError as error:
            if out_of_files(error):
                # Nobody was asked: it says nothing of the provider.
                raise Overloaded(
                    f"there is no file left to be opened for a connection to {_shown(outgoing)}: try again, and raise the limit "
                    "of open files of this server (ulimit -n)",
                    retry_after=1,
                ) from error
            raise self._failure(f"cannot connect to {_shown(outgoing)}: {error.strerror or error}") from error
        connection.kept = place.address is None and fresh.descriptor < self._kept_below
        self._places[connection] = place
        self._fresh[connection] = fresh
        if self._handshake is None or self._handshake.first_byte is None:
            self._handshake = fresh.handshake
        return connection

    def _know(self, fresh: Dialed, place: Place, first_byte: float) -> None:
        """The first answer over a connection has begun, after `first_byte` seconds."""
        self._handshake = msgspec.structs.replace(fresh.handshake, first_byte=first_byte)
        if place.scheme == "https":
            self._dialer.keep_session(place, fresh.transport)

    def _released(self, connection: Connection, reusable: bool) -> None:
        if not reusable:
            self._places.pop(connection, None)
            self._fresh.pop(connection, None)
            return
        if not connection.kept:
            connection.abort()
            return
        place = self._places[connection]
        connection.idle_since = connection.loop.time()
        idle = self._idle.setdefault(place, deque())
        idle.append(connection)
        if len(idle) > _MOST_IDLE:
            idle.popleft().abort()

    def _explain(self, error: Exception, outgoing: Outgoing) -> CauceError:
        where = _shown(outgoing)
        if isinstance(error, _Late):
            return DeadlineExceeded(f"{where} did not finish within {outgoing.total or 0:g} s")
        if isinstance(error, TimeoutError):
            return self._failure(f"{self._provider} was {error}", timeout=True)
        if isinstance(error, Broken):
            return self._failure(f"the connection to {where} broke: {error}")
        return ProviderFailure(
            f"{self._provider}: {error}", failure="bad_request", provider=self._provider, code="provider_error"
        )

    def _failure(self, message: str, *, timeout: bool = False) -> ProviderFailure:
        code = "timeout" if timeout else None
        return ProviderFailure(message, failure="transient", provider=self._provider, code=code)


def _shown(outgoing: Outgoing) -> str:
    """The address without its query, which may hold secrets."""
    return outgoing.url.partition("?")[0]
