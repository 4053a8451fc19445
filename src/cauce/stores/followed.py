"""The reading side of a log whose records are kept outside of memory, whatever keeps them.

A reader that keeps up is served from the ring of newest records and woken by the commits of this process. One that is slow reads from
the store. What other processes write is heard of as long as somebody waits for it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from cauce.domain.errors import Gone
from cauce.domain.stream import (
    TERMINAL,
    Commit,
    Head,
    History,
    Hold,
    Record,
    State,
    StreamKey,
    Unreadable,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable, unreadable
from cauce.stores.live_streams import AT_ONCE, LiveStream, LiveStreams, Marks, at_once
from cauce.stores.shelf import UNREADABLE, Page, Shelf, Stored

_AGAIN = 0.25
"""Seconds until a store that did not answer is listened to again."""

_HEARD = 2.0
"""Seconds that this process has to hear of what the store has."""

_CURRENT = 1.0
"""Seconds that what the store has said of a stream is taken for what it would say now."""

_TRUSTED = 30.0
"""Seconds after which what is known of a stream is not even compared with it."""

logger = logging.getLogger("cauce.streams")


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
        self._pages: dict[tuple[LiveStream, int, int, int], asyncio.Task[Page]] = {}
        """What the store is asked just now."""

    async def stop(self) -> None:
        """Listen no more."""
        under_way: list[asyncio.Task[Any]] = [*self._pages.values()]
        if self._listening is not None:
            under_way.append(self._listening)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def live(self, key: StreamKey) -> LiveStream:
        """The stream as it is known here, else as the store has it now. Raises `Gone`."""
        live = self.lives.get(key)
        if live is not None and self._is_current(live):
            return live
        found = await self._asked(key)
        if found is None:
            raise expired(key)
        return found[1]

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        """See `ports.stream_log.StreamLog`."""
        live = await self.live(key)
        if (newest := live.newest(after, limit)) is not None:
            return newest
        tail = live.tail
        with _readable(key):
            page = await self._page(live, after, limit)
        if not page.follows(after):
            # Another process deletes an expired stream from its beginning on.
            if self.lives.get(key) is live and not live.held:
                self.lives.gone(key)
            raise shorter(key) if live.shorter else expired(key)
        # A commit that this process has not heard of yet is not there yet.
        page = page.cut(tail - after)
        # What was written at once is one row, however much it was.
        return at_once(page.records) if page.size > AT_ONCE else page.records

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        """See `ports.stream_log.StreamLog`."""
        live = await self.live(key)
        if live.tail > after:
            return True
        epoch = live.epoch
        live.waiting += 1
        try:
            self._listen()
            async with self._clock.timeout(seconds):
                while live.tail <= after:
                    if live.gone:
                        raise shorter(key) if live.shorter else expired(key)
                    if live.state in TERMINAL and (live.tail < after or live.epoch != epoch):
                        # It ended before what somebody has read of it, or with something else there.
                        raise shorter(key)
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
        found = await self._asked(key)
        return None if found is None else found[0]

    async def _asked(self, key: StreamKey) -> tuple[Head, LiveStream] | None:
        """How the stream stands in the store, and here from now on; None if there is none. Raises `Gone`."""
        known = self._trusted(self.lives.get(key))
        tail, epoch = (0, 0) if known is None else (known.tail, known.epoch)
        stored = await self._shelf.stored(key)
        live = self.lives.get(key)
        # What was made while the store was asked is there all the same.
        if live is not None and live is known and not live.held:
            if stored is None or stored.state == "expired" or stored.row != live.row:
                self.lives.gone(key)
            elif stored.tail < tail or stored.epoch < epoch or live.is_short_of(stored.tail, stored.epoch):
                self._lost_its_newest(live)
        elif live is not None and live is known and stored is not None and stored.tail < tail:
            self._lost_its_newest(live)
        if stored is None:
            return None
        head = self._with_mark(_head(key, stored))
        live = self.lives.get(key)
        if live is None:
            live = _met(key, stored)
            self.lives.put(live)
        elif live.held and stored.tail > live.tail and stored.epoch == live.epoch:
            # Committed, and not acknowledged yet: nobody can read it.
            return msgspec.structs.replace(head, tail=live.tail, state=live.state, terminal_at=None), live
        elif live.held and stored.epoch > live.epoch:
            # It is another process's now.
            self.lost(key)
        if not live.held:
            if live.told(stored.tail, stored.epoch, stored.state):
                live.stored, live.cancelled = stored.bytes, stored.cancelled
            live.heard = self._clock.monotonic()
            self.lives.settle(live)
        return head, live

    def _is_current(self, live: LiveStream) -> bool:
        """Whether what is known of it need not be asked again: nobody else writes it, or news of it come while it is read."""
        if live.held or live.over:
            return True
        return self.lives.is_read(live) and self._clock.monotonic() - live.heard < _CURRENT

    def _trusted(self, known: LiveStream | None) -> LiveStream | None:
        """What may be compared with what the store says: that of which nothing was heard for long may be of another life."""
        if known is None or known.held or known.over or self._clock.monotonic() - known.heard < _TRUSTED:
            return known
        known.forget()
        if self.lives.is_read(known):
            return known
        self.lives.gone(known.key)
        return None

    async def history(self, key: StreamKey) -> History:
        """See `ports.stream_log.StreamLog`."""
        live = await self.live(key)
        found = await self._shelf.history(live)
        if found is None:
            raise expired(key)
        head = self._with_mark(_head(key, found.stored))
        if found.records is None:
            return History(head, None, found.attempts)
        if live.held:
            # Those who read what was taken over need not ask for it again.
            live.refill(found.records, found.stored.bytes)
        return History(head, tuple([record.delta for record in found.records]), found.attempts)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        """See `ports.stream_log.StreamLog`."""
        return await self._shelf.newest_open(principal, group)

    def created(self, key: StreamKey, row: int | str, records: Sequence[Record], size: int) -> None:
        """This process has made the stream."""
        live = self.lives.get(key)
        if live is None or live.row != row:
            live = LiveStream(key, row, 0, 1, "queued")
        # Somebody may have found it in the store before this process was told that it is there.
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
        tail = hold.tail + len(commit.deltas)
        if not live.held or live.epoch != hold.epoch:
            # Somebody else has it since, who may have gone on from less.
            live.told(tail, hold.epoch, live.state)
            self.lives.settle(live)
            return
        if commit.state is not None:
            live.state = commit.state
        live.committed(records, size)
        if commit.finish is not None:
            live.held, live.over = False, True
            self.lives.settle(live)

    def claimed(self, key: StreamKey, row: int | str, hold: Hold, state: State, size: int, *, cancelled: bool) -> None:
        """This process has taken the stream over."""
        live = self.lives.get(key)
        if live is not None and live.row == row and live.tail > hold.tail:
            self._lost_its_newest(live)
            live = None
        if live is None or live.row != row:
            live = LiveStream(key, row, hold.tail, hold.epoch, state)
        live.held = True
        live.tail, live.epoch, live.state, live.stored, live.cancelled = hold.tail, hold.epoch, state, size, cancelled
        live.forget()
        live.ring_doorbell()
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
            before = [(live, live.tail, live.epoch) for live in waited]
            try:
                news = await self._shelf.news(waited)
            except LogUnavailable:
                await self._clock.sleep(_AGAIN)
                continue
            except Exception:
                logger.exception("what other processes write cannot be heard of now")
                await self._clock.sleep(_AGAIN)
                continue
            heard = self._clock.monotonic()
            for live, tail, epoch in before:
                if live.held or self.lives.get(live.key) is not live:
                    continue
                now = news.get(live.key)
                if now is None:
                    live.heard = heard
                elif now.state == "expired":
                    self.lives.gone(live.key)
                elif now.tail < tail or now.epoch < epoch or live.is_short_of(now.tail, now.epoch):
                    self._lost_its_newest(live)
                else:
                    live.told(now.tail, now.epoch, now.state)
                    live.heard = heard
                    self.lives.settle(live)

    async def _page(self, live: LiveStream, after: int, limit: int) -> Page:
        """What the store has after `after`: whoever asks at the same time gets the same. Who has heard of a takeover since asks anew."""
        asked = (live, live.epoch, after, limit)
        under_way = self._pages.get(asked)
        if under_way is None:
            under_way = self._pages[asked] = asyncio.create_task(self._learned(live, after, limit))

            def over(page: asyncio.Task[Page]) -> None:
                del self._pages[asked]
                if not page.cancelled():
                    # Everybody may have left who would have heard of it.
                    page.exception()

            under_way.add_done_callback(over)
        return await asyncio.shield(under_way)

    async def _learned(self, live: LiveStream, after: int, limit: int) -> Page:
        """What the store has after `after`. Whoever comes once it has answered finds it in the ring."""
        tail, epoch = live.tail, live.epoch
        page = await self._shelf.records(live, after, limit)
        if page.follows(after) and live.epoch == epoch and not live.held:
            known = page.cut(tail - after)
            live.learned(known.records, known.size)
            self.lives.settle(live)
        return page


@contextlib.contextmanager
def _readable(key: StreamKey) -> Generator[None]:
    """What is read within is what this version knows. Raises `Gone` where it is not."""
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(key) from error


def _met(key: StreamKey, stored: Stored) -> LiveStream:
    """The stream as the store has it."""
    live = LiveStream(key, stored.row, stored.tail, stored.epoch, stored.state)
    live.stored = stored.bytes
    live.cancelled = stored.cancelled
    return live


def _head(key: StreamKey, stored: Stored) -> Head:
    """Raises `Gone` where there is none."""
    if isinstance(stored.head, Unreadable):
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
