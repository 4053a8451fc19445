"""The one thread that writes the streams' file. Everything that waits goes into one transaction, and is answered together:

    submit -> what waits (grows while the disk works) -> BEGIN, each piece of work, COMMIT -> one wake-up of the event loop

What could not be committed is tried again as it is, ever more seldom, for `patience` seconds. Its outcome is unknown until then, so
work that is tried again is told so.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.sqlite.cleaning import Cleaning
from cauce.stores.sqlite.stream_tables import Synchronous, open_streams

PATIENCE = 10.0
"""Seconds that work waits for the file to take it."""

_FIRST_WAIT = 0.01
_LONGEST_WAIT = 0.5
_CHECKPOINT_EVERY = 1.0
"""Seconds between a write and the checkpoint that takes it into the file itself."""

_CHECKPOINT_AT = 16 * 1024 * 1024
"""Bytes of writes after which a checkpoint does not wait."""

_LONGEST_WAL = 32 * 1024 * 1024
"""Bytes of write-ahead log beyond which its last pages are taken in between two writes, so that it begins anew."""

_PATIENCE_TO_CLEAN = 0.25
"""Seconds that those who write may be waited for, and wait, when the file is cleaned."""

_ROW = 6 * 4096
"""Bytes of pages that one piece of work writes beside its own, roughly."""

logger = logging.getLogger("cauce.streams")


class Refused(Exception):
    """Work that wrote nothing: `reason` is what whoever submitted it gets to see."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Work(Protocol):
    """What is done in a transaction together with the work of others."""

    @property
    def size(self) -> int:
        """Bytes it writes, roughly."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether what it writes is on the disk before it is answered, with `normal` too, and all that was written before."""
        ...

    def apply(self, database: sqlite3.Connection, again: bool) -> Any:
        """Do it; gives what `submit` gives. Raises `Refused` with nothing written. `again`: it may have been committed before."""
        ...

    def committed(self, result: Any, /) -> None:
        """Called in the event loop once `result` is on disk, whether or not somebody still waits for it."""
        ...


class _Pending:
    __slots__ = ("again", "future", "result", "until", "work")

    def __init__(self, work: Work, future: "asyncio.Future[Any]", until: float) -> None:
        self.work = work
        self.future = future
        self.until = until
        self.again = False
        self.result: Any = None


