"""Who waits for what, and whose turn it is.

There is a line at every bottleneck that calls wait for; a call whose candidates have several stands in each. In a line one call at a
time has the turn: it tries, and when there is no room it waits for it, by the clock or until it is told of room. When it is
let through, or leaves, the turn is the next one's: so each admission costs two tries, however many wait.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from math import inf

import msgspec

from cauce.domain.delta import Status
from cauce.domain.errors import Throttled
from cauce.engine.queue.bounds import Bounds
from cauce.engine.queue.line import Line, Place, Share
from cauce.engine.queue.settings import QueueSettings
from cauce.ports.clock import Clock
from cauce.ports.limiter import SOON
from cauce.ports.provider import Call

TELL = 1.0
"""Seconds between two words to the same waiting client."""

ANSWER = 5.0
"""Seconds of a call's time that are left for its answer, whatever it waits."""

_MOST_KEYS = 4096
"""Bottlenecks of which it is remembered when they last had room."""

_BY_TIME = ":requests/minute"
_AT_ONCE = ":calls"
"""How keys of limits end."""

REGAINED = 2
"""How often a call that was asked for in vain gets its place back. Then others try: perhaps it is this one that is too much."""

_MEMORY = 60.0
"""Seconds over which the rate of admissions is measured, about."""

_encode = msgspec.msgpack.Encoder().encode


class Waiter:
    """A call that waits. `told` is the place it was last told, `size` the bytes of its request."""

    __slots__ = (
        "began",
        "call",
        "driven_out",
        "places",
        "regained",
        "share",
        "since",
        "size",
        "starts",
        "told",
        "until",
        "woken",
    )

    def __init__(self, call: Call, share: Share, began: float, until: float, since: int, size: int) -> None:
        self.call = call
        self.share = share
        self.size = size
        self.began = began
        self.until = until
        self.since = since
        """What `Queue.told` was when it last began to try."""
        self.woken = asyncio.Event()
        self.places: dict[str, Place[Waiter]] = {}
        self.starts: dict[str, float] = {}
        """Where it stood in lines it left."""
        self.regained = 0
        """How often it has come back after it was asked for in vain."""
        self.told = 0
        self.driven_out: float | None = None
        """What `Queue.seconds` was where it stood when its place went to another."""


class _Queueing(Line[Waiter]):
    """The line at one bottleneck. `turn` is whose it is; `pause` until when there is no use in trying (monotonic clock)."""

    __slots__ = ("pause", "served", "since", "turn")

    def __init__(self, now: float) -> None:
        super().__init__()
        self.turn: Waiter | None = None
        self.pause = 0.0
        self.served = 0.0
        self.since = now

    def note(self, now: float) -> None:
        """One more is served."""
        if now - self.since > _MEMORY:
            self.served /= 2
            self.since += (now - self.since) / 2
        self.served += 1

    def seconds(self, now: float) -> float:
        """How long all that wait here will take, at the rate of late; 0 if none was served yet."""
        return self.count * (now - self.since) / self.served if self.served else 0.0


