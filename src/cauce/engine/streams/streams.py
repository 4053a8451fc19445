"""The streams of this process: starting, attaching, reading and cancelling them by their id, and tending to all of them."""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec

from cauce.domain.delta import Finish
from cauce.domain.errors import CauceError, Conflict, Gone, Overloaded
from cauce.domain.request import Request, Scope
from cauce.domain.stream import ERASED, Created, Erased, Head, NewStream, Record, State, StreamKey, Whose
from cauce.engine.streams.bills import Bills
from cauce.engine.streams.options import NATIVE, StreamOptions, shown_as
from cauce.engine.streams.presence import SEEN_EVERY, Presence
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.producing import Producing
from cauce.engine.streams.settings import ALONE, Life
from cauce.engine.streams.tail import Waiting, follow, tail
from cauce.engine.streams.takeover import Orphan, Takeover
from cauce.engine.turn import Turn
from cauce.ports.cache import ANY_ANSWER, CacheControl
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import LogUnavailable, StreamLog

_CANCEL_WAIT = 2.0
_SWEEP_EVERY = 30.0
"""Seconds between sweeps."""

_SWEEP = 300
"""Streams, or pieces of one, that a sweep deals with at a time."""

logger = logging.getLogger("cauce.streams")


def leaving() -> Overloaded:
    """The error of whoever wants something new of a server that ends."""
    return Overloaded("the server is shutting down: try again", retry_after=1)


def shut_down() -> Overloaded:
    """The error of an answer that the end of the server cut short."""
    return Overloaded("the server shut down before the answer was complete", retry_after=1)


class Erasure(msgspec.Struct, frozen=True):
    """What became of streams that were erased: `deleted` are gone, `open` go when they have ended; so many had to be `cancelled`."""

    deleted: tuple[StreamKey, ...]
    open: tuple[StreamKey, ...]
    cancelled: int


