"""One HTTP/1.1 connection: sockets to asyncio, syntax to httptools (llhttp).

    idle -> asked -> head -> body -> idle        a whole answer gives the connection back
                  \\-> broken                     anything else ends it

An answer without a length ends with its connection; every other answer that ends so is broken.
"""

import asyncio
import zlib
from collections.abc import Callable
from email.utils import formatdate

import httptools

from cauce.domain.errors import CauceError
from cauce.transport.answer import Answer, Broken
from cauce.transport.coalescing import Coalescing, outbox_of

MAX_HEAD = 256 * 1024
"""Bytes the head of an answer may have."""

_NAMES = {
    name.encode("latin-1"): name.lower()
    for plain in (
        "content-type",
        "content-length",
        "transfer-encoding",
        "date",
        "server",
        "connection",
        "content-encoding",
    )
    for name in (plain, plain.title())
}
"""Names of headers that come with nearly every answer, in their usual spellings."""


class Connection(asyncio.Protocol):
    """The socket. `released(connection, reusable)` is told when it has nothing more to do for its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, released: Callable[["Connection", bool], None]) -> None:
        self.loop = loop
        self.idle_since = 0.0
        self.kept = True
        """Whether it is kept for further requests."""
        self.alive = True
        self._released = released
        self._outbox = outbox_of(loop)
        self._bodies: list[bytes] = []
        """Pieces of the body in what is being parsed: streams have one per event, and they are handed on together."""
        self.on_body = self._bodies.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Coalescing | None = None
        self._answer: Answer | None = None
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._heard = False
        self._in_head = True
        self._interim = False
        self._due = 0.0
        self._due_timer: asyncio.TimerHandle | None = None
        self.paused = False

    def await_due(self, due: float) -> None:
        """Have the answer under way expire at `due`. One timer serves many answers: it is set anew only for an earlier time."""
        if self._due_timer is not None:
            if self._due <= due:
                return
            self._due_timer.cancel()
        self._due = due
        self._due_timer = self.loop.call_at(due, self._look_at_due)

    def _look_at_due(self) -> None:
        self._due_timer = None
        answer = self._answer
        if answer is None or answer.due is None:
            return
        if answer.due <= self._due:
            answer.expire()
        else:
            self.await_due(answer.due)

    def ask(self, data: bytes, explain: Callable[[Exception], CauceError]) -> Answer:
        """Send a request; its answer comes with time."""
        assert self._transport is not None and self._answer is None
        self._answer = Answer(self, explain)
        self._heard = False
        self._transport.write(data)
        return self._answer

    def fail(self, answer: Answer | None, error: Exception) -> None:
        """Break, telling `answer` why; nothing happens to a connection that serves another by now."""
        if answer is None or answer is not self._answer:
            return
        self._answer = None
        self.abort()
        answer.fail(error)

    def drop(self, answer: Answer) -> None:
        """Nobody wants the rest of `answer`."""
        if answer is self._answer:
            self._answer = None
            self.abort()

    def abort(self) -> None:
        """Close the socket at once."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    def pause(self, answer: Answer) -> None:
        """Leave what comes in the socket: the reader of `answer` is behind."""
        if answer is self._answer and not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()

    def resume(self, answer: Answer) -> None:
        """Read on for `answer`."""
        if answer is self._answer and self.paused and self._transport is not None:
            self.paused = False
            answer.hear()
            self._transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = Coalescing(transport, self._outbox)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Bytes nobody asked for: the next answer could not be trusted.
            self.abort()
            return
        self._heard = True
        self._outbox.heard += 1
        answer.hear()
        if self._in_head:
            # The parser reports a header once it is whole: what it still holds is counted here.
            self._head_size += len(data)
        try:
            try:
                self._parser.feed_data(data)
            finally:
                self._hand_on()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            cause = error.__context__ if isinstance(error.__context__, zlib.error) else error
            self.fail(answer, Broken(f"sent what is not HTTP/1.1: {cause}"))
        if self._in_head and self._head_size > MAX_HEAD:
            self.fail(answer, Broken(f"sent a head of more than {MAX_HEAD} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        answer, self._answer = self._answer, None
        if answer is not None:
            if answer.until_close and answer.status and exc is None:
                answer.end()
            else:
                reason = str(exc) if exc is not None else "closed before the answer was complete"
                answer.fail(Broken(reason, early=not self._heard))
        self._released(self, False)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._headers = {}
        self._head_size = 0
        self._in_head = True
        if self._answer is None:
            # An answer nobody asked for, behind one that was: the next could not be told from it.
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come after the body; they say nothing we need.
        if self._in_head:
            if len(name) + len(value) > MAX_HEAD:
                raise httptools.HttpParserError(f"a header of more than {MAX_HEAD} bytes")
            known = _NAMES.get(name)
            self._headers[name.decode("latin-1").lower() if known is None else known] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        self._in_head = False
        self._interim = status < 200
        if status >= 400 and "date" not in headers:
            # Its recipient adds the time that it came (RFC 9110 6.6.1): what it says of asking again may count from there.
            headers["date"] = formatdate(usegmt=True)
        if self._answer is not None and not self._interim:
            self._answer.begin(status, headers, bodiless=status in (204, 304))

    def on_message_complete(self) -> None:
        self._hand_on()
        answer = self._answer
        if answer is None or self._interim:
            return
        self.resume(answer)
        self._answer = None
        answer.end()
        if self._parser.should_keep_alive() and self.alive:
            self._released(self, True)
        else:
            self.abort()

    def _hand_on(self) -> None:
        bodies = self._bodies
        if not bodies:
            return
        data = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        bodies.clear()
        if self._answer is not None:
            self._answer.feed(data)
