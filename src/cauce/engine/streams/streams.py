"""The streams of this process: starting, attaching, reading and cancelling them by their id."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence

import msgspec

from cauce.domain.delta import Finish
from cauce.domain.errors import Conflict, Overloaded
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Head, Hold, NewStream, Record, StreamKey
from cauce.engine import ending
from cauce.engine.streams.options import NATIVE, StreamOptions
from cauce.engine.streams.orphans import end_orphans
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.tail import follow, tail
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.ports.provider import ANY_ANSWER, CacheControl, Deltas
from cauce.ports.stream_log import LogUnavailable, StreamLog

OVERTAKEN = 60.0
"""Seconds a cancel of an unknown id is remembered, so that it may overtake its start."""

_MOST_OVERTAKEN = 10_000
_CANCEL_WAIT = 2.0
_RENEW_EVERY = 3.0
"""Seconds between signs of life for streams that are silent; a lease is a few times longer."""

_SWEEP_EVERY = 10
"""Renewals between sweeps."""

_SWEEP = 300
"""Streams, or pieces of one, that a sweep deals with at a time."""

logger = logging.getLogger("cauce.streams")


def shut_down() -> Overloaded:
    """The error of an answer that the end of the server cut short."""
    return Overloaded("the server shut down before the answer was complete", retry_after=1)


class Streams:
    """Owns a producer task per open stream; readers come and go without it noticing."""

    def __init__(self, log: StreamLog, turn: Turn, clock: Clock, node: str = "here") -> None:
        """`node` names this run of this process."""
        self._log = log
        self._node = node
        self._dropped: dict[StreamKey, Hold] = {}
        """Streams whose log could not be written: to be given up, so that somebody ends them."""
        self._turn = turn
        self._clock = clock
        self._producers: dict[StreamKey, tuple[Producer, asyncio.Task[None]]] = {}
        self._overtaken: dict[StreamKey, float] = {}
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining

    @property
    def open_streams(self) -> int:
        """Streams being produced now."""
        return len(self._producers)

    async def start(
        self,
        key: StreamKey,
        request: Request,
        scope: Scope,
        request_id: str,
        cache: CacheControl = ANY_ANSWER,
        options: StreamOptions = NATIVE,
    ) -> Head:
        """Create the stream, or attach to the one that has this key: `options` are those it was created with then.

        Raises `ModelNotFound` before anything is created, `Conflict` when the key belongs to another request, `Gone` once it
        has expired, `Overloaded` while the server shuts down.
        """
        digest = _digest(request)
        known = await self._log.head(key)
        if known is None:
            if self._draining:
                raise Overloaded("the server is shutting down: try again", retry_after=1)
            call = self._turn.call(request, scope, request_id=request_id, streamed=True, cache=cache, stream_id=key.id)
            options = msgspec.structs.replace(options, scope=scope, request_id=request_id)
            policy = msgspec.json.encode(options).decode()
            new = NewStream(key, call.request, digest, self._clock.now(), options.wire, options.retention, policy)
            created = await self._log.create(new)
            known = created.head
            if created.hold is not None:
                producer = Producer(self._log, self._turn, created.hold)
                call = msgspec.structs.replace(call, notice=producer.notice)
                if self._was_cancelled(key):
                    await self._log.request_cancel(key)
                    producer.end(ending.cancelled())
                task = asyncio.create_task(producer.run(call), name=f"stream {key.id}")
                self._producers[key] = (producer, task)
                task.add_done_callback(lambda done: self._ended(key, done))
        if known.request_hash != digest:
            raise Conflict(f"stream id {key.id!r} belongs to another request: use a new id")
        return known

    async def head(self, key: StreamKey) -> Head | None:
        """The stream's head; None if there is none. Raises `Gone` once expired."""
        return await self._log.head(key)

    async def epoch(self, key: StreamKey, seq: int) -> int:
        """The epoch that record `seq` was written in; 0 if there is no such record. Raises `Gone` once expired."""
        records = await self._log.read(key, seq - 1, 1)
        return records[0].epoch if records else 0

    async def finish(self, head: Head) -> Finish | None:
        """How the stream ended; None while it is open."""
        if not head.ended:
            return None
        for record in await self._log.read(head.key, head.tail - 1, 1):
            if isinstance(record.delta, Finish):
                return record.delta
        return None

    def tail(self, key: StreamKey, after: int) -> Deltas:
        """The stream's deltas after `after`, to its end."""
        return tail(self._log, key, after)

    def follow(self, key: StreamKey, after: int) -> AsyncGenerator[Sequence[Record], None]:
        """The stream's records after `after`, to its end; those of one batch are of one epoch."""
        return follow(self._log, key, after)

    def attach(self, key: StreamKey) -> int:
        """A reader is here; returns its number for `mark`."""
        return self._log.attach(key)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """The reader has been sent everything up to `seq`."""
        self._log.mark(key, reader, seq)

    def detach(self, key: StreamKey, reader: int) -> None:
        """The reader has left. What becomes of a stream without readers is its policy."""

    async def cancel(self, key: StreamKey) -> Head | None:
        """Cancel, waiting up to 2 s for the end. Idempotent; None if the id is unknown (it is remembered for 60 s).

        Raises `Gone` once the stream has expired.
        """
        head = await self._log.request_cancel(key) if await self._log.head(key) is not None else None
        if head is None:
            self._overtaken[key] = self._clock.monotonic() + OVERTAKEN
            while len(self._overtaken) > _MOST_OVERTAKEN:
                del self._overtaken[next(iter(self._overtaken))]
            return None
        produced = self._producers.get(key)
        if produced is not None and not head.ended:
            producer, task = produced
            producer.end(ending.cancelled())
            try:
                async with self._clock.timeout(_CANCEL_WAIT):
                    await asyncio.wait({task})
            except TimeoutError:
                logger.warning("stream %s: its cancel is taking long", key.id)
        elif not head.ended:
            # Its holder hears of it with its next renewal.
            await self._log.wait(key, head.tail, _CANCEL_WAIT)
        return await self._log.head(key)

    async def adopt(self) -> None:
        """End what nobody writes any more: at the start, what a process before this one left open."""
        try:
            await end_orphans(self._log, self._node)
        except LogUnavailable as error:
            logger.error("streams that were left open stay so for now: %s", error.message)

    async def sweep_forever(self) -> None:
        """Keep what is held, end what nobody holds, forget what has expired."""
        turn = 0
        while True:
            await self._clock.sleep(_RENEW_EVERY)
            turn += 1
            try:
                await self._renew()
                await end_orphans(self._log, self._node)
                if turn % _SWEEP_EVERY == 0:
                    while await self._log.sweep(_SWEEP):
                        await self._clock.sleep(0)
            except LogUnavailable as error:
                logger.error("streams are not tended to for now: %s", error.message)
            now = self._clock.monotonic()
            for key in [key for key, until in self._overtaken.items() if until <= now]:
                del self._overtaken[key]

    async def _renew(self) -> None:
        """Tell the log that silent streams go on, and hear of those that shall not."""
        if self._dropped:
            await self._log.release(list(self._dropped.values()))
            self._dropped.clear()
        for renewed in await self._log.renew([producer.hold for producer, _ in self._producers.values()]):
            produced = self._producers.get(renewed.key)
            if produced is not None and renewed.verdict == "lost":
                produced[0].lose()
            elif produced is not None and renewed.verdict == "cancel":
                produced[0].end(ending.cancelled())

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, let open ones end for that long, then end the rest honestly."""
        self._draining = True
        tasks = {task for _, task in self._producers.values()}
        if not tasks:
            return
        try:
            async with self._clock.timeout(seconds):
                await asyncio.wait(tasks)
        except TimeoutError:
            for producer, _ in list(self._producers.values()):
                producer.end(ending.failed(shut_down(), text_delivered=True))
            await asyncio.wait(tasks)

    def _was_cancelled(self, key: StreamKey) -> bool:
        until = self._overtaken.pop(key, None)
        return until is not None and until > self._clock.monotonic()

    def _ended(self, key: StreamKey, task: asyncio.Task[None]) -> None:
        producer, _ = self._producers.pop(key)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LogUnavailable):
            logger.error("stream %s cannot be written: its upstream was closed", key.id)
            self._dropped[key] = producer.hold
        elif error is not None:
            logger.error("stream %s: its producer failed", key.id, exc_info=error)


def _digest(request: Request) -> bytes:
    """What makes two requests the same: everything but how the answer is sent."""
    same = msgspec.structs.replace(request, stream=True, include_usage=False)
    return hashlib.sha256(msgspec.json.encode(same)).digest()
