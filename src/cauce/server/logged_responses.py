"""Responses whose answers are streams with a log: how such a log is read on their wire, and what is kept of it at its end.

A log is forgotten an hour after its stream has ended; the response stays in the port `Responses`. Until it is there, the log is asked.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from cauce.domain.delta import Attempt, Finish
from cauce.domain.errors import CauceError, Conflict, Gone
from cauce.domain.request import Scope
from cauce.domain.stream import ERASED, Head, Record, StreamKey
from cauce.domain.surviving import surviving
from cauce.engine.streams.options import StreamOptions, options_of
from cauce.engine.streams.streams import Streams
from cauce.engine.streams.tail import gathered
from cauce.ports.clock import Clock
from cauce.ports.responses import KeptResponse, Responses
from cauce.server.following import Projection
from cauce.server.services import Services
from cauce.wire.numbering import Cursor
from cauce.wire.openai_responses.logged import Asked, LoggedProjector, head_of_stream, standing
from cauce.wire.openai_responses.replay import After, numbered, tape_of
from cauce.wire.openai_responses.response import Head as ResponseHead
from cauce.wire.openai_responses.response import echo

WIRE = "openai-responses"
"""What the wire is called in the options of a stream."""

PREFIX = "resp_"
"""What ids of responses begin with."""

_SWEEP_EVERY = 30.0
_AT_ONCE = 10_000

_encode = msgspec.json.Encoder().encode
_asked = msgspec.json.Decoder(Asked | None).decode

logger = logging.getLogger("cauce.responses")


class Folded(msgspec.Struct, frozen=True):
    """A log that has been read to its end: the response it gives, and how it ended."""

    kept: KeptResponse
    finish: Finish
    attempts: tuple[Attempt, ...]


def asked_of(head: Head) -> Asked:
    """What is known of the request. A stream of another wire can be read on this one too: then nothing more than its model."""
    return _known(head, options_of(head))


def _known(head: Head, options: StreamOptions) -> Asked:
    return _asked(options.asked) or Asked(echo({}, head.request.model), keep=False)


def project(head: Head, after: Cursor | int) -> Projection:
    """What shows the stream to a reader who has had everything up to a cursor, or to the event with that number (-1: nothing)."""
    asked = asked_of(head)
    return numbered(_head(head, asked), after, queued=asked.background)


def open_response(head: Head) -> bytes:
    """The response of a stream that has not ended."""
    return _encode(standing(_head(head, asked_of(head)), "queued" if head.state == "queued" else "in_progress"))


def _head(head: Head, asked: Asked) -> ResponseHead:
    return head_of_stream(head.key.id, head.created, head.request, asked)


async def fold(streams: Streams, head: Head) -> Folded:
    """The whole response, once the stream has ended. Raises `Gone`."""
    records = await gathered(streams.follow(head.key, 0))
    options = options_of(head)
    shown: Sequence[Record] = surviving(records) if options.buffer else records
    asked = _known(head, options)
    about = _head(head, asked)
    deltas = [record.delta for record in shown]
    projector = LoggedProjector(about, queued=asked.background)
    projector.feed(deltas)
    finish = deltas[-1]
    assert isinstance(finish, Finish), "a stream ends with its Finish"
    context = tuple([bytes(item) for item in asked.context])
    tape = tape_of(about, deltas, queued=asked.background)
    user = (options.scope or Scope()).known_as(head.request.user)
    body = _encode(projector.response)
    kept = KeptResponse(about.id, head.created, body, context, tape, user, options.private)
    return Folded(kept, finish, tuple([delta for delta in deltas if isinstance(delta, Attempt)]))


async def find(services: Services, scope: Scope, response_id: str) -> KeptResponse | Head | None:
    """The response of that id, or the stream that it is the answer of; None if there is none for this scope."""
    kept = await services.responses.get(scope, response_id)
    if kept is not None or not response_id.startswith(PREFIX):
        return kept
    head = await _head_of(services.streams, StreamKey(scope.principal, response_id))
    if head is None or not asked_of(head).keep or await services.responses.deleted(scope, response_id):
        return None
    return head


async def check_number(streams: Streams, head: Head, number: int) -> None:
    """Raise `Conflict` if the reader says that it has had an event that the log does not have."""
    events = project(head, number)
    assert isinstance(events, After)
    async with aclosing(streams.follow(head.key, 0)) as batches:
        async for batch in batches:
            events.feed(batch)
            last = batch[-1]
            if not events.ahead:
                return
            # Another process may write it, and have shown what this one has yet to hear of.
            if last.seq >= head.tail and (
                isinstance(last.delta, Finish) or not await streams.hears(head.key, last.seq + 1)
            ):
                break
    raise Conflict(
        "starting_after: this response has no such event: drop your copy and read from the start",
        reason="records_lost",
        tail=head.tail,
    )


async def _head_of(streams: Streams, key: StreamKey) -> Head | None:
    """The head of a response's stream; None if there is no such stream, or not any more."""
    try:
        head = await streams.head(key)
    except Gone:
        return None
    return None if head is None or options_of(head).wire != WIRE else head


