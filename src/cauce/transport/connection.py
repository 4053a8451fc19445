"""One HTTP/1.1 connection and the answers that come over it: sockets to asyncio, syntax to httptools (llhttp).

    idle -> asked -> head -> body -> idle        a whole answer gives the connection back
                  \\-> broken                     anything else ends it

An answer without a length ends with its connection; every other answer that ends so is broken.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol, cast

import httptools

from cauce.domain.errors import CauceError
from cauce.transport.port import MAX_BODY

MAX_HEAD = 256 * 1024
"""Bytes the head of an answer may have."""

HIGH_WATER = 1024 * 1024
"""Bytes of a streamed body that wait to be read before the socket is left alone."""


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


class _Inflate(Protocol):
    """What `zlib.decompressobj` makes."""

    @property
    def eof(self) -> bool: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


class Broken(Exception):
    """The connection ended before its answer did. `early`: before the first byte of it."""

    def __init__(self, reason: str, *, early: bool = False) -> None:
        super().__init__(reason)
        self.early = early


class Answer:
    """See `port.Incoming`. `explain` turns what broke into the error that callers know."""

    status = 0
    headers: Mapping[str, str] = {}
    complete = False
    until_close = False
    due: float | None = None
    """When the total time is over, on the loop's clock."""
    _waiter: "asyncio.Future[None] | None" = None
    _waiting = 0
    _limit = HIGH_WATER
    _whole = False
    _error: Exception | None = None
    _inflate: _Inflate | None = None
    _heard = 0.0
    _idle: float | None = None
    _late: type[Exception] = TimeoutError
    _over: Callable[[], None] | None = None
    _left = False

    def __init__(self, connection: "Connection", explain: Callable[[Exception], CauceError]) -> None:
        self._connection = connection
        self._explain = explain
        self._loop = connection.loop
        self._parts: list[bytes] = []
        self._timers: list[asyncio.TimerHandle] = []

    def on_over(self, over: Callable[[], None]) -> None:
        """Have `over` called once, when nothing more will be read."""
        self._over = over

    def bound(self, total: float | None, idle: float | None, late: type[Exception]) -> None:
        """Break with `late` after `total` seconds; break a streamed body after `idle` seconds of silence."""
        self._idle = idle
        self._heard = self._loop.time()
        if total is not None:
            self._late = late
            self.due = self._heard + total
            self._connection.await_due(self.due)

    def expire(self) -> None:
        """The total time is over."""
        self._connection.fail(self, self._late())

    async def head(self) -> None:
        """Wait for status and headers. Raises `Broken` or what `bound` was given."""
        while not self.status:
            await self._wake()

    async def read(self, limit: int = MAX_BODY) -> bytes:
        self._whole, self._limit = True, limit
        # What came before this call may have filled the buffer of a reader that takes its time.
        self._connection.resume(self)
        try:
            while not self.complete:
                if self._waiting > limit:
                    raise self._explain(ValueError(f"the answer is larger than {limit} bytes"))
                await self._wake()
        except (Broken, TimeoutError) as error:
            raise self._explain(error) from error
        finally:
            self._let_go()
        if self._waiting > limit:
            raise self._explain(ValueError(f"the answer is larger than {limit} bytes"))
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        self._watch()
        try:
            while True:
                if self._parts:
                    chunk = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                    self._parts.clear()
                    self._waiting = 0
                    self._connection.resume(self)
                    yield chunk
                elif self.complete:
                    return
                else:
                    await self._wake()
        except (Broken, TimeoutError) as error:
            raise self._explain(error) from error
        finally:
            self._let_go()

    async def aclose(self) -> None:
        self._let_go()

    def leave(self, seconds: float) -> None:
        self._left = True
        self._forget_timers()
        if not self.complete:
            self._timers.append(
                self._loop.call_later(seconds, self._connection.fail, self, Broken("its end did not come"))
            )

    def begin(self, status: int, headers: dict[str, str], *, bodiless: bool) -> None:
        """The head has come."""
        self.status = status
        self.headers = headers
        has_length = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
        self.until_close = not has_length and not bodiless
        encoding = headers.get("content-encoding", "").lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            # We ask for none; some servers compress all the same. 32: gzip or zlib, whichever the data says.
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._ring()

    def feed(self, data: bytes) -> None:
        """A piece of the body has come."""
        if self._left:
            return
        if self._inflate is not None:
            data = self._inflate.decompress(data, MAX_BODY)
            if self._inflate.unconsumed_tail:
                raise zlib.error(f"a piece of the body unpacks to more than {MAX_BODY} bytes")
        self._parts.append(data)
        self._waiting += len(data)
        if not self._whole:
            if self._waiting > HIGH_WATER:
                self._connection.pause(self)
            self._ring()
        elif self._waiting > self._limit:
            self._ring()

    def end(self) -> None:
        """The body has come whole."""
        self._forget_timers()
        if self._inflate is not None and not self._inflate.eof and not self._left:
            self._error = Broken("its compressed body is cut")
        else:
            self.complete = True
        self._ring()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._forget_timers()
        self._error = error
        self._ring()

    def hear(self) -> None:
        """Bytes came: the upstream is alive."""
        self._heard = self._loop.time()

    async def _wake(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._parts:
            raise self._error

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self) -> None:
        """One timer per stream, set anew when it goes off: nothing per chunk."""
        if self._idle is not None:
            self.hear()
            self._timers.append(self._loop.call_later(self._idle, self._check))

    def _check(self) -> None:
        assert self._idle is not None
        if self._connection.paused:
            # It is we who do not listen.
            self.hear()
        left = self._heard + self._idle - self._loop.time()
        if left > 0:
            self._timers.append(self._loop.call_later(left, self._check))
        else:
            self._connection.fail(self, TimeoutError(f"silent for {self._idle:g} s"))

    def _forget_timers(self) -> None:
        """A connection outlives its answers: what was meant for one must not reach the next."""
        self.due = None
        if self._timers:
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()

    def _let_go(self) -> None:
        if not self._left:
            self._forget_timers()
            if not self.complete:
                self._connection.drop(self)
        over, self._over = self._over, None
        if over is not None:
            over()


class Connection(asyncio.Protocol):
    """The socket. `released(connection, reusable)` is told when it has nothing more to do for its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, released: Callable[["Connection", bool], None]) -> None:
        self.loop = loop
        self.idle_since = 0.0
        self.alive = True
        self._released = released
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
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
        # uvloop's transports are no subclasses of asyncio's, only alike.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Bytes nobody asked for: the next answer could not be trusted.
            self.abort()
            return
        self._heard = True
        answer.hear()
        if self._in_head:
            # The parser reports a header once it is whole: what it still holds is counted here.
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
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
        if self._answer is not None and not self._interim:
            self._answer.begin(status, headers, bodiless=status in (204, 304))

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(body)

    def on_message_complete(self) -> None:
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
