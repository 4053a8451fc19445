"""How providers reach the network: one Protocol and its aiohttp adapter, the only module that knows aiohttp.

Keep-alive pools, TCP_NODELAY (set by asyncio and uvloop on every TCP socket), no redirects, no cookies, no proxies from the
environment, capped bodies. Driver errors become `ProviderFailure` here, once.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from cauce.domain.errors import DeadlineExceeded, ProviderFailure

MAX_BODY = 32 * 1024 * 1024
"""Bytes a plain answer may have."""

KEEP_ALIVE = 75.0
"""Seconds an unused connection is kept."""


class Outgoing(msgspec.Struct, frozen=True):
    """A request. Times are seconds: to `connect`, `idle` between reads of a streamed body, `total` for everything (None: no
    bound). How long the first byte may take is the engine's to say: it cancels."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    connect: float = 5.0
    idle: float | None = None
    total: float | None = None


class Incoming(Protocol):
    """An answer whose body has not been read yet. Exactly one of `read`, `chunks` or `aclose` must be used to its end."""

    status: int
    headers: Mapping[str, str]

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The whole body; closes. Raises `ProviderFailure` when it is larger than `limit` bytes or breaks off."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, each item what was there to read. Closing the generator closes the connection."""
        ...

    async def aclose(self) -> None:
        """Close the connection if the body was not read to its end."""
        ...


class Transport(Protocol):
    async def send(self, outgoing: Outgoing) -> Incoming:
        """Send and wait for the answer's head, whatever its status. Raises `ProviderFailure` and `DeadlineExceeded`."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class AiohttpTransport:
    """One keep-alive pool for one provider. `connections` bounds the sockets open at once (0: no bound)."""

    def __init__(self, provider: str, connections: int = 0) -> None:
        self._provider = provider
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    async def send(self, outgoing: Outgoing) -> "AiohttpIncoming":
        session = self._session or self._connect()
        url = self._urls.get(outgoing.url)
        if url is None:
            # Base URLs come from the configuration, so this holds a handful of entries.
            url = self._urls[outgoing.url] = URL(outgoing.url)
        timeout = aiohttp.ClientTimeout(total=outgoing.total, sock_connect=outgoing.connect, ceil_threshold=86_400)
        try:
            response = await session.request(
                outgoing.method,
                url,
                headers=outgoing.headers,
                data=outgoing.body,
                timeout=timeout,
                allow_redirects=False,
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self.failure(error, outgoing) from error
        return AiohttpIncoming(self, response, outgoing)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def failure(self, error: Exception, outgoing: Outgoing) -> ProviderFailure | DeadlineExceeded:
        """The error a driver's exception stands for."""
        where = outgoing.url.split("?", 1)[0]
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            message = f"no connection to {where} within {outgoing.connect:g} s"
        elif isinstance(error, asyncio.TimeoutError):
            return DeadlineExceeded(f"{where} did not finish within {outgoing.total or 0:g} s")
        elif isinstance(error, aiohttp.ClientConnectorError):
            message = f"cannot connect to {where}: {error.strerror or error}"
        else:
            message = f"the connection to {where} broke: {error or type(error).__name__}"
        return ProviderFailure(
            message,
            failure="transient",
            provider=self._provider,
            code="timeout" if isinstance(error, asyncio.TimeoutError) else None,
        )

    def silent(self, outgoing: Outgoing) -> ProviderFailure:
        """The error of a stream that stalled."""
        return ProviderFailure(
            f"{self._provider} sent nothing for {outgoing.idle or 0:g} s",
            failure="transient",
            provider=self._provider,
            code="timeout",
        )

    def too_large(self, limit: int) -> ProviderFailure:
        """The error of a body over its cap."""
        return ProviderFailure(
            f"the answer of {self._provider} is larger than {limit} bytes",
            failure="bad_request",
            provider=self._provider,
        )

    def _connect(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,
            read_bufsize=256 * 1024,
        )
        return self._session


class AiohttpIncoming:
    """See `Incoming`."""

    __slots__ = ("_outgoing", "_response", "_transport", "headers", "status")

    def __init__(self, transport: AiohttpTransport, response: aiohttp.ClientResponse, outgoing: Outgoing) -> None:
        self._transport = transport
        self._response = response
        self._outgoing = outgoing
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self, limit: int = MAX_BODY) -> bytes:
        content = self._response.content
        parts: list[bytes] = []
        size = 0
        try:
            while part := await content.readany():
                size += len(part)
                if size > limit:
                    raise self._transport.too_large(limit)
                parts.append(part)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._transport.failure(error, self._outgoing) from error
        finally:
            # A body read to its end has given its socket back to the pool already; any other socket is closed here.
            self._response.close()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        content = self._response.content
        watchdog = _Watchdog(self._response, self._outgoing.idle)
        try:
            while chunk := await content.readany():
                watchdog.quiet_since = watchdog.now()
                yield chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if watchdog.barked:
                raise self._transport.silent(self._outgoing) from error
            raise self._transport.failure(error, self._outgoing) from error
        finally:
            watchdog.stop()
            self._response.close()

    async def aclose(self) -> None:
        self._response.close()


class _Watchdog:
    """Closes a response that has been silent too long. One timer per stream, re-armed when it fires: nothing per chunk."""

    __slots__ = ("_idle", "_response", "_timer", "barked", "now", "quiet_since")

    def __init__(self, response: aiohttp.ClientResponse, idle: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.quiet_since = loop.time()
        self.barked = False
        self._response = response
        self._idle = idle
        self._timer = loop.call_later(idle, self._check) if idle is not None else None

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        assert self._idle is not None
        left = self.quiet_since + self._idle - self.now()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._check)
        else:
            self.barked = True
            self._response.close()
