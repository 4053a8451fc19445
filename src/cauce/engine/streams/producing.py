"""The producers of this process: one task per stream that is written here."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from cauce.domain.errors import CauceError, Gone
from cauce.domain.stream import TERMINAL, Hold, State, StreamKey
from cauce.engine.streams.bills import Bills, priced
from cauce.engine.streams.commits import NEW, Begun
from cauce.engine.streams.options import StreamOptions
from cauce.engine.streams.presence import Presence
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.settings import Life
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.ports.provider import Call
from cauce.ports.stream_log import LogUnavailable, StreamLog

UNATTENDED = "unattended"
"""The cause of a cancel of a stream that costs too much for nobody to read it."""

logger = logging.getLogger("cauce.streams")


class _Running(msgspec.Struct, frozen=True):
    """`here` as `Life.keeps_here` says it."""

    producer: Producer
    call: Call
    options: StreamOptions
    task: "asyncio.Task[None]"
    here: bool


class Producing:
    """See the module."""

    def __init__(self, log: StreamLog, turn: Turn, clock: Clock, bills: Bills, presence: Presence, life: Life) -> None:
        self._log = log
        self._turn = turn
        self._clock = clock
        self._bills = bills
        self._presence = presence
        self._life = life
        self._running: dict[StreamKey, _Running] = {}
        self._dropped: dict[StreamKey, Hold] = {}
        """Streams whose log could not be written: to be given up, so that somebody goes on with them."""
        self._reached = clock.monotonic()
        """When the log answered last."""
        self._asked = self._reached
        """When it was asked then."""
        self._renewing = asyncio.Lock()
        self.listeners: list[Callable[[StreamKey], None]] = []
        """Told of each stream that is not written here any more, mostly since it has ended."""
        self.conversing: list[Callable[[StreamKey], None]] = []
        """Told of those among them that are said in a conversation."""
        self.ended: Counter[State] = Counter()
        """How those ended that were written here."""

    def __len__(self) -> int:
        return len(self._running)

    def get(self, key: StreamKey) -> Producer | None:
        """The producer of that stream, if it is written here."""
        running = self._running.get(key)
        return None if running is None else running.producer

    def begin(self, hold: Hold, call: Call, options: StreamOptions, begun: Begun = NEW) -> Producer:
        """Write the answer to `call` into the stream of `hold`. Its producer does nothing before the next await."""
        key = hold.key
        producer = Producer(self._log, self._turn, self._clock, hold, begun)
        here = self._life.keeps_here(private=call.private)
        renewed = call.renewed if here else partial(self._renewed, key)
        call = msgspec.structs.replace(call, notice=producer.notice, renewed=renewed)
        task = asyncio.create_task(producer.run(call), name=f"stream {key.id}")
        # What a process before this one has written is for who goes on with it, and is not held as long as the stream is open.
        call = msgspec.structs.replace(call, begun=())
        self._running[key] = _Running(producer, call, options, task, here)
        self._bills.watch(call.request_id, producer.billed)
        self._presence.watch(key, options, had_readers=begun.read)
        task.add_done_callback(lambda done: self._ended(key, done))
        return producer

    async def until_ended(self, key: StreamKey) -> None:
        """Return once the stream is not written here any more."""
        running = self._running.get(key)
        if running is not None:
            await asyncio.wait({running.task})

    def drop(self, hold: Hold) -> None:
        """Nobody here writes what is held: it is given up as soon as the log takes that."""
        self._dropped[hold.key] = hold

    @property
    def tails(self) -> Mapping[StreamKey, int]:
        """How far each stream that others may write has been written."""
        return {key: running.producer.hold.tail for key, running in self._running.items() if not running.here}

    def told_within(self, seconds: float) -> bool:
        """Whether in that time the log has heard of every stream, and there is none to be given up."""
        return not self._dropped and self._clock.monotonic() - self._asked <= seconds

    async def renew(self, others: Sequence[Hold] = (), before: Mapping[StreamKey, int] | None = None) -> None:
        """Tell the log that silent streams go on, `others` too, and hear of those that shall not. Raises `LogUnavailable`.

        Those that were written beyond their tails of `before` are not told of: each append renews their holds, and meets a cancel.

        One that could tell it nothing for a whole lease closes its upstreams: somebody else pays for the same answers by now. It does
        not wait for a log to give up that is itself kept waiting; but who has stood still may ask first.
        """
        asking = asyncio.create_task(self._told(others, before or {}))
        try:
            lease = self._life.lease
            if lease is not None:
                left = self._reached + lease - self._clock.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with self._clock.timeout(max(left, lease / 2)):
                        await asyncio.wait({asking})
                if not asking.done() and self._clock.monotonic() - self._reached >= lease:
                    self._give_up()
            await asking
        finally:
            asking.cancel()

    async def _told(self, others: Sequence[Hold], before: Mapping[StreamKey, int]) -> None:
        """Have the log answer. Raises `LogUnavailable`."""
        asked = self._clock.monotonic()
        try:
            if self._dropped:
                dropped = dict(self._dropped)
                await self._log.release(list(dropped.values()))
                for key, hold in dropped.items():
                    # Others may have come while it was written.
                    if self._dropped.get(key) is hold:
                        del self._dropped[key]
            silent = [
                running.producer.hold
                for key, running in self._running.items()
                if not running.here and before.get(key, running.producer.hold.tail) == running.producer.hold.tail
            ]
            for renewed in await self._log.renew([*silent, *others]):
                running = self._running.get(renewed.key)
                if running is not None and renewed.verdict == "lost":
                    running.producer.lose()
                elif running is not None and renewed.verdict == "cancel":
                    running.producer.cancel(await self._cause(renewed.key))
        except LogUnavailable:
            if self._silent:
                self._give_up()
            raise
        self._reached, self._asked = self._clock.monotonic(), asked

    def _give_up(self) -> None:
        """Close all upstreams, and write no more."""
        for key, running in self._running.items():
            if running.here:
                continue
            running.producer.lose()
            # It may be nobody's yet, and whoever reads it here is to hear of what others write.
            self._dropped[key] = running.producer.hold

    @property
    def _silent(self) -> bool:
        """Whether others may have taken our streams over, since the log has not heard of us for a whole lease."""
        lease = self._life.lease
        return lease is not None and self._clock.monotonic() - self._reached > lease

    async def _renewed(self, key: StreamKey) -> None:
        """See `Call.renewed`: a process that stood still must not pay for an answer that another pays for by now, and nobody for one that
        was cancelled elsewhere."""
        if self._life.lease is None:
            return
        if self._silent:
            # All streams ask at once: one question is for all. If it fails, they are given up, unless another was answered meanwhile.
            async with self._renewing:
                if self._silent:
                    with contextlib.suppress(LogUnavailable):
                        await self.renew()
        else:
            with contextlib.suppress(LogUnavailable, Gone):
                head = await self._log.head(key)
                running = self._running.get(key)
                if head is not None and head.cancel_requested and running is not None:
                    running.producer.cancel(head.cancel_reason or "")
        # Where a stream that is not ours any more is stopped.
        await asyncio.sleep(0)

    async def check_costs(self, most: float, give_up: Callable[[StreamKey, str], Awaitable[object]]) -> None:
        """Give up what goes on though nobody reads it and has cost more than `most` (USD)."""
        for key, running in list(self._running.items()):
            if running.options.on_disconnect != "continue":
                continue
            used, row = running.producer.used, running.producer.commits.attempt
            if row is not None:
                used = priced(used, row.provider, row.model, running.call.candidates)
            # Who reads it elsewhere takes a question to the log: most streams cost little.
            if used.cost > most and not await self._presence.read_by_anyone(key):
                logger.info("stream %s: it costs more than it may while nobody reads it", key.id)
                await give_up(key, UNATTENDED)

    async def drain(self, seconds: float) -> None:
        """Return when all streams have ended, or that much time has passed."""
        if self._running and seconds > 0:
            async with self._clock.timeout(seconds):
                await _all_ended(self._running.values())

    async def end(self, error: CauceError, *, here: bool = False) -> None:
        """End all streams with `error`; `here`: those alone that are in the memory of this process."""
        some = [running for running in self._running.values() if running.here or not here]
        for running in some:
            running.producer.fail(error)
        await _all_ended(some)

    async def hand_over(self) -> None:
        """Close all upstreams, write what was received, and give the streams up: whoever looks next goes on with them."""
        some: dict[StreamKey, Producer] = {}
        while going := {key: running.producer for key, running in self._running.items() if not running.here}:
            # Some may have been begun while others were waited for.
            some |= going
            for producer in some.values():
                producer.hand_over()
            await _all_ended(self._running.values())
        left = [producer.hold for producer in some.values() if producer.leaving]
        await self._given_up([*left, *self._dropped.values()])

    async def leave(self, producer: Producer) -> None:
        """Hand over one stream that was begun after the others had been."""
        producer.hand_over()
        await self.until_ended(producer.hold.key)
        await self._given_up([producer.hold])

    async def _given_up(self, left: Sequence[Hold]) -> None:
        if left:
            try:
                await self._log.release(left)
            except LogUnavailable:
                logger.error("%d streams were left open, and their log does not answer", len(left))
            else:
                logger.info("handed over %d streams", len(left))

    async def _cause(self, key: StreamKey) -> str:
        head = await self._log.head(key)
        return (head.cancel_reason if head is not None else None) or ""

    def _ended(self, key: StreamKey, task: asyncio.Task[None]) -> None:
        running = self._running.pop(key)
        if (state := running.producer.commits.state) in TERMINAL:
            self.ended[state] += 1
        self._bills.unwatch(running.call.request_id)
        self._presence.unwatch(key)
        for listener in (*self.listeners, *self.conversing) if running.call.request.conversation_id else self.listeners:
            listener(key)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LogUnavailable):
            logger.error("stream %s cannot be written: its upstream was closed", key.id)
            self._dropped[key] = running.producer.hold
        elif error is not None:
            logger.error("stream %s: its producer failed", key.id, exc_info=error)
            self._dropped[key] = running.producer.hold


async def _all_ended(some: Iterable[_Running]) -> None:
    tasks = {running.task for running in some}
    if tasks:
        await asyncio.wait(tasks)
