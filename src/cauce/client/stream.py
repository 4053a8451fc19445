"""A stream that outlives its connections: read on wherever one breaks, each delta handed out once.

    POST /chat/stream/{id}                 until the first frame has come: the id makes it safe to ask again
    GET  /chat/stream/{id}/resume?after=N  from then on, and for a stream that somebody else began
    DELETE /chat/stream/{id}               cancel

| answer | meaning |
|---|---|
| 200 | frames follow; a body that ends before the last frame is a broken connection |
| 204 | everything has been read |
| 408, 425, 429, 500, 502, 503, 504 | ask again, after `Retry-After` if there is one |
| 409 with a `tail` | the server lost what we have: a `Restart` from record 1, and read from the start |
| any other | an error, at once |
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from urllib.parse import quote

import msgspec

from cauce.client.answer import Answer
from cauce.client.connect import Connection
from cauce.client.errors import CallFailed, Unreachable
from cauce.client.progress import Progress, progress_of
from cauce.client.reconnect import MOST_WAIT, Lost, Reconnect, Rewritten
from cauce.client.transcript import Transcript
from cauce.domain.delta import Delta, Failed, Finish, Restart
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.transport import Incoming
from cauce.wire.native.decode import Frame, NativeDecoder

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be another one soon."""

_LAST_BYTES = 0.1
_CANCEL = 5.0
"""Seconds that a server has for its answer to a cancel; it waits up to two for the stream's end."""


class Session(msgspec.Struct, frozen=True):
    """What all streams of a client have in common."""

    connection: Connection
    reconnect: Reconnect
    clock: Clock
    chance: Chance


class Asked(msgspec.Struct, frozen=True):
    """Which stream, from where on. Without a `body` it is only read.

    `ours`: leaving it is to cancel it, since its id was made here and nobody else can come back to it. `headers` are those of its
    start. `total` is in seconds.
    """

    id: str
    body: bytes | None = None
    after: int = 0
    epoch: int | None = None
    ours: bool = False
    headers: Mapping[str, str] | None = None
    total: float | None = None


