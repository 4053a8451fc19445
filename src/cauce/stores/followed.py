"""The reading side of a log whose records are kept outside of memory, whatever keeps them.

A reader that keeps up is served from the ring of newest records and woken by the commits of this process. One that is slow reads from
the store. What other processes write is heard of as long as somebody waits for it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence

import msgspec

from cauce.domain.errors import Gone
from cauce.domain.stream import (
    TERMINAL,
    Commit,
    Created,
    Head,
    History,
    Hold,
    NewStream,
    Record,
    State,
    StreamKey,
    StreamLimits,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Fenced, Full, LogUnavailable, unreadable
from cauce.stores.batches import PATIENCE
from cauce.stores.live_streams import LiveStream, LiveStreams, Marks
from cauce.stores.shelf import UNREADABLE, Shelf, Stored

_AGAIN = 0.25
"""Seconds until a store that did not answer is listened to again."""


_HEARD = 2.0
"""Seconds that this process has to hear of what the store has."""

LEASE = 10.0
"""Seconds that a process may be silent before others take over its streams."""


logger = logging.getLogger("cauce.streams")


class SharedLogOptions(msgspec.Struct, frozen=True):
    """Of a log that several processes write. `retention` and `lease` are in seconds, `patience` too: how long a write waits for the server."""

    retention: float = 86_400.0
    lease: float = LEASE
    patience: float = PATIENCE
    limits: StreamLimits = StreamLimits()


class Followed:
    """See the module. It belongs to one event loop."""

    def __init__(self, shelf: Shelf, clock: Clock, *, shared: bool) -> None:
        """`shared`: other processes write too."""
        self.lives = LiveStreams()
        self.marks = Marks()
        self._shelf = shelf
        self._clock = clock
        self._shared = shared
        self._listening: asyncio.Task[None] | None = None
        self._unreadable: set[int | str] = set()

    async def stop(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def live(self, key: StreamKey) -> LiveStream:
        """The stream as it is known here, else as the store has it now. Raises `Gone`."""
        live = self.lives.get(key)
        if live is not None:
            return live
        stored = await self._shelf.stored(key)
        if stored is None:
            raise expired(key)
        _head(key, stored)
        live = self.lives.get(key)
        if live is None:
            live = LiveStream(key, stored.row, stored.tail, stored.epoch, stored.state)
            live.stored = stored.bytes
            live.cancelled = stored.cancelled
            self.lives.met(live)
        return live

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        """See `ports.stream_log.StreamLog`."""
        live = await self.live(key)
        if (newest := live.newest(after, limit)) is not None:
            return newest
        tail = live.tail
        with _readable(key):
            found = await self._shelf.records(live, after, limit)
        # Another process deletes an expired stream from its beginning on.
        if not found or found[0].seq != after + 1:
            self.lives.gone(key)
            raise expired(key)
        # A commit that this process has not heard of yet is not there yet.
        return found if found[-1].seq <= tail else [record for record in found if record.seq <= tail]

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        """See `ports.stream_log.StreamLog`."""
        live = await self.live(key)
        if live.tail > after:
            return True
        self.lives.put(live)
        live.waiting += 1
        try:
            self._listen()
            async with self._clock.timeout(seconds):
                while live.tail <= after:
                    if live.gone:
                        raise shorter(key) if live.shorter else expired(key)
                    await live.more()
        except TimeoutError:
            return False
        finally:
            live.waiting -= 1
            self.lives.settle(live)
        return True

    async def hears(self, key: StreamKey, seq: int) -> bool:
        """See `ports.stream_log.StreamLog`."""
        stored = await self._shelf.stored(key)
        # What the store does not have may come, and be something else than what somebody has read.
        return stored is not None and stored.tail >= seq and await self.wait(key, seq - 1, _HEARD)

    async def head(self, key: StreamKey) -> Head | None:
        """See `ports.stream_log.StreamLog`."""
        known = self.lives.get(key)
        tail = 0 if known is None else known.tail
        stored = await self._shelf.stored(key)
        if stored is None:
            # What was made while the store was asked is there all the same.
            if known is not None and not known.held and self.lives.get(key) is known:
                self.lives.gone(key)
            return None
        if known is not None and stored.tail < tail and not known.gone:
            self._lost_its_newest(known)
        head = _head(key, stored)
        live = self.lives.get(key)
        if live is not None and stored.tail > live.tail:
            if live.held and stored.epoch != live.epoch:
                # Another process has the stream, and has written on.
                self.lost(key)
                live.moved(stored.tail)
            elif live.held:
                # Committed, and not acknowledged yet: nobody can read it.
                head = msgspec.structs.replace(head, tail=live.tail, state=live.state, terminal_at=None)
            else:
                live.moved(stored.tail)
        return self._with_mark(head)

    async def history(self, key: StreamKey) -> History:
        """See `ports.stream_log.StreamLog`."""
        found = await self._shelf.history(await self.live(key))
        if found is None:
            raise expired(key)
        return History(self._with_mark(_head(key, found.stored)), found.deltas, found.attempts)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        """See `ports.stream_log.StreamLog`."""
        return await self._shelf.newest_open(principal, group)

    async def readable(self, look: Callable[[int], Awaitable[Sequence[Stored]]], limit: int) -> list[Head]:
        """At most `limit` of the streams that `look` finds, which is told how many are wanted. Those that cannot be read are passed
        over, and told of once."""
        while True:
            wanted = limit + len(self._unreadable)
            found = await look(wanted)
            new = [one.row for one in found if one.unreadable and one.row not in self._unreadable]
            for one in found:
                if one.row in new:
                    logger.error("%s: it is left as it is", unreadable(StreamKey("", one.name)).message)
            self._unreadable.update(new)
            if not new or len(found) < wanted:
                return [one.head for one in found if one.head is not None][:limit]

    def created(self, key: StreamKey, row: int | str, records: Sequence[Record], size: int) -> None:
        """This process has made the stream."""
        live = LiveStream(key, row, 0, 1, "queued")
        live.held = True
        live.committed(records, size)
        self.lives.put(live)

    def cancelled(self, key: StreamKey) -> None:
        """A cancel of the stream is in the store."""
        live = self.lives.get(key)
        if live is not None:
            live.cancelled = True

    def overtaken(self, hold: Hold) -> None:
        """Somebody else has the stream of `hold`, or nobody."""
        live = self.lives.get(hold.key)
        if live is not None and live.epoch == hold.epoch:
            self.lost(hold.key)

    def released(self, holds: Sequence[Hold]) -> None:
        """This process has given these up: whoever reads them here hears of what others write."""
        for hold in holds:
            self.overtaken(hold)

    def appended(self, live: LiveStream, hold: Hold, commit: Commit, records: Sequence[Record], size: int) -> None:
        """`commit` is in the store: readers may have it."""
        live.epoch = hold.epoch
        if commit.state is not None:
            live.state = commit.state
        live.committed(records, size)
        if commit.finish is not None:
            self.lives.ended(live)

    def claimed(self, key: StreamKey, row: int | str, hold: Hold, state: State, size: int, *, cancelled: bool) -> None:
        """This process has taken the stream over."""
        live = self.lives.get(key)
        if live is not None and live.tail > hold.tail:
            self._lost_its_newest(live)
            live = None
        live = live or LiveStream(key, row, hold.tail, hold.epoch, state)
        live.moved(hold.tail)
        live.held = True
        live.epoch, live.state, live.stored, live.cancelled = hold.epoch, state, size, cancelled
        self.lives.put(live)

    def lost(self, key: StreamKey) -> None:
        """The stream is another process's now."""
        live = self.lives.get(key)
        if live is not None:
            live.held = False
            if live.waiting:
                self._listen()
            self.lives.settle(live)

    def refused(self, live: LiveStream, hold: Hold) -> None:
        """An append of `hold` was fenced off."""
        if live.epoch == hold.epoch and live.tail == hold.tail:
            # As far as was known here it was right.
            self.lost(live.key)
        self.lives.settle(live)

    def forget(self, keys: Sequence[StreamKey]) -> None:
        """These have expired."""
        for key in keys:
            self.lives.gone(key)
            self.marks.forget(key)

    def _with_mark(self, head: Head) -> Head:
        mark = self.marks.get(head.key)
        return head if mark is None else msgspec.structs.replace(head, reader_mark=mark)

    def _lost_its_newest(self, live: LiveStream) -> None:
        """The store has less of the stream than it had acknowledged."""
        logger.error("stream %s: what was written of it last is lost: its readers are told", live.key.id)
        self.lives.cut(live)

    def _listen(self) -> None:
        if self._shared and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._hear(), name="streams of other processes")

    async def _hear(self) -> None:
        while waited := self.lives.waited_for():
            tails = {live.key: live.tail for live in waited}
            try:
                news = await self._shelf.news(waited)
            except LogUnavailable:
                await self._clock.sleep(_AGAIN)
                continue
            for live in waited:
                tail, state = news.get(live.key, (live.tail, live.state))
                if state == "expired":
                    self.lives.gone(live.key)
                    continue
                if tail < tails[live.key]:
                    self._lost_its_newest(live)
                    continue
                live.moved(tail)
                if state in TERMINAL:
                    self.lives.ended(live)


