"""HTTP/1.1 on uvicorn's httptools protocol, with what it leaves open: bounds on headers and on slow clients, and a way to
break a connection whose answer is not complete.

uvicorn's parser takes headers of any size and waits for them for ever; here a head has 64 KB, 200 lines and 15 seconds.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cauce.domain.errors import CauceError, HeadersTooLarge, InvalidRequest, RequestTimeout
from cauce.server.cycle import Cycle
from cauce.server.errors import error_body
from cauce.server.exchange import EXTENSION
from cauce.transport.coalescing import Coalescing, outbox_of

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers."""

MAX_HEADERS = 200

HEAD_DEADLINE = 15.0
"""Seconds a client has to send its head, from the connection's start or its first byte."""

BODY_DEADLINE = 30.0
"""Seconds a client has to send its body, after its head."""

LINGER = 2.0
"""Seconds a refused connection is still read from, so that its client gets to read why."""

STALE = 1.0
"""Seconds after which an unused connection may be given up: whoever waited so long has to reckon with it."""

_UPGRADE = re.compile(rb"(\r\n)upgrade\s*:(?=[^\r\n]*\bh2c\b)", re.IGNORECASE)
"""An offer to go on in HTTP/2, which may be ignored (RFC 9110 7.8); the parser would take the request's body for HTTP/2."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """See the module. What arrives in one piece, as nearly all requests do, costs no timer."""

    head_deadline = HEAD_DEADLINE
    body_deadline = BODY_DEADLINE

    _part: Literal["head", "body", "none"] = "head"
    """What of a request is being waited for."""
    _head_size = 0
    _unparsed = 0
    """Bytes that came since something whole was parsed; -1: some of the body has just been."""
    _counts = False
    """The head may be too large: its headers are counted. Else nothing is, on the way of every request."""
    _idle_since = 0.0
    _refused = False
    _watchdog: asyncio.TimerHandle | None = None
    _lost: Callable[[], None] | None = None
    cycle: Any
    """A `Cycle`, once there was a request."""
    app: Any
    parser: Any
    transport: Any
    """A `Coalescing`."""
    connections: Any
    """`Connections` of the server."""
    _is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._outbox = outbox_of(self.loop)
        super().connection_made(Coalescing(transport, self._outbox))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._unwatch()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._outbox.heard += 1
        if b"pgrade" in data and self._part != "body":
            data = _UPGRADE.sub(rb"\1X-Ignored-Upgrade:", data, count=1)
        large = len(data) + self._unparsed > MAX_HEAD
        if large and not self._counts and self._unparsed:
            self._head_size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers or ()])
        self._counts = large
        part, cycle = self._part, self.cycle
        super().data_received(data)
        if self._part == "head":
            self._count_headers()
        if self._refused or self._part == "none":
            return
        # The parser reports a header, or a trailer, once it is whole: what it still holds is counted here.
        if self._unparsed < 0:
            self._unparsed = 0
        elif self._part == "head" and (part == "body" or self.cycle is not cycle):
            # Most of it may be the body of the request before this one.
            self._unparsed += min(len(data), MAX_HEAD)
        else:
            self._unparsed += len(data)
        if self._unparsed > 2 * MAX_HEAD:
            self._refuse(HeadersTooLarge(f"a request's head may have {MAX_HEAD} bytes"))
            return
        # A client that begins its next request while it is being answered is not waited for.
        if self._watchdog is None and not (self._part == "head" and self._answering()):
            self._watch()

    def eof_received(self) -> None:
        # The loop closes the connection, and what is made by then still leaves: its client may only have nothing more to say.
        self.transport.send()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._part = "head"
        self._head_size = 0
        self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "body":
            # A trailer: what a proxy before us has checked, or taken away, must not come in by this door (RFC 9110 6.5.1).
            self._grow(len(name) + len(value) + 4)
            return
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        if self._counts:
            self._grow(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._count_headers()
        self._part = "body"
        self._unparsed = 0
        if self._watchdog is not None:
            self._unwatch()
        if self._refused:
            return
        before = self.cycle
        parser = self.parser
        version = parser.get_http_version()
        cycle = Cycle(
            self,
            self._asgi_scope(version),
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects=self.expect_100_continue,
        )
        self.cycle = cycle
        cycle.asgi["extensions"] = {EXTENSION: cycle}
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            # One request at a time: the next one waits until this one has been answered.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._unparsed = -1
        cycle = self.cycle
        if self._refused or cycle.response_complete:
            return
        if not cycle.body:
            cycle.body = body
        else:
            cycle.body = bytearray(cycle.body) if isinstance(cycle.body, bytes) else cycle.body
            cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.tell()

    def on_message_complete(self) -> None:
        self._part = "none"
        if self._watchdog is not None:
            self._unwatch()
        if not self._refused and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.tell()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_next(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """One timer per connection, set anew when it goes off: nothing per request."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or self._answering():
            # Whoever ends the answer sets it again.
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_next(left)
        else:
            self.transport.close()

    def make_room(self) -> None:
        """Close it if nothing has been asked over it lately: others wait to be let in."""
        if (
            self._part == "none"
            and not self._answering()
            and self.loop.time() - self._idle_since >= STALE
            and not self.transport.is_closing()
        ):
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """uvicorn's, but that `Cycle` says by itself when it is done: nothing is scheduled for that."""
        cycle.task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(cycle.task)

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("this is not valid HTTP/1.1"))

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn's timer for idle connections goes on; see `timeout_keep_alive_handler`."""

    def _await_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _asgi_scope(self, version: str) -> dict[str, Any]:
        url = self.url
        if url.startswith(b"/") and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
        }

    def _count_headers(self) -> None:
        headers: list[Any] = self.headers or []
        if len(headers) > MAX_HEADERS:
            self._refuse(HeadersTooLarge(f"a request may have {MAX_HEADERS} headers"))
        if self._refused:
            headers.clear()

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._refuse(HeadersTooLarge(f"a request's head may have {MAX_HEAD} bytes"))

    def _refuse(self, error: CauceError) -> None:
        """Answer with `error` and close: whatever else the client sends is not read."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._part == "head" and self._answering():
            # The request before this one is still being answered: its answer comes whole, and is the last.
            self.cycle.keep_alive = False
            return
        path = self.url.partition(b"?")[0].decode("latin-1") if self._head_size else ""
        body = msgspec.json.encode(error_body(path, error, ""))
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (error.status, _REASONS[error.status], len(body), body)
        )
        # Closing at once with bytes unread would reset the connection and take the answer with it (RFC 9112 9.6).
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def _watch(self) -> None:
        seconds = self.body_deadline if self._part == "body" else self.head_deadline
        self._watchdog = self.loop.call_later(seconds, self._too_slow, seconds)

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _too_slow(self, seconds: float) -> None:
        self._watchdog = None
        silent = self._part == "head" and not (self._head_size or self._unparsed)
        answered = self._part == "body" and self.cycle.response_started
        if silent or answered:
            self.transport.close()
        else:
            self._refuse(RequestTimeout(f"the request's {self._part} did not arrive within {seconds:g} s"))

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def when_lost(self, tell: Callable[[], None] | None) -> bool:
        """Have `tell` called when the client goes (None: no longer); returns whether it is still there."""
        self._lost = tell
        return not self._is_lost
