"""HTTP/1.1 on uvicorn's httptools protocol, with what it leaves open: bounds on headers and on slow clients, and a way to
break a connection whose answer is not complete.

uvicorn's parser takes headers of any size and waits for them for ever; here a head has 64 KB, 200 lines and 15 seconds.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cauce.domain.errors import CauceError, HeadersTooLarge, InvalidRequest, RequestTimeout
from cauce.server.errors import error_body

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers."""

MAX_HEADERS = 200

HEAD_DEADLINE = 15.0
"""Seconds a client has to send its head, from the connection's start or its first byte."""

BODY_DEADLINE = 30.0
"""Seconds a client has to send its body, after its head."""

LINGER = 2.0
"""Seconds a refused connection is still read from, so that its client gets to read why."""

_UPGRADE = re.compile(rb"(\r\n)upgrade\s*:(?=[^\r\n]*\bh2c\b)", re.IGNORECASE)
"""An offer to go on in HTTP/2, which may be ignored (RFC 9110 7.8); the parser would take the request's body for HTTP/2."""

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """See the module. What arrives in one piece, as nearly all requests do, costs no timer."""

    head_deadline = HEAD_DEADLINE
    body_deadline = BODY_DEADLINE

    _part: Literal["head", "body", "none"] = "head"
    """What of a request is being waited for."""
    _head_size = 0
    _unparsed = 0
    _refused = False
    _watchdog: asyncio.TimerHandle | None = None
    _lost: Callable[[], None] | None = None
    _is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._unwatch()
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if b"pgrade" in data and self._part != "body":
            data = _UPGRADE.sub(rb"\1X-Ignored-Upgrade:", data, count=1)
        super().data_received(data)
        if self._refused or self._part == "none":
            return
        if self._part == "head":
            # The parser reports a header once it is whole: what it still holds is counted here.
            self._unparsed += len(data)
            if self._unparsed > 2 * MAX_HEAD:
                self._refuse(HeadersTooLarge(f"a request's head may have {MAX_HEAD} bytes"))
                return
        # A client that begins its next request while it is being answered is not waited for.
        if self._watchdog is None and not (self._part == "head" and self._answering()):
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = "head"
        self._head_size = 0
        self._unparsed = 0
        scope: dict[str, Any] = self.scope  # pyright: ignore[reportAssignmentType]
        scope["extensions"] = {"cauce.abort": self._abort, "cauce.lost": self._when_lost}

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._refused:
            return
        super().on_header(name, value)
        self._grow(len(name) + len(value) + 4)
        if len(self.headers) > MAX_HEADERS:
            self._refuse(HeadersTooLarge(f"a request may have {MAX_HEADERS} headers"))

    def on_headers_complete(self) -> None:
        self._part = "body"
        self._unwatch()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = "none"
        self._unwatch()
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("this is not valid HTTP/1.1"))

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
        return self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _abort(self) -> None:
        self.transport.abort()

    def _when_lost(self, tell: Callable[[], None] | None) -> bool:
        """Have `tell` called when the client goes (None: no longer); returns whether it is still there."""
        self._lost = tell
        return not self._is_lost
