"""Answers out of the log of a stream. A connection is one reader of it: it attaches, is sent what is committed, and detaches.

First read, reconnect, second tab and the plain answer are the same loop over the same records.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol
from urllib.parse import quote

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Delta, Failed, Finish, Restart, Status
from cauce.domain.errors import CauceError, Conflict
from cauce.domain.stream import Head, Record
from cauce.domain.surviving import surviving
from cauce.engine.compose import collect
from cauce.engine.streams.options import options_of
from cauce.engine.streams.tail import gathered
from cauce.ports.provider import Deltas
from cauce.server.event_stream import EVENTS, EventStream, Form
from cauce.server.exchange import Exchange, Header
from cauce.server.provenance import origin
from cauce.server.services import Services

_SAFE = "!$&'()*+,;=:@"
_UNCOUNTED = (Status, Attempt, Restart, Finish)
"""Records that are nothing of an answer: while there are no others, an error keeps its HTTP status."""


class Projection(Protocol):
    """Records of a log in, a wire's frames out, from record 1 on. `seq` is the number of the last record that was fed."""

    @property
    def seq(self) -> int: ...

    def feed(self, records: Sequence[Record]) -> bytes:
        """The frames of `records` that its reader has not had, ready to be written at once."""
        ...


class Manner(msgspec.Struct, frozen=True):
    """How a logged stream is shown. `wire` is the one of its frames, for the address it can be read on at.

    `hold`: seconds the headers wait for the first of the answer (None: `[streams] hold_headers`). Until they have left, an answer that
    fails is an HTTP error of its own.
    """

    wire: str = "native"
    form: Form = EVENTS
    hold: float | None = None


AS_EVENTS = Manner()


class LoggedFailure(CauceError):
    """How a stream failed, as its log says it. `repeated`: it had failed before it was asked for, and no waiting changes that."""

    def __init__(self, failed: Failed, *, repeated: bool = False) -> None:
        super().__init__(failed.message, retry_after=None if repeated else failed.retry_after)
        self.code = failed.code
        self.lasting = repeated


def addresses(head: Head, wire: str = "native") -> tuple[Header, ...]:
    """The headers that say which stream this is and where it can be read on."""
    # Header values are Latin-1 at best; ids may be in any script.
    name = quote(head.key.id, safe=_SAFE).encode()
    query = b"" if wire == "native" else b"?wire=" + wire.encode()
    return (b"x-cauce-stream-id", name), (b"location", b"/chat/stream/" + name + b"/resume" + query)


async def follow(
    exchange: Exchange, services: Services, head: Head, projection: Projection, manner: Manner = AS_EVENTS
) -> None:
    """Answer with the frames of the stream. Raises `LoggedFailure` while no header has left, and `ClientGone`."""
    following = _Following(exchange, services, head, projection, manner)
    reader = services.streams.attach(head.key)
    try:
        await exchange.while_connected(following.run(reader))
    finally:
        services.streams.detach(head.key, reader)
    # From here on the connection may carry its next request.
    await following.stream.until_taken()


async def records_of(exchange: Exchange, services: Services, head: Head) -> Sequence[Record]:
    """All records of the stream, once it has ended, without what was taken back. Raises `ClientGone`."""
    reader = services.streams.attach(head.key)

    async def work() -> Sequence[Record]:
        return surviving(await gathered(services.streams.follow(head.key, 0)))

    try:
        return await exchange.while_connected(work())
    finally:
        services.streams.detach(head.key, reader)


async def completion_of(records: Sequence[Record], *, parts: bool = True, repeated: bool = False) -> Completion:
    """The answer in `records`. Raises `LoggedFailure` if it failed, `Conflict` if it was cancelled.

    `parts`: one that is incomplete is an answer too; else that is its failure. `repeated` as in `LoggedFailure`.
    """
    deltas: Sequence[Delta] = [record.delta for record in records]
    finish = deltas[-1]
    assert isinstance(finish, Finish), "all records of an ended stream"
    if finish.outcome == "failed":
        raise LoggedFailure(_failed(finish), repeated=repeated)
    if finish.outcome == "cancelled":
        cancelled = Conflict(
            "the answer was cancelled before it was complete: ask again under a new key", reason="cancelled"
        )
        cancelled.lasting = True
        raise cancelled
    completion = await collect(Deltas(None, deltas))
    if finish.outcome == "incomplete" and not parts:
        failure = LoggedFailure(_failed(finish), repeated=repeated)
        failure.facts = {"partial": completion.choices[0].text}
        raise failure
    return completion


class _Following:
    """One connection that follows a stream."""

    def __init__(
        self, exchange: Exchange, services: Services, head: Head, projection: Projection, manner: Manner
    ) -> None:
        self._exchange = exchange
        self._services = services
        self._head = head
        self._projection = projection
        self._manner = manner
        settings = services.stream_settings
        self._hold = settings.hold_headers if manner.hold is None else manner.hold
        self.stream = EventStream(
            exchange, self._headers, hold=self._hold, heartbeat=settings.heartbeat, form=manner.form
        )
        self.stream.give_up_after(settings.stalled)
        self._overhead = overhead(exchange)
        self._unsent: list[bytes] = []
        """Frames that wait for the headers."""
        self._attempts: list[Attempt] = []
        self._begun = False
        """Something of the answer has come."""

    async def run(self, reader: int) -> None:
        stream = self.stream
        key = self._head.key
        shown_whole = options_of(self._head).buffer
        kept: list[Record] = []
        # The whole log is folded, whatever the cursor: what a frame says may depend on those before it.
        async with stream, aclosing(self._services.streams.follow(key, 0)) as batches:
            if not self._hold:
                await stream.write(b"")
            async for batch in batches:
                if shown_whole:
                    kept.extend(batch)
                    if not isinstance(batch[-1].delta, Finish):
                        continue
                    batch = surviving(kept)
                if await self._show(stream, batch):
                    self._services.streams.mark(key, reader, self._projection.seq)
            await stream.finish()

    async def _show(self, stream: EventStream, batch: Sequence[Record]) -> bool:
        """Whether something was written of it."""
        frames = self._projection.feed(batch)
        started = self._exchange.started
        if not started:
            self._attempts.extend([record.delta for record in batch if isinstance(record.delta, Attempt)])
            self._begun = self._begun or any([not isinstance(record.delta, _UNCOUNTED) for record in batch])
        last = batch[-1].delta
        if not (started or self._begun):
            if isinstance(last, Finish) and last.outcome == "failed":
                self._exchange.headers.extend(addresses(self._head, self._manner.wire))
                raise LoggedFailure(_failed(last), repeated=self._head.ended)
            if not isinstance(last, Finish):
                self._unsent.append(frames)
                stream.write_soon(self._waiting)
                return False
        if isinstance(last, Finish):
            await stream.finish(self._waiting() + frames)
        elif frames or self._unsent or not started:
            await stream.write(self._waiting() + frames)
        return bool(frames)

    def _waiting(self) -> bytes:
        waiting = b"".join(self._unsent)
        self._unsent.clear()
        return waiting

    def _headers(self) -> tuple[Header, ...]:
        return (*addresses(self._head, self._manner.wire), *origin(self._attempts), self._overhead)


def overhead(exchange: Exchange) -> Header:
    """The header that says how long it took until the stream was there."""
    return b"x-cauce-overhead-ms", b"%.3f" % ((exchange.clock.monotonic() - exchange.began) * 1000)


def _failed(finish: Finish) -> Failed:
    return finish.error or Failed("internal", "the stream ended early")
