"""An answer while it comes: what its connection tells of it, and whoever reads it."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from cauce.domain.errors import CauceError
from cauce.transport.port import MAX_BODY

if TYPE_CHECKING:
    from cauce.transport.connection import Connection

HIGH_WATER = 1024 * 1024
"""Bytes of a streamed body that wait to be read before the socket is left alone."""


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