class Settling:
    """Copies the responses of streams that have ended to where responses are kept: at once, and, where that did not come about, later."""

    def __init__(self, streams: Streams, responses: Responses, clock: Clock) -> None:
        self._streams = streams
        self._responses = responses
        self._clock = clock
        self._ended: asyncio.Queue[StreamKey] = asyncio.Queue()
        self._late: dict[StreamKey, None] = {}
        """Streams that have ended, and could not be settled."""
        self._tasks: list[asyncio.Task[None]] = []
        streams.on_ended(self._hear)

    def start(self) -> None:
        """Begin, with what a process before this one has left."""
        self._tasks = [asyncio.create_task(self._settle_ended()), asyncio.create_task(self._sweep_forever())]

    async def stop(self) -> None:
        """Settle what has ended, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._ended.empty():
            await self._settle_now(self._ended.get_nowait())

    async def sweep(self) -> None:
        """Settle what is promised and has ended. Promises whose streams are gone are given up. Raises `Overloaded`."""
        for key in [*self._late, *await self._responses.promised(_AT_ONCE)]:
            if not await self._settle_now(key):
                break

    def _hear(self, key: StreamKey) -> None:
        if key.id.startswith(PREFIX):
            self._ended.put_nowait(key)

    async def _settle_ended(self) -> None:
        while True:
            await self._settle_now(await self._ended.get())

    async def _settle_now(self, key: StreamKey) -> bool:
        """Whether the log and the store answered. If not, the sweep comes back to it."""
        try:
            await self._settle(key)
        except CauceError as error:
            logger.error("response %s is not kept for now: %s", key.id, error.message)
            self._late[key] = None
            return False
        except Exception:
            # One that cannot be read must not keep others from being kept.
            logger.exception("response %s cannot be kept", key.id)
        self._late.pop(key, None)
        return True

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except CauceError as error:
                logger.error("responses that have ended are not kept for now: %s", error.message)
            await self._clock.sleep(_SWEEP_EVERY)

    async def _settle(self, key: StreamKey) -> None:
        try:
            head = await _head_of(self._streams, key)
            if head is None or head.cancel_reason == ERASED:
                await self._responses.renounce(key)
            elif head.ended and asked_of(head).keep:
                await self._responses.settle(key, (await fold(self._streams, head)).kept)
        except Gone:
            await self._responses.renounce(key)


def beside(asked: dict[str, Any], model: str, context: Sequence[bytes]) -> msgspec.Raw:
    """What the stream of the request `asked` keeps of it, for `StreamOptions.asked`."""
    kept = Asked(
        echo(asked, model),
        tuple([msgspec.Raw(item) for item in context]),
        asked.get("background") is True,
        asked.get("store") is not False,
    )
    return msgspec.Raw(_encode(kept))