class Queue:
    """All lines. `waited` is told the seconds of each wait that ended."""

    def __init__(self, settings: QueueSettings, clock: Clock, waited: Callable[[float], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._waited = waited
        self._telling: asyncio.Task[None] | None = None
        self.lines: dict[str, _Queueing] = {}
        self.waiters: dict[Waiter, None] = {}
        self._bounds = Bounds[Waiter](settings.length, settings.bytes)
        self.told = 0
        """How often there was word of room, at any bottleneck."""
        self._rooms: dict[str, int] = {}
        """What `told` was when there last was word of room, by bottleneck. A denial may be older than that."""
        self._forgotten = 0

    def entered(self, call: Call, share: Share, waits: dict[str, float], since: int) -> Waiter | None:
        """A place for `call` in the lines of `waits` (seconds until there may be room); None if it cannot wait, or too many do and it is none
        of another who has to go.

        `since` is what `told` was before it was denied: where there was word of room in between, it tries once more at once.
        """
        now = self._clock.monotonic()
        until = now + self._settings.wait
        if call.deadline is not None:
            until = min(until, call.deadline - ANSWER)
        if _is_in_vain(waits, until - now):
            return None
        return self._placed(Waiter(call, share, now, until, since, _size(call)), waits)

    def again(self, before: Waiter, call: Call, denied: Throttled) -> Waiter | None:
        """The place of `call`, which was let through as `before`, and then `denied`: where it stood, for what is left of its wait."""
        if before.driven_out is not None:
            return None
        waiter = Waiter(call, before.share, self._clock.monotonic(), before.until, before.since, before.size)
        waiter.regained = before.regained + (denied.after is not None)
        if waiter.regained <= REGAINED:
            waiter.starts = before.starts
        return self._placed(waiter, denied.waits, returns=True)

    def _placed(self, waiter: Waiter, waits: dict[str, float], *, returns: bool = False) -> Waiter | None:
        if _is_in_vain(waits, waiter.until - waiter.began):
            return None
        gone = self._bounds.admit(waiter, waiter.share, waiter.size, returns=returns)
        if gone is None:
            return None
        for other in gone:
            other.driven_out = self.seconds(other.places)
            self.left(other, served=False)
            other.woken.set()
        self.waiters[waiter] = None
        waiter.call.course.queued = True
        self.denied(waiter, waits)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_places())
        return waiter

    async def turn(self, waiter: Waiter) -> bool:
        """Return True when `waiter` is to try, False when it has waited long enough, or would wait in vain, or another has its place."""
        while waiter.driven_out is None:
            now = self._clock.monotonic()
            due = self._due(waiter)
            if due <= now:
                waiter.woken.clear()
                waiter.since = self.told
                return True
            if waiter.until <= now or self._in_vain(waiter, now):
                return False
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(min(due, waiter.until) - now):
                    await waiter.woken.wait()
            waiter.woken.clear()
        return False

    def denied(self, waiter: Waiter, waits: dict[str, float]) -> None:
        """There was no room for it at any bottleneck of `waits`: that is where it stands now, for so many seconds at least."""
        now = self._clock.monotonic()
        for key in [key for key in waiter.places if key not in waits]:
            waiter.starts[key] = waiter.places[key].start
            self._leave(waiter, key, served=False)
        for key, seconds in waits.items():
            line = self.lines.get(key)
            if line is None:
                line = self.lines[key] = _Queueing(now)
            if key not in waiter.places:
                waiter.places[key] = line.join(waiter, waiter.share, waiter.starts.get(key))
                if line.turn is None:
                    line.turn = waiter
            came = self._rooms.get(key, self._forgotten) > waiter.since
            pause = now if came else now + seconds
            if not came and _takes_time(key, seconds):
                # That holds for all who wait here: those whose time is over before need not.
                if pause > line.pause + SOON:
                    for other in line.ordered():
                        if other.until < pause:
                            other.woken.set()
                line.pause = max(line.pause, pause)
            if line.turn is waiter:
                line.pause = pause

    def left(self, waiter: Waiter, *, served: bool) -> None:
        """It waits no longer: it was let through (`served`), or gave up."""
        if waiter not in self.waiters:
            return
        del self.waiters[waiter]
        self._bounds.leave(waiter, waiter.share)
        now = self._clock.monotonic()
        seconds = now - waiter.began
        course = waiter.call.course
        course.queued = False
        course.waited += seconds
        self._waited(seconds)
        for key in list(waiter.places):
            line = self.lines[key]
            through = served and line.turn is waiter
            waiter.starts[key] = waiter.places[key].start
            if through:
                line.note(now)
            self._leave(waiter, key, served=through)
        if not self.waiters and self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def room(self, key: str) -> None:
        """There is room at the bottleneck `key`: whoever has the turn there may try at once."""
        self.told += 1
        if len(self._rooms) >= _MOST_KEYS:
            self._rooms.clear()
            self._forgotten = self.told
        self._rooms[key] = self.told
        line = self.lines.get(key)
        if line is not None and line.turn is not None:
            line.pause = 0.0
            line.turn.woken.set()

    def pause(self, key: str) -> float:
        """Seconds for which there is no use in trying at the bottleneck `key`, where others wait."""
        return max(0.0, self.lines[key].pause - self._clock.monotonic())

    def seconds(self, keys: Iterable[str]) -> float:
        """How long all those will take who wait at the bottleneck of `keys` that is soonest done with them, at the rate of late."""
        now = self._clock.monotonic()
        return min([self.lines[key].seconds(now) for key in keys if key in self.lines], default=0.0)

    def _in_vain(self, waiter: Waiter, now: float) -> bool:
        """Whether no room can come in its time."""
        return _is_in_vain({key: self.lines[key].pause - now for key in waiter.places}, waiter.until - now)

    def _due(self, waiter: Waiter) -> float:
        """When `waiter` is to try: at once where it has the turn and there may be room; never where it has not."""
        due = inf
        for key in waiter.places:
            line = self.lines[key]
            if line.turn is waiter:
                first = line.first()
                if first is not None and first is not waiter:
                    # Somebody of a greater priority has come.
                    line.turn = first
                    first.woken.set()
                elif line.pause < due:
                    due = line.pause
        return due

    def _leave(self, waiter: Waiter, key: str, *, served: bool) -> None:
        line = self.lines[key]
        line.leave(waiter.places.pop(key), served=served)
        if line.turn is not waiter:
            return
        line.turn = line.first()
        if line.turn is None:
            del self.lines[key]
            return
        if served:
            line.pause = 0.0
        line.turn.woken.set()

    async def _tell_places(self) -> None:
        """Tell every waiting client its place, when it has changed: a sort per line and second."""
        while True:
            await asyncio.sleep(0)
            best: dict[Waiter, int] = {}
            for line in self.lines.values():
                for place, waiter in enumerate(line.ordered(), 1):
                    best[waiter] = min(place, best.get(waiter, place))
            for waiter, place in best.items():
                if place != waiter.told:
                    waiter.told = place
                    waiter.call.notice(Status("waiting", f"Place {place} in the queue", {"place": place}))
            await self._clock.sleep(TELL)


def _is_in_vain(waits: dict[str, float], seconds: float) -> bool:
    """Whether no room can come within `seconds`."""
    return seconds <= 0 or (
        bool(waits) and all([wait > seconds and _takes_time(key, wait) for key, wait in waits.items()])
    )


def _size(call: Call) -> int:
    """Bytes of what `call` asks, with what was added to it here. Costs time in proportion, far less than it took to read it."""
    asked = call.embedding or call.request
    try:
        return len(_encode(asked))
    except (OverflowError, ValueError):
        # A number or a string that only JSON can hold.
        return len(repr(asked))


def _takes_time(key: str, seconds: float) -> bool:
    """Whether nothing but time brings room at the bottleneck `key`, which has none for `seconds`: tokens may come back sooner, and so may
    calls, unless none is taken for a while."""
    return key.endswith(_BY_TIME) or (seconds > SOON and key.endswith(_AT_ONCE))