class StreamWriter:
    """`start` begins the thread, `stop` ends it after what waits. `submit` belongs to one event loop."""

    def __init__(
        self, path: Path, clock: Clock, *, synchronous: Synchronous = "full", patience: float = PATIENCE
    ) -> None:
        """Open the file. Raises `SchemaError`, `OSError`."""
        self.database = open_streams(path, synchronous)
        self._lazy = synchronous == "normal"
        self._path = path
        self._clock = clock
        self._patience = patience
        self._waiting: SimpleQueue[_Pending | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._dirty = threading.Event()
        self._hurry = threading.Event()
        self._catch_up = False
        self._written = 0
        self._ended = False
        self.commits = 0
        """Transactions so far."""
        self.up = True
        """Whether the file takes what is written, as far as was tried."""
        self._thread = threading.Thread(target=self._write, name="streams-writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._checkpoint, name="streams-checkpoint", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._checkpointer.start()

    async def stop(self) -> None:
        """End after what waits has been written, and close the file."""
        if self._ended:
            return
        self._ended = True
        self._stopping.set()
        self._dirty.set()
        self._hurry.set()
        if self._loop is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._checkpointer.join)
            # What the thread had answered last is delivered before anybody goes on.
            await asyncio.sleep(0)
        with contextlib.suppress(sqlite3.Error):
            Cleaning(self._clock).clean(self.database)
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.database.close()

    def submit(self, work: Work, patience: float | None = None) -> "asyncio.Future[Any]":
        """Have `work` written; the future gives its result once it is on disk. It fails with `LogUnavailable`, after `patience` seconds if
        they are given."""
        loop = self._loop
        if loop is None or self._ended:
            raise LogUnavailable("streams are not kept now: the server starts or ends", retry_after=1)
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.put(_Pending(work, future, self._clock.monotonic() + (patience or self._patience)))
        return future

    def _write(self) -> None:
        ended = False
        while not ended:
            first = self._waiting.get()
            batch = [] if first is None else [first]
            ended = self._gather(batch) or first is None
            if batch:
                self._survive(batch)
            if self._catch_up:
                self._catch_up = False
                with contextlib.suppress(sqlite3.Error):
                    self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _survive(self, batch: list[_Pending]) -> None:
        """Commit `batch`; an error that nobody expected fails it, and not the thread."""
        try:
            self._commit(batch)
        except Exception:
            logger.exception("an unexpected error while streams were written")
            self._undo()
            for pending in batch:
                pending.result = Refused(
                    LogUnavailable("streams cannot be written: an unexpected error", retry_after=5)
                )
            self._acknowledge(batch)

    def _gather(self, batch: list[_Pending]) -> bool:
        """Take everything that waits into `batch`; whether the end has come."""
        try:
            while True:
                pending = self._waiting.get_nowait()
                if pending is None:
                    return True
                batch.append(pending)
        except Empty:
            return False

    def _commit(self, batch: list[_Pending]) -> None:
        """Commit `batch`, however often that takes; what has waited for too long is given up."""
        wait = _FIRST_WAIT
        while batch:
            try:
                self._transact(batch)
            except (sqlite3.OperationalError, sqlite3.InternalError) as error:
                self.up = False
                self._undo()
                if wait == _FIRST_WAIT:
                    logger.warning("streams cannot be written to %s now (%s): they wait", self._path, error)
            except (sqlite3.Error, OverflowError, ValueError) as error:
                self._undo()
                self._each(batch, error)
                return
            else:
                self.up = True
                self._acknowledge(batch)
                return
            batch = self._still(batch)
            if batch:
                self._stopping.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _transact(self, batch: list[_Pending]) -> None:
        if self._lazy and any([pending.work.lasting for pending in batch]):
            self.database.execute("PRAGMA synchronous = FULL")
            try:
                self._write_down(batch)
            finally:
                # It cannot be said inside of a transaction that failed.
                self._undo()
                self.database.execute("PRAGMA synchronous = NORMAL")
        else:
            self._write_down(batch)

    def _write_down(self, batch: list[_Pending]) -> None:
        database = self.database
        database.execute("BEGIN IMMEDIATE")
        size = 0
        for pending in batch:
            try:
                pending.result = pending.work.apply(database, pending.again)
                size += pending.work.size + _ROW
            except Refused as refused:
                pending.result = refused
        database.execute("COMMIT")
        self.commits += 1
        self._written += size
        self._dirty.set()
        if self._written > _CHECKPOINT_AT:
            self._hurry.set()

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.database.rollback()

    def _each(self, batch: list[_Pending], error: Exception) -> None:
        """Something in `batch` cannot be written at all: each is committed alone, so that it fails alone."""
        if len(batch) > 1:
            for pending in batch:
                self._commit([pending])
            return
        batch[0].result = Refused(error)
        self._acknowledge(batch)

    def _still(self, batch: list[_Pending]) -> list[_Pending]:
        """Those of `batch` that may wait on. The others are told."""
        now = self._clock.monotonic()
        given_up: list[_Pending] = []
        still: list[_Pending] = []
        for pending in batch:
            pending.again = True
            if pending.until <= now or self._stopping.is_set():
                pending.result = Refused(LogUnavailable("streams cannot be written now: try again", retry_after=5))
                given_up.append(pending)
            else:
                still.append(pending)
        if given_up:
            logger.error("gave up %d writes of streams: %s does not take them", len(given_up), self._path)
            self._acknowledge(given_up)
        return still

    def _acknowledge(self, batch: list[_Pending]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            # The loop may be closed: nobody is left to hear it.
            self._loop.call_soon_threadsafe(_deliver, batch)

    def _checkpoint(self) -> None:
        """Take what was written into the file itself, from time to time."""
        database = self._quietly_open()
        cleaning = Cleaning(self._clock)
        # A process before this one may have left something to clean.
        self._dirty.set()
        while database is not None and not self._stopping.is_set():
            self._dirty.wait()
            if self._hurry.wait(_CHECKPOINT_EVERY):
                self._hurry.clear()
            self._dirty.clear()
            self._written = 0
            clean = False
            with contextlib.suppress(sqlite3.Error):
                _, pages, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._catch_up = pages * 4096 > _LONGEST_WAL
                clean = cleaning.clean(database)
            if not clean:
                self._dirty.set()
        if database is not None:
            database.close()

    def _quietly_open(self) -> sqlite3.Connection | None:
        try:
            database = sqlite3.connect(
                self._path, timeout=_PATIENCE_TO_CLEAN, isolation_level=None, check_same_thread=False
            )
            database.execute("PRAGMA secure_delete = ON")
            return database
        except sqlite3.Error:
            logger.exception("no checkpoints of %s are made", self._path)
            return None


def _deliver(batch: list[_Pending]) -> None:
    """Tell everybody, in the event loop."""
    for pending in batch:
        result = pending.result
        refused = isinstance(result, Refused)
        if not refused:
            pending.work.committed(result)
        if not pending.future.done():
            if refused:
                pending.future.set_exception(result.reason)
            else:
                pending.future.set_result(result)