class Stream:
    """An answer as it comes: an async iterator of deltas, and what has come so far.

        async with client.stream("Where is the Giralda?") as stream:
            async for delta in stream:
                ...

    It ends with its `Finish`; an answer that breaks off for good raises `CallFailed` after what came of it. To leave the block
    before the end cancels the stream if its id was made here; a stream with an id of yours goes on, and can be resumed. With
    `on_disconnect` that is what decides.
    """

    def __init__(self, session: Session, asked: Asked, on_progress: Callable[[Progress], None] | None = None) -> None:
        self.id = asked.id
        self.request_id: str | None = None
        self.progress = Progress("connecting")
        self._session = session
        self._asked = asked
        self._on_progress = on_progress
        self._path = f"/chat/stream/{quote(asked.id, safe='')}"
        self._began = session.clock.monotonic()
        self._cursor: int = asked.after
        self._given: int = asked.after
        self._epoch: int | None = asked.epoch
        self._failures = 0
        self._sent = False
        self._reached = False
        self._cancelled = False
        self._failure: CauceError | None = None
        self._transcript = Transcript(whole=asked.after == 0)
        self._decoder = NativeDecoder()
        self._deltas = self._read()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._transcript.text

    @property
    def reasoning(self) -> str:
        """What the model has thought so far, as far as its provider shows it."""
        return self._transcript.reasoning

    @property
    def partial(self) -> object:
        """The object so far, where JSON was asked for; None before there is one."""
        return self._transcript.partial

    @property
    def cursor(self) -> int:
        """The number of the last delta handed out: with `id` and `epoch`, what another program needs to read on."""
        return self._given

    @property
    def epoch(self) -> int | None:
        """Which writing of the stream `cursor` belongs to."""
        return self._epoch

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Delta:
        try:
            return await anext(self._deltas)
        except CauceError as error:
            self._failure = error
            raise
        except asyncio.CancelledError:
            # Who waited no longer may come back, and is not told that this was the end: it is read on from its place.
            self._deltas = self._read()
            raise

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def answer(self) -> Answer:
        """Read to the end: the whole answer. Raises `CallFailed` for one that broke off."""
        async for _ in self:
            pass
        if self._failure is not None:
            raise self._failure
        if self._transcript.finish is None:
            raise Unreachable("the stream was left before its end")
        seconds = self._session.clock.monotonic() - self._began
        return self._transcript.answer(self.id, self.request_id, seconds)

    async def cancel(self) -> None:
        """Stop the model. The stream then ends with a `Finish` whose outcome is `cancelled`, unless it ended before.

        It may overtake its own start, and may be called from another task, and again. Raises `CallFailed` and `Unreachable` if it was
        not heard: then nothing has changed.
        """
        self._cancelled = True
        try:
            await cancel(self._session, self.id)
        except BaseException:
            self._cancelled = False
            raise

    async def aclose(self) -> None:
        """Leave. Idempotent."""
        await self._deltas.aclose()
        if self._asked.ours and self._sent and self._transcript.finish is None and not self._cancelled:
            self._cancelled = True
            try:
                await _delete(self._session, self.id)
            except (CauceError, Lost):
                # The server has not heard of it, or will find out that nobody reads.
                return

    async def _read(self) -> AsyncGenerator[Delta, None]:
        """Connection after connection, to the end."""
        while True:
            if self._stillborn:
                # Nothing was seen, and the server was told: it is not asked again.
                yield self._end_here()
                return
            try:
                incoming = await self._open()
                if incoming is None:
                    continue
                async with aclosing(incoming.chunks()) as chunks:
                    async for chunk in chunks:
                        for frame in self._decoder.frames(chunk):
                            if isinstance(frame.delta, Finish):
                                incoming.leave(_LAST_BYTES)
                            if self._take(frame):
                                yield frame.delta
                            if self._transcript.finish is not None:
                                return
                raise Lost(Unreachable("the stream ended without its last frame: it was cut off"))
            except ProviderFailure as error:
                await self._wait(Lost(Unreachable(error.message)))
            except Lost as lost:
                await self._wait(lost)
            except Rewritten as rewritten:
                self._begin_again()
                yield Restart(1, str(rewritten))

    async def _open(self) -> Incoming | None:
        """Frames; None when there is nothing to read any more. Raises `Lost`, `Rewritten`, `ProviderFailure`, `CauceError`."""
        session = self._session
        total = self._left()
        starting = not self._reached and self._asked.body is not None
        if not starting:
            epoch = f"&epoch={self._epoch}" if self._epoch is not None and self._cursor else ""
            method, path, body, more = "GET", f"{self._path}/resume?after={self._cursor}{epoch}", None, None
        else:
            method, path, body, more = "POST", self._path, self._asked.body, self._asked.headers
        self._tell(Progress("connecting"))
        self._decoder.reconnected()
        self._sent = True
        idle = session.reconnect.idle
        try:
            async with session.clock.timeout(idle):
                incoming = await session.connection.send(method, path, body, more=more, idle=idle, total=total)
        except TimeoutError as error:
            raise Lost(Unreachable(f"the server was silent for {idle:g} s")) from error
        self.request_id = self.request_id or incoming.headers.get("x-cauce-request-id")
        if incoming.status == 200:
            self._tell(Progress("open"))
            return incoming
        if incoming.status == 204:
            await incoming.aclose()
            self._look_back()
            return None
        raise await self._refused(incoming)

    async def _refused(self, incoming: Incoming) -> Exception:
        error = await self._session.connection.refusal(incoming)
        if isinstance(error, CallFailed) and not self._reached and not self._failures:
            # The server's first word: no stream was begun, so there is none to cancel.
            self._sent = False
        if incoming.status in PASSING:
            return Lost(error)
        if incoming.status == 409 and "tail" in error.facts and self._cursor:
            return Rewritten(error.message)
        return error

    def _take(self, frame: Frame) -> bool:
        """Take the frame in; whether its delta is to be handed out. Raises `Lost` for one that does not follow."""
        if frame.seq is None or frame.seq <= self._cursor:
            # The opening of a resumed stream, or what has been read.
            return False
        if frame.seq != self._cursor + 1:
            raise Lost(Unreachable(f"the stream jumped from record {self._cursor} to {frame.seq}"))
        self._cursor = frame.seq
        self._epoch = frame.told.get("epoch", self._epoch)
        self._failures = 0
        self._reached = True
        self._transcript.feed(frame.seq, frame)
        if (progress := progress_of(frame.delta, frame.told)) is not None:
            self._tell(progress)
        finish = frame.delta if isinstance(frame.delta, Finish) else None
        failure = self._failed(finish.error) if finish is not None and finish.error is not None else None
        if frame.seq <= self._given:
            # Only looked up again: whoever reads has had it, and has been told.
            self._failure = failure
            return False
        self._given = frame.seq
        if failure is not None:
            raise failure
        return True

    def _look_back(self) -> None:
        """Everything was read, before this object was made: read the last frame once more, for `answer`, and hand out none."""
        self._failures += 1
        if self._failures > 1 or not self._cursor:
            raise Unreachable("the server says that the stream is over, and does not show its end")
        self._reached = True
        self._cursor -= 1

    def _begin_again(self) -> None:
        self._failures += 1
        self._reached = True
        self._cursor = self._given = 0
        self._epoch = None
        self._transcript = Transcript(whole=True)
        self._decoder = NativeDecoder()

    async def _wait(self, lost: Lost) -> None:
        """Return when it is time to ask again. Raises the error of `lost` when it is not worth it."""
        session = self._session
        self._failures += 1
        delay = session.reconnect.delay(self._failures, session.chance)
        delay = max(delay, lost.error.retry_after or 0.0)
        left = self._left()
        if self._stillborn:
            return
        worn = self._failures > session.reconnect.bound(reached=self._reached)
        if worn or delay > MOST_WAIT or (left is not None and delay >= left):
            raise lost.error from lost
        self._tell(Progress("reconnecting", attempt=self._failures, wait=delay, reason=lost.error.message))
        await session.clock.sleep(delay)

    @property
    def _stillborn(self) -> bool:
        """Cancelled before anything of it was seen: whatever is asked for now, the server must not begin it."""
        return self._cancelled and not self._reached and self._asked.body is not None

    def _left(self) -> float | None:
        """Seconds that are left. Raises `DeadlineExceeded` when there are none."""
        total = self._asked.total
        if total is None:
            return None
        left = self._began + total - self._session.clock.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the stream did not end within {total:g} s")
        return left

    def _end_here(self) -> Finish:
        finish = Finish("cancelled", outcome="cancelled")
        self._transcript.feed(self._cursor, Frame(None, finish, {"data": ""}))
        self._tell(Progress("done", outcome="cancelled"))
        return finish

    def _failed(self, failed: Failed) -> CallFailed:
        return CallFailed(failed.message, failed.code, retry_after=failed.retry_after, request_id=self.request_id)

    def _tell(self, progress: Progress) -> None:
        # The first is told too, though it is what a stream begins as.
        if progress != self.progress or not self._sent:
            self.progress = progress
            if self._on_progress is not None:
                self._on_progress(progress)


async def cancel(session: Session, id: str) -> None:
    """Cancel the stream `id`, as often as it takes to be heard. That it is unknown or over is no error."""
    failures = 0
    while True:
        try:
            await _delete(session, id)
            return
        except Lost as lost:
            failures += 1
            delay = max(session.reconnect.delay(failures, session.chance), lost.error.retry_after or 0.0)
            if failures > session.reconnect.unreached or delay > MOST_WAIT:
                raise lost.error from lost
            await session.clock.sleep(delay)


async def _delete(session: Session, id: str) -> None:
    """Raises `Lost` and `CauceError`."""
    connection = session.connection
    try:
        async with session.clock.timeout(_CANCEL):
            incoming = await connection.send("DELETE", f"/chat/stream/{quote(id, safe='')}", total=None)
            if incoming.status in (200, 404, 410):
                await incoming.read()
                return
            error = await connection.refusal(incoming)
    except ProviderFailure as error:
        raise Lost(Unreachable(error.message)) from error
    except TimeoutError as error:
        raise Lost(Unreachable(f"the server did not answer a cancel within {_CANCEL:g} s")) from error
    raise Lost(error) if incoming.status in PASSING else error
