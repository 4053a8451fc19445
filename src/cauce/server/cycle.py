"""One request on a connection and its answer: uvicorn's cycle, with what our routes do on every request said directly.

An ASGI application may use it as any other. Ours finds it in the scope, as the `Line` to its client.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from cauce.server.exchange import Header

if TYPE_CHECKING:
    from cauce.server.protocol import BoundedProtocol

_CLOSE = b"connection: close"
_joined = b": ".join
_CHUNKED: Header = (b"transfer-encoding", b"chunked")
_BODILESS = (204, 304)


class Cycle(RequestResponseCycle):
    """Costs no event, no check of headers and no second write where a request came whole and is answered whole."""

    access_log = False
    chunked_encoding: bool | None = None
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    expected_content_length = 0
    task: asyncio.Task[None]
    _event: asyncio.Event | None = None

    def __init__(self, protocol: "BoundedProtocol", scope: dict[str, Any], *, keep_alive: bool, expects: bool) -> None:
        self.asgi = scope
        self.scope = cast(Any, scope)
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.default_headers = protocol.server_state.default_headers
        self.on_response: Callable[..., None] = protocol.on_response_complete
        self.keep_alive = keep_alive
        self._protocol = protocol
        self.waiting_for_100_continue = expects
        self.body: Any = b""

    async def run_asgi(self, app: Any) -> None:
        """Have `app` answer."""
        try:
            await super().run_asgi(app)
        finally:
            self._protocol.tasks.discard(self.task)

    @property
    def message_event(self) -> asyncio.Event:
        """Made when somebody has to wait: nearly no request does."""
        if self._event is None:
            self._event = asyncio.Event()
        return self._event

    @message_event.setter
    def message_event(self, event: asyncio.Event) -> None:
        self._event = event

    def tell(self) -> None:
        """Something has changed for whoever waits in `receive`."""
        if self._event is not None:
            self._event.set()

    def whole(self) -> bytes | None:
        """The body, if all of it is there and nobody has asked for it; None: `receive` it."""
        body = self.body
        if self.more_body or self.disconnected or self.response_complete or body is None:
            return None
        self.body = None
        return body if type(body) is bytes else bytes(body)

    def when_lost(self, tell: Callable[[], None] | None) -> bool:
        """Have `tell` called when the client goes (None: no longer); returns whether it is still there."""
        return self._protocol.when_lost(tell)

    def abort(self) -> None:
        """Break the connection."""
        self.transport.abort()

    def unsent(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return 0 if self.disconnected or self.transport.is_closing() else self.transport.get_write_buffer_size()

    async def receive(self) -> Any:
        if self.more_body or self.disconnected or self.response_complete or self.body is None:
            if self.waiting_for_100_continue and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.waiting_for_100_continue = False
            if not self.disconnected and not self.response_complete:
                self.flow.resume_reading()
                event = self.message_event
                await event.wait()
                event.clear()
            if self.disconnected or self.response_complete:
                return {"type": "http.disconnect"}
        body, self.body = self.body, b"" if self.more_body else None
        return {"type": "http.request", "body": bytes(body or b""), "more_body": self.more_body}

    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Send a whole answer. `headers` must say its length, unless it has none to speak of."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        head = self._head(status, headers)
        if self.scope["method"] == "HEAD" or status in _BODILESS:
            body = b""
        self.response_started = True
        self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(head + body)
        self.tell()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def begin(self, status: int, headers: Iterable[Header], data: bytes, more: bool) -> None:
        """Send the head of an answer and the first piece of its body; what follows is sent with `send`. `more`: something does."""
        if not more:
            await self.answer(status, [*headers, (b"content-length", b"%d" % len(data))], data)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.scope["method"] == "HEAD":
            self.transport.write(self._head(status, headers))
            return
        self.chunked_encoding = True
        head = self._head(status, [*headers, _CHUNKED])
        self.transport.write(b"%s%x\r\n%s\r\n" % (head, len(data), data) if data else head)

    def _head(self, status: int, headers: Iterable[Header]) -> bytes:
        """Status line and headers."""
        lines = [*map(_joined, self.default_headers), *map(_joined, headers)]
        if _CLOSE in lines:
            self.keep_alive = False
        elif not self.keep_alive or self._protocol.connections.full:
            # Where others wait to be let in, nobody keeps a place.
            self.keep_alive = False
            lines.append(_CLOSE)
        head = b"\r\n".join(lines)
        breaks = len(lines) - 1
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise RuntimeError("a header holds a line break")
        return b"%s%s\r\n\r\n" % (STATUS_LINE[status], head)
