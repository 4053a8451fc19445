"""A streaming answer: when its headers leave, its heartbeats, and how it ends.

Headers are held back until the first delta, for at most `hold` seconds, so that an early failure keeps its HTTP status.
Heartbeats are comment lines without a blank line: some SDKs hand a comment block to their JSON parser. Where even the line
would be too much, and in JSON, they are blank.
"""

import asyncio
from collections.abc import Callable, Sequence
from math import inf

import msgspec

from cauce.server.exchange import Exchange, Header

_UNBUFFERED: tuple[Header, ...] = ((b"cache-control", b"no-store, no-transform"), (b"x-accel-buffering", b"no"))
HEADERS: tuple[Header, ...] = ((b"content-type", b"text/event-stream; charset=utf-8"), *_UNBUFFERED)


class Form(msgspec.Struct, frozen=True):
    """What a streamed body is made of. `opening` goes before the first frame; `beat` makes the nth heartbeat.

    `replaces` and `abandons` are what its readers can take back: see `ports.provider.Call`.
    """

    headers: tuple[Header, ...] = HEADERS
    opening: bytes = b""
    beat: Callable[[int], bytes] = b": hb %d\n".__mod__
    replaces: bool = False
    abandons: bool = False


class _Uptake:
    """Whether a reader takes what is written for it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.written = 0
        self._taken = -inf
        self._since = 0.0

    def idle(self, *, blocked: bool) -> float:
        """Seconds for which nothing was taken although there was something. `blocked`: more waits to be written."""
        now = self._exchange.clock.monotonic()
        unsent = self._exchange.unsent()
        taken = self.written - unsent
        if taken > self._taken or not (unsent or blocked):
            self._taken = max(taken, self._taken)
            self._since = now
        return now - self._since


EVENTS = Form()
BARE_EVENTS = Form(beat=lambda _: b"\r\n")
"""Events for readers that know no comments: Google's SDKs take a comment for JSON, or drop the event it stands before."""
LIST = Form(((b"content-type", b"application/json; charset=utf-8"), *_UNBUFFERED), b"", lambda _: b"\n")
"""One JSON list, its members as they come: white space between them means nothing."""


class EventStream:
    """Use as an async context manager: leaving it without `finish` breaks the connection.

    `headers` tells those known when headers leave; times are seconds.
    """

    def __init__(
        self,
        exchange: Exchange,
        headers: Callable[[], Sequence[Header]],
        *,
        hold: float,
        heartbeat: float,
        form: Form = EVENTS,
    ) -> None:
        self._exchange = exchange
        self._headers = headers
        self._hold = hold
        self._interval = heartbeat
        self._form = form
        self._beats = 0
        self._patience = 0.0
        self._uptake = _Uptake(exchange)
        self._writing = asyncio.Lock()
        self._finished = False
        self._quiet_since = exchange.clock.monotonic()
        self._companion: asyncio.Task[None] | None = None
        self._interim: asyncio.Task[None] | None = None
        self._later: Callable[[], bytes] | None = None

    async def __aenter__(self) -> "EventStream":
        self._companion = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._companion is not None:
            self._companion.cancel()
        if self._interim is not None:
            self._interim.cancel()
        if self._exchange.started and not self._finished:
            await self._exchange.abort()

    def give_up_after(self, seconds: float) -> None:
        """Break the connection when its reader has taken nothing for that long although there was something (0: never)."""
        self._patience = seconds

    async def write(self, data: bytes) -> None:
        """Send `data`; with it, if they have not left yet, the response's headers."""
        exchange = self._exchange
        async with self._writing:
            if not exchange.started:
                data = self._form.opening + data
                await exchange.start(200, (*self._form.headers, *self._headers()), data)
            elif data:
                await exchange.write(data)
            self._uptake.written += len(data)
        self._quiet_since = exchange.clock.monotonic()

    def write_soon(self, frames: Callable[[], bytes]) -> None:
        """Have what `frames` makes written, if anything, as soon as headers have left. Returns at once."""
        if not self._exchange.started:
            self._later = frames
        elif self._interim is None or self._interim.done():
            self._interim = asyncio.create_task(self._write_made(frames))

    async def _write_made(self, frames: Callable[[], bytes]) -> None:
        # Nothing may come between making frames and taking their place in the line of writers.
        if data := frames():
            await self.write(data)

    async def finish(self, data: bytes = b"") -> None:
        """End the body, with `data` as its last piece: its terminal frame has been written with it. Does nothing once it has ended."""
        if self._finished:
            return
        self._finished = True
        exchange = self._exchange
        async with self._writing:
            if exchange.started:
                await exchange.finish(data)
            else:
                data = self._form.opening + data
                await exchange.start(200, (*self._form.headers, *self._headers()), data, more=False)
            self._uptake.written += len(data)

    async def until_taken(self) -> None:
        """Return when the reader has all of an ended body, or has stalled and was sent away."""
        if not self._patience:
            return
        clock = self._exchange.clock
        # What was written just now leaves with the loop's next turn.
        await clock.sleep(0)
        while self._exchange.unsent() and not await self._gave_up():
            await clock.sleep(min(self._interval, self._patience))

    async def _beat(self) -> None:
        """Heartbeats from the moment the request was accepted; also sends the headers when their time has come."""
        clock = self._exchange.clock
        if not self._exchange.started:
            await clock.sleep(self._hold)
            if not self._exchange.started:
                await self._comment()
                if self._later is not None:
                    await self._write_made(self._later)
        while True:
            quiet = clock.monotonic() - self._quiet_since
            if self._patience and await self._gave_up():
                return
            if quiet < self._interval:
                await clock.sleep(self._interval - quiet)
            elif self._writing.locked() or self._exchange.unsent():
                # The reader takes nothing: a heartbeat would wait behind what it has not taken, or split a frame.
                await clock.sleep(self._interval)
            else:
                await self._comment()

    async def _gave_up(self) -> bool:
        """Whether the reader had stalled: then its connection is broken, and it may come back."""
        if self._uptake.idle(blocked=self._writing.locked()) < self._patience:
            return False
        await self._exchange.abort()
        return True

    async def _comment(self) -> None:
        self._beats += 1
        await self.write(self._form.beat(self._beats))