class FollowedLog:
    """What is the same of all logs that are followed. See `ports.stream_log.StreamLog`."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        return await self._followed.read(key, after, limit)

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        return await self._followed.wait(key, after, seconds)

    async def hears(self, key: StreamKey, seq: int) -> bool:
        return await self._followed.hears(key, seq)

    async def head(self, key: StreamKey) -> Head | None:
        return await self._followed.head(key)

    async def history(self, key: StreamKey) -> History:
        return await self._followed.history(key)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        return await self._followed.newest_open(principal, group)

    def attach(self, key: StreamKey) -> int:
        self._followed.lives.attach(key)
        return self._followed.marks.attach(key)

    def detach(self, key: StreamKey) -> None:
        self._followed.lives.detach(key)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        self._followed.marks.mark(key, reader, seq)

    async def _attached(self, key: StreamKey) -> Created:
        """What creating a stream gives that was there before."""
        head = await self.head(key)
        if head is None:
            raise LogUnavailable("the stream was deleted just now: try again", retry_after=1)
        return Created(head, None)

    async def _written(self, hold: Hold) -> LiveStream:
        """The stream that `hold` is of. Raises `Fenced` where it is gone."""
        try:
            return await self._followed.live(hold.key)
        except Gone as error:
            raise Fenced from error


def check(limits: StreamLimits, live: LiveStream, hold: Hold, commit: Commit, size: int) -> None:
    """Raises `Full` where `commit`, of `size` bytes, would make the stream longer than it may be."""
    if commit.finish is None and (live.stored + size > limits.bytes or hold.tail + len(commit.deltas) > limits.records):
        raise Full


def fresh(new: NewStream) -> Head:
    """The head of a stream that was made just now."""
    return Head(new.key, new.request, new.request_hash, new.created, "queued", 1, 1, wire=new.wire, policy=new.policy)


@contextlib.contextmanager
def _readable(key: StreamKey) -> Generator[None]:
    """What is read within is what this version knows. Raises `Gone` where it is not."""
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(key) from error


def _head(key: StreamKey, stored: Stored) -> Head:
    """Raises `Gone` where there is none."""
    if stored.unreadable:
        raise unreadable(key)
    if stored.head is None:
        raise expired(key)
    return stored.head


def shorter(key: StreamKey) -> LogUnavailable:
    """What readers get of a stream of which they have read more than there is."""
    return LogUnavailable(f"what was written last of stream {key.id!r} is lost: read it again", retry_after=1)


def expired(key: StreamKey) -> Gone:
    """What readers of a stream get that is not there any more."""
    return Gone(f"stream {key.id!r} has expired")
