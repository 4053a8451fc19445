"""Who reads which stream, and what becomes of one that nobody reads any more.

A timer begins when the last reader leaves, and ends when one comes. Readers of other processes are seen by what those write down of
them from time to time. A stream that nobody has read yet is not abandoned.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from cauce.domain.errors import CauceError
from cauce.domain.stream import StreamKey
from cauce.engine.streams.options import StreamOptions
from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable, StreamLog

SEEN_EVERY = 5.0
"""Seconds between two words of a process about streams that are read there and written elsewhere."""

REJOIN = 30.0
"""Seconds that readers have to come back to a stream whose process has gone, whatever its own rule: it was not they who left."""

ABANDONED = "abandoned"
"""The cause of a cancel for want of readers."""

_AGAIN = 1.0
_TOLD = 64
"""Streams whose readers are told of at a time: meanwhile nobody can take them over."""

logger = logging.getLogger("cauce.streams")


class _Watched(msgspec.Struct):
    """A stream that is written here. `grace`: seconds without a reader until it is given up; None: never."""

    grace: float | None
    timer: asyncio.Task[None] | None = None


class Presence:
    """`give_up` is awaited for a stream that nobody reads any more. `shared`: there may be readers in other processes."""

    def __init__(
        self, log: StreamLog, clock: Clock, give_up: Callable[[StreamKey, str], Awaitable[object]], *, shared: bool
    ) -> None:
        self._log = log
        self._clock = clock
        self._give_up = give_up
        self._shared = shared
        self._readers: dict[StreamKey, int] = {}
        self._watched: dict[StreamKey, _Watched] = {}
        self._unsaid: set[StreamKey] = set()
        self._telling: asyncio.Task[None] | None = None

    def attach(self, key: StreamKey) -> None:
        """A reader is here."""
        self._readers[key] = self._readers.get(key, 0) + 1
        watched = self._watched.get(key)
        if watched is not None:
            _stop(watched)
        elif self._shared and self._readers[key] == 1:
            # Whoever writes it may be about to give it up.
            self._unsaid.add(key)
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell(), name="readers have come")

    def detach(self, key: StreamKey) -> None:
        """A reader has left."""
        left = self._readers.pop(key, 0) - 1
        if left > 0:
            self._readers[key] = left
            return
        watched = self._watched.get(key)
        if watched is not None and watched.grace is not None:
            self._begin(key, watched, watched.grace)

    def watch(self, key: StreamKey, options: StreamOptions, *, had_readers: bool = False) -> None:
        """The stream is written here from now on. `had_readers`: elsewhere, before."""
        grace = {"continue": None, "grace": options.grace, "cancel": 0.0}[options.on_disconnect]
        watched = self._watched[key] = _Watched(grace)
        if had_readers and grace is not None and key not in self._readers:
            self._begin(key, watched, max(grace, REJOIN))

    def unwatch(self, key: StreamKey) -> None:
        """It is not written here any more."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            _stop(watched)

    async def _tell(self) -> None:
        """Those that come while it is told of some are told of together."""
        while self._unsaid:
            keys = list(self._unsaid)[:_TOLD]
            self._unsaid.difference_update(keys)
            with contextlib.suppress(LogUnavailable):
                await self._log.seen(keys)

    async def read_by_anyone(self, key: StreamKey) -> bool:
        """Whether somebody reads it, here or elsewhere. Raises `LogUnavailable`."""
        if key in self._readers or not self._shared:
            return key in self._readers
        ago = await self._log.unseen(key)
        return ago is not None and ago < 2 * SEEN_EVERY

    def read_elsewhere(self) -> Sequence[StreamKey]:
        """Streams that are read here and not written here: what other processes are to hear of."""
        return [key for key in self._readers if key not in self._watched]

    def _begin(self, key: StreamKey, watched: _Watched, grace: float) -> None:
        _stop(watched)
        watched.timer = asyncio.create_task(self._wait(key, grace), name=f"nobody reads {key.id}")

    async def _wait(self, key: StreamKey, grace: float) -> None:
        wait = grace
        while True:
            if wait > 0:
                await self._clock.sleep(wait)
            try:
                ago = await self._log.unseen(key) if self._shared else None
                # Another process tells of its readers every so often only.
                wait = 0.0 if ago is None else max(grace, 2 * SEEN_EVERY) - ago
                if wait <= 0:
                    logger.info("stream %s: nobody reads it any more", key.id)
                    await self._give_up(key, ABANDONED)
                    return
            except LogUnavailable:
                wait = _AGAIN
            except CauceError as error:
                logger.info("stream %s is not given up: %s", key.id, error.message)
                return


def _stop(watched: _Watched) -> None:
    if watched.timer is not None:
        watched.timer.cancel()
        watched.timer = None
