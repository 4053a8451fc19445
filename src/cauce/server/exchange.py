"""One HTTP request and its answer, over plain ASGI: what hot routes use instead of a framework's request and response."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote_to_bytes

from cauce.domain.errors import InvalidRequest, PayloadTooLarge
from cauce.domain.request import Scope
from cauce.ports.clock import Clock

ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_DRAIN_FACTOR = 4
"""A body up to this many times the limit is read to its end, so that its sender gets to see the 413."""

_NO_EXTENSIONS: dict[str, Any] = {}
EXTENSION = "cauce"
"""The ASGI extension under which our own protocol says what it can do beyond ASGI: `Line`."""

T = TypeVar("T")


class ClientGone(Exception):
    """The client has left; there is nobody to answer."""


class Line(Protocol):
    """What a server of ours knows of the client's connection, and may do with it. Other servers have none: everything works without."""

    def whole(self) -> bytes | None:
        """The body, if all of it is there and nobody has asked for it; None: receive it."""
        ...

    def when_lost(self, tell: Callable[[], None] | None) -> bool:
        """Have `tell` called when the client goes (None: no longer); returns whether it is still there."""
        ...

    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Send a whole answer. `headers` must say its length, unless it has none to speak of."""
        ...

    async def begin(self, status: int, headers: Iterable[Header], data: bytes, more: bool) -> None:
        """Send the head of an answer and the first piece of its body. `more`: something follows."""
        ...

    def abort(self) -> None:
        """Break the connection."""
        ...

    def unsent(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        ...


class Exchange:
    """`headers` of the answer that every route adds to: request id, CORS. `began` is a monotonic time in seconds."""

    __slots__ = (
        "_line",
        "_receive",
        "_send",
        "asgi",
        "began",
        "clock",
        "headers",
        "method",
        "path",
        "request_headers",
        "request_id",
        "scope",
        "started",
    )

    def __init__(self, asgi: ASGIScope, receive: Receive, send: Send, clock: Clock, request_id: str) -> None:
        self.asgi = asgi
        self._line: Line | None = asgi.get("extensions", _NO_EXTENSIONS).get(EXTENSION)
        self._receive = receive
        self._send = send
        self.clock = clock
        self.began = clock.monotonic()
        self.method: str = asgi["method"]
        self.path: str = asgi["path"]
        self.request_headers: dict[bytes, bytes] = dict(asgi["headers"])
        self.request_id = request_id
        self.headers: list[Header] = [(b"x-cauce-request-id", request_id.encode())]
        if self.path.startswith("/v1/"):
            # Where the official SDKs look for it.
            self.headers.append((b"x-request-id", request_id.encode()))
            if b"anthropic-version" in self.request_headers or self.path.startswith("/v1/messages"):
                self.headers.append((b"request-id", request_id.encode()))
        self.scope = Scope()
        self.started = False

    def check_path(self) -> None:
        """Servers decode what is no UTF-8 to one and the same sign, so that two ids would be one. Raises `InvalidRequest`."""
        if self.path.isascii():
            return
        raw: bytes | None = self.asgi.get("raw_path")
        if raw is None:
            # Which of the two it was only the server knows.
            readable = "\ufffd" not in self.path
        else:
            try:
                unquote_to_bytes(raw).decode()
                readable = True
            except UnicodeDecodeError:
                readable = False
        if not readable:
            raise InvalidRequest("the path is not UTF-8: percent-encode the bytes of its letters in UTF-8")

    def named(self, prefix: str) -> str:
        """An id for what this request makes, as `Ids` give them: with the random part of its own id, so that one tells the other."""
        return prefix + self.request_id[self.request_id.rfind("_") :]

    def header(self, name: bytes) -> str:
        """A request header, empty if absent. `name` is in lower case."""
        value = self.request_headers.get(name)
        return value.decode("latin-1") if value is not None else ""

    def query(self, name: str) -> str | None:
        """A query parameter, None if absent."""
        values = parse_qs(self.asgi["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
        return values[-1] if values else None

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `PayloadTooLarge`, and `ClientGone` when it breaks off."""
        if self._line is not None and (there := self._line.whole()) is not None:
            if len(there) > limit:
                raise self._too_large(limit)
            return there
        declared = self.request_headers.get(b"content-length")
        size = int(declared) if declared is not None and declared.isdigit() else 0
        too_large = size > limit
        if too_large and (size > limit * _DRAIN_FACTOR or b"expect" in self.request_headers):
            raise self._too_large(limit)
        parts: list[bytes] = []
        received = 0
        while received <= limit * _DRAIN_FACTOR:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            received += len(part)
            too_large = too_large or received > limit
            if not too_large:
                parts.append(part)
            if not message.get("more_body", False):
                break
        if too_large:
            raise self._too_large(limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`'s result; cancels it and raises `ClientGone` when the client leaves first. The body must have been read."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        unwatch = self._watch(leave)
        if unwatch is None:
            work.close()
            raise ClientGone
        try:
            return await work
        except asyncio.CancelledError:
            # Only our own cancel is answered here; one from outside (shutdown) goes on.
            if gone and task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            unwatch()

    def _watch(self, leave: Callable[[], None]) -> Callable[[], object] | None:
        """Have `leave` called when the client goes; returns what ends that, None if it has gone already.

        Our own protocol tells without a task.
        """
        if (line := self._line) is not None:
            return (lambda: line.when_lost(None)) if line.when_lost(leave) else None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            leave()

        return asyncio.create_task(watch()).cancel

    async def respond(self, status: int, body: bytes, content_type: bytes, *headers: Header) -> None:
        """Send a whole answer."""
        self.started = True
        told = [*_describing(status, body, content_type), *self.headers, *headers]
        if self._line is not None:
            await self._line.answer(status, told, body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": told})
        await self._send({"type": "http.response.body", "body": body})

    async def respond_json(self, status: int, body: bytes, *headers: Header) -> None:
        """Send a whole answer of JSON."""
        await self.respond(status, body, b"application/json", *headers)

    async def start(self, status: int, headers: Iterable[Header], data: bytes, *, more: bool = True) -> None:
        """Send status and headers of an answer whose body comes in pieces, with the first of them: one write for both, where we may."""
        self.started = True
        told = [*headers, *self.headers]
        if self._line is not None:
            await self._line.begin(status, told, data, more)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": told})
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body. Waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes) -> None:
        """End the body, with `data` as its last piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def abort(self) -> None:
        """Break the connection without ending the body: the answer is not complete, and nobody may take it for that."""
        if self._line is not None:
            self._line.abort()
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def unsent(self) -> int:
        """Bytes that were written and that the client has not taken; 0 where that is not known."""
        return 0 if self._line is None else self._line.unsent()

    def _too_large(self, limit: int) -> PayloadTooLarge:
        self.headers.append((b"connection", b"close"))
        return PayloadTooLarge(f"the request body is larger than {limit} bytes: send less, or raise [server] max_body")


def _describing(status: int, body: bytes, content_type: bytes) -> tuple[Header, ...]:
    """Headers about the body; a 204 has none to speak of (RFC 9110 8.6)."""
    if status == 204:
        return ()
    return (b"content-type", content_type), (b"content-length", b"%d" % len(body))