class Streams:
    """Owns a producer task per open stream; readers come and go without it noticing."""

    def __init__(
        self,
        log: StreamLog,
        turn: Turn,
        clock: Clock,
        node: str = "here",
        life: Life = ALONE,
        bills: Bills | None = None,
    ) -> None:
        """`node` names this run of this process. `bills` is the ledger that attempts are written into."""
        self._log = log
        self._node = node
        self._life = life
        self._turn = turn
        self._clock = clock
        bills = bills or Bills()
        self._presence = Presence(log, clock, self._give_up, shared=life.lease is not None)
        self._producing = Producing(log, turn, clock, bills, self._presence, life)
        self._takeover = Takeover(
            log, turn, clock, bills, self._go_on, self._producing.drop, lambda key: self._producing.get(key) is not None
        )
        self._waiting = Waiting()
        self._making: set[StreamKey] = set()
        """Streams that the log is making just now."""
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining

    @property
    def open_streams(self) -> int:
        """Streams being produced now."""
        return len(self._producing)

    @property
    def taken_over(self) -> int:
        """Streams that this process has taken over from others."""
        return self._takeover.taken

    @property
    def ended(self) -> Counter[State]:
        """How streams ended here."""
        return self._producing.ended + self._takeover.ended

    def on_ended(self, listener: Callable[[StreamKey], None]) -> None:
        """Have `listener` told of each stream that is not written here any more, mostly since it has ended."""
        self._producing.listeners.append(listener)

    def on_said(self, listener: Callable[[StreamKey], None]) -> None:
        """The same for streams that are said in a conversation."""
        self._producing.conversing.append(listener)

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
                raise leaving()
            call = self._turn.call(
                request, scope, request_id=request_id, streamed=True, cache=cache, stream_id=key.id, logged=True
            )
            options = msgspec.structs.replace(options, scope=scope, request_id=request_id, private=call.private)
            policy = msgspec.json.encode(options).decode()
            user = scope.known_as(call.request.user)
            new = NewStream(
                key,
                call.request,
                digest,
                self._clock.now(),
                options.wire,
                options.retention,
                policy,
                user,
                call.private,
            )
            created = await self._created(new)
            known = created.head
            if created.hold is not None:
                call = shown_as(call, options)
                producer = self._producing.begin(created.hold, call, options)
                if known.cancel_requested:
                    # Its cancel came first.
                    producer.cancel(known.cancel_reason or "requested")
                elif self._draining:
                    # It was made while everybody else was sent away.
                    await self._leave(producer, call)
        if known.request_hash != digest:
            raise _reused(key)
        return known

    async def _created(self, new: NewStream) -> Created:
        """The stream, made, or found. Raises as the log does, and `Conflict`."""
        if self._life.keeps_here(private=new.private):
            # It goes to another log than what is not private: an id that is taken there meanwhile must be seen here.
            if new.key in self._making:
                raise _reused(new.key)
            known = await self._log.head(new.key) if self._producing.get(new.key) is not None else None
            return await self._log.create(new) if known is None else Created(known, None)
        self._making.add(new.key)
        try:
            return await self._log.create(new)
        finally:
            self._making.discard(new.key)

    async def head(self, key: StreamKey) -> Head | None:
        """The stream's head; None if there is none. Raises `Gone` once expired."""
        return await self._log.head(key)

    async def newest_open(self, principal: str, group: str) -> Head | None:
        """The head of `principal`'s newest open stream of `group`; None if there is none."""
        key = await self._log.newest_open(principal, group)
        return None if key is None else await self._log.head(key)

    async def epoch(self, key: StreamKey, seq: int) -> int:
        """The epoch that record `seq` was written in; 0 if there is no such record. Raises `Gone` once expired."""
        records = await self._log.read(key, seq - 1, 1)
        return records[0].epoch if records else 0

    async def hears(self, key: StreamKey, seq: int) -> bool:
        """Whether record `seq` is in the log, also where this process has yet to hear of it. Raises `Gone` once expired."""
        return await self._log.hears(key, seq)

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
        return tail(self._log, key, after, self._waiting)

    def follow(self, key: StreamKey, after: int) -> AsyncGenerator[Sequence[Record], None]:
        """The stream's records after `after`, to its end; those of one batch are of one epoch."""
        return follow(self._log, key, after, self._waiting)

    def attach(self, key: StreamKey) -> int:
        """A reader is here; returns its number for `mark` and `detach`."""
        number = self._log.attach(key)
        self._presence.attach(key)
        return number

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """The reader has been sent everything up to `seq`."""
        self._log.mark(key, reader, seq)

    def detach(self, key: StreamKey, reader: int) -> None:
        """The reader has left. What becomes of a stream without readers was decided at its creation."""
        self._log.detach(key, reader)
        if not self._draining:
            # A server that ends sends them away itself.
            self._presence.detach(key)

    async def cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        """Cancel, waiting up to 2 s for the end. Idempotent; None if the id is unknown: the log remembers it for as long as its start
        may be on its way.

        Raises `Gone` once the stream has expired.
        """
        try:
            head = await self._log.request_cancel(key, reason)
        except LogUnavailable:
            # Whoever asked has to ask again; what we pay for ends all the same.
            if (producer := self._producing.get(key)) is not None:
                producer.cancel(reason)
            raise
        if head is None:
            return None
        producer = self._producing.get(key)
        if producer is not None and not head.ended:
            producer.cancel(reason)
            try:
                async with self._clock.timeout(_CANCEL_WAIT):
                    await self._producing.until_ended(key)
            except TimeoutError:
                logger.warning("stream %s: its cancel is taking long", key.id)
        elif not head.ended:
            await self._until_heard(head)
        return await self._log.head(key)

    async def erase(self, whose: Whose) -> Erasure:
        """Have these streams gone for good: those that are open are cancelled, and waited for up to 2 s. What is `open` then goes by itself
        once its holder has ended it. Streams that are begun meanwhile stay. Raises `LogUnavailable`: then it is to be asked again.
        """
        first = await self._log.erase(whose)
        then = await asyncio.gather(*[self._erase_at_its_end(key) for key in first.open])
        deleted = [*first.deleted, *[key for one in then for key in one.deleted]]
        return Erasure(tuple(deleted), tuple([key for one in then for key in one.open]), len(first.open))

    async def _erase_at_its_end(self, key: StreamKey) -> Erased:
        try:
            await self.cancel(key, ERASED)
        except Gone:
            return Erased((key,))
        return await self._log.erase(Whose(key.principal, id=key.id))

    async def adopt(self) -> None:
        """Go on with what nobody writes any more. Raises `LogUnavailable`."""
        await self._takeover.adopt(self._node, self._life)

    async def sweep_forever(self) -> None:
        """Keep what is held, go on with what nobody holds, forget what has expired: each at its own pace, so that none waits for another.

        Were a takeover of many streams to hold up the renewal of others, their leases would run out and their cancels not be heard.
        """
        tick = self._life.tick
        await asyncio.gather(
            self._again_and_again(tick - self._life.recent, self._keep, "holds are not renewed"),
            # At the start, what a process before this one left open: it may be much, and whoever asks for other things does not wait for it.
            self._again_and_again(tick, self._look, "streams that nobody writes stay so", at_once=True),
            self._again_and_again(SEEN_EVERY, self._tell_readers, "readers are not told of"),
            self._again_and_again(_SWEEP_EVERY, self._forget, "streams do not expire"),
        )

    async def _again_and_again(
        self, every: float, work: Callable[[], Awaitable[None]], otherwise: str, *, at_once: bool = False
    ) -> None:
        """Do `work` every so many seconds. Whatever goes wrong in it is told once, and does not end it."""
        told = False
        while True:
            if not at_once:
                await self._clock.sleep(every)
            at_once = False
            try:
                await work()
            except CauceError as error:
                if not told:
                    logger.error("%s until their log answers: %s", otherwise, error.message)
                told = True
            except Exception:
                if not told:
                    logger.exception("%s: an unexpected error", otherwise)
                told = True
            else:
                told = False

    async def _keep(self) -> None:
        """What is held stays so. Raises `LogUnavailable`."""
        before = self._producing.tails
        await self._clock.sleep(self._life.recent)
        await self._producing.renew(self._takeover.claimed, before)

    async def _look(self) -> None:
        """Nobody's streams become ours, and those that cost too much for nobody are given up. Raises `LogUnavailable`."""
        if self._draining:
            return
        # First, or a process that stood still would take its own streams for nobody's: what it told of lately has half its lease left.
        if not self._producing.told_within(2 * self._life.tick):
            await self._producing.renew()
        await self.adopt()
        if self._life.unattended_max_cost:
            await self._producing.check_costs(self._life.unattended_max_cost, self._give_up)

    async def _tell_readers(self) -> None:
        """Whoever writes what is read here hears of it. Raises `LogUnavailable`."""
        if self._life.lease is not None and (keys := self._presence.read_elsewhere()):
            await self._log.seen(keys)

    async def _forget(self) -> None:
        """What is over goes. Raises `LogUnavailable`."""
        while await self._log.sweep(_SWEEP):
            await self._clock.sleep(0)

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, and let open ones end for that long. The rest is handed over to whoever comes next, and its readers are
        sent away; where the log ends with this process, it is ended honestly."""
        self._draining = True
        try:
            # What is being taken over is given up, or ends with the rest.
            async with self._clock.timeout(_CANCEL_WAIT):
                await self._takeover.stop()
        except TimeoutError:
            logger.warning("streams that are being taken over wait until their leases are over")
        try:
            await self._producing.drain(seconds)
        except TimeoutError:
            logger.info("%d streams have not ended by themselves", self.open_streams)
        if self._life.lasting:
            # First, so that their readers have the end before all that wait are sent away.
            await self._producing.end(shut_down(), here=True)
            await self._producing.hand_over()
            self._waiting.send_away()
        else:
            await self._producing.end(shut_down())

    async def _until_heard(self, head: Head) -> None:
        """Return once the holder of the stream, which hears of a cancel with its next renewal, has ended it; after 2 s at most."""
        until = self._clock.monotonic() + _CANCEL_WAIT
        now: Head | None = head
        while now is not None and not now.ended and (left := until - self._clock.monotonic()) > 0:
            await self._log.wait(now.key, now.tail, left)
            now = await self._log.head(now.key)

    def _go_on(self, orphan: Orphan) -> None:
        """Write a stream on that another process began."""
        assert orphan.call is not None
        self._producing.begin(orphan.hold, orphan.call, orphan.options, orphan.begun)

    async def _give_up(self, key: StreamKey, cause: str) -> None:
        """Cancel a stream on our own account."""
        await self._log.request_cancel(key, cause)
        producer = self._producing.get(key)
        if producer is not None:
            producer.cancel(cause)

    async def _leave(self, producer: Producer, call: Call) -> None:
        if self._life.lasting and not self._life.keeps_here(private=call.private):
            await self._producing.leave(producer)
        else:
            producer.fail(shut_down())


def _reused(key: StreamKey) -> Conflict:
    return Conflict(f"stream id {key.id!r} belongs to another request: use a new id")


def _digest(request: Request) -> bytes:
    """What makes two requests the same: everything but how the answer is sent, and how long its client still has."""
    same = msgspec.structs.replace(request, stream=True, include_usage=False, timeout=None)
    return hashlib.sha256(msgspec.json.encode(same)).digest()
