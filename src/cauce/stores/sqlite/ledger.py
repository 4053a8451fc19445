"""The ledger on disk: attempts are spooled as they end, and go into `ledger.sqlite` in groups, in a thread of their own.

    record -> spool (one write) -> the thread: rows, sums and the spool's position in one transaction

The thread is handed what was spooled; what it was not, since there was too much or a process before this one spooled it, it reads.
So what was recorded is never lost with the process and never counted twice: a start goes on at the position.

Several processes may share a ledger. Each has a spool of its own, and commits that; what one that is gone has left, any other takes in.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from cauce.domain.errors import Overloaded
from cauce.domain.request import Scope
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry, LedgerStanding
from cauce.ports.usage import Holder, Opinion, Query, Report, SpendUnit, Votes
from cauce.stores.attempts import Attempt, attempt_of
from cauce.stores.periods import HOUR
from cauce.stores.sqlite.book import Book, Moved, decoded
from cauce.stores.sqlite.comments import erase_comments
from cauce.stores.sqlite.reading import FILE, Reading
from cauce.stores.sqlite.retention import prune
from cauce.stores.sqlite.settings import LedgerSettings
from cauce.stores.sqlite.spool import Position, Spool, delete_before, read
from cauce.stores.sqlite.spools import Claim, end_of, folder_of, is_claimed

GATHER = 0.5
"""Seconds that a group of attempts has to come together."""

MOST_HANDED = 8192
MOST_AT_ONCE = 1024
"""Attempts that are handed on in memory, and that are committed together."""

_LOOK = 1.0
"""Seconds between looks for what processes that are gone have left, while nothing else is to be done."""

_RETRY = 5.0
"""Seconds until what could not be committed is tried again."""

_PRUNE_EVERY = 50_000
"""Attempts after which what is too old or too much is looked for."""

_DEFAULT = LedgerSettings()

logger = logging.getLogger("cauce.ledger")

T = TypeVar("T")


class SqliteLedger:
    """See `ports.ledger.Ledger`, `ports.usage.Usage` and `ports.usage.Feedback`."""

    def __init__(self, folder: Path, clock: Clock, settings: LedgerSettings = _DEFAULT) -> None:
        """Open the ledger in `folder`. Raises `SchemaError`, and `OSError` when the folder cannot be written."""
        self._ledger = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        self._settings = settings
        self._book = Book(folder / FILE)
        self.node = self._book.node
        """What it is called where several ledgers are put together. Processes that share one have one name."""
        self.workers = 1
        """How many processes share it, as was seen last."""
        self._claim = Claim(folder)
        self._folder = self._claim.folder
        self._position = self._book.begin(self._claim.number)
        self._spool = Spool(self._folder, after=self._position.file)
        self._reading = Reading(folder, clock.now, lambda: self._spool.backlog)
        self._approvals = self._reading.approvals()
        self._last: dict[str, Entry] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._append = self._spool.append
        self._readers = ThreadPoolExecutor(1, "ledger-reader")
        # Calls wait for what was spent: a long report must not be in front of them.
        self._spending = Reading(folder, clock.now, lambda: self._spool.backlog)
        self._spenders = ThreadPoolExecutor(1, "ledger-spending")
        self._handed: deque[tuple[int, int, int, Attempt]] = deque(maxlen=MOST_HANDED)
        """What was spooled last, and where: file, and the bytes it begins and ends at."""
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = False
        self._stopping = False
        self._failing = False
        self._pruned_at = 0
        self._unpruned = 0
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="ledger", daemon=True)

    @property
    def standing(self) -> LedgerStanding:
        return LedgerStanding(self._spool.waiting, self._spool.lost, self._failing)

    def record(self, entry: Entry) -> None:
        attempt = attempt_of(entry)
        try:
            record = self._encode(attempt)
        except UnicodeEncodeError:
            # Half a surrogate pair in a name that a client chose.
            attempt = cast(Attempt, tuple([_writable(member) for member in attempt]))
            record = self._encode(attempt)
        place = self._append(record)
        if place is not None:
            self._handed.append((*place, attempt))
        if entry.level != "cache":
            # Nobody was asked: it says nothing of how the provider stands.
            self._last[entry.provider] = entry
        if self._idle:
            self._wake.set()

    def last(self, provider: str) -> Entry | None:
        """The newest entry of that provider in this process."""
        return self._last.get(provider)

    async def report(self, query: Query) -> Report:
        return await self._read(self._readers, self._reading.report, query)

    async def spent(self, holder: Holder, unit: SpendUnit, since: float) -> float:
        return await self._read(self._spenders, self._spending.spent, holder, unit, since)

    async def give(self, scope: Scope, opinion: Opinion) -> bool:
        def give() -> bool:
            about = scope.tenant, scope.key, opinion, self._clock.now()
            if self._book.give(*about):
                return True
            # It may be of another process, which has not come round to committing it.
            for spool in self._others():
                self._take_in(spool)
            return self._book.give(*about)

        try:
            known = await asyncio.wrap_future(self._do(give))
        except (sqlite3.Error, OSError) as error:
            raise Overloaded(f"the ledger cannot be written now: {error}") from error
        if known:
            await self._read(self._readers, self._weigh)
        return known

    async def erase_comments(self, scope: Scope) -> int:
        try:
            return await asyncio.wrap_future(self._do(lambda: erase_comments(self._book.connection, scope)))
        except sqlite3.Error as error:
            raise Overloaded(f"the ledger cannot be written now: {error}") from error

    def approval(self, model: str) -> Votes | None:
        return self._approvals.get(model)

    def start(self) -> None:
        """Begin to follow the spool, what an earlier process left in it first."""
        self._thread.start()

    async def flush(self) -> bool:
        """Return once everything that was recorded before is committed; False if it cannot be."""
        return await asyncio.wrap_future(self._do(lambda: not self._failing))

    async def stop(self) -> None:
        """Commit what is left and let go of the files."""
        self._stopping = True
        self._hurry.set()
        self._wake.set()
        if self._thread.is_alive():
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        for readers, reading in ((self._readers, self._reading), (self._spenders, self._spending)):
            readers.shutdown()
            reading.close()
        self._spool.close()
        self._claim.let_go()
        self._book.close()

    async def _read(self, readers: ThreadPoolExecutor, question: Callable[..., T], *about: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(readers, question, *about)
        except sqlite3.Error as error:
            raise Overloaded(f"the ledger cannot be read now: {error}") from error

    def _do(self, work: Callable[[], T]) -> Future[T]:
        """Have the thread do `work`, after what was recorded before."""
        done: Future[T] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._jobs.put(job)
        self._hurry.set()
        self._wake.set()
        return done

    def _weigh(self) -> None:
        self._approvals = self._reading.approvals()

    def _follow(self) -> None:
        while True:
            self._hurry.clear()
            self._wake.clear()
            stopping = self._stopping
            waiting = self._jobs.qsize()
            try:
                self._catch_up()
            except Exception:
                logger.exception("the ledger does not go on: its entries wait in %s", self._folder)
                self._failing = True
            for _ in range(waiting):
                self._jobs.get()()
            if stopping:
                return
            self._idle = True
            rests = self._spool.end == self._position and not self._spool.backlog and self._jobs.empty()
            awaken = not rests or self._wake.wait(_LOOK)
            self._idle = False
            if awaken:
                self._hurry.wait(_RETRY if self._failing else GATHER)

    def _catch_up(self) -> None:
        """Commit what is in the spool, group by group, then what others have left, and tidy up once an hour."""
        try:
            self._spool.retry()
            while self._commit():
                pass
            self._look()
            self._prune()
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                logger.error("the ledger cannot be committed: %s; its entries wait in %s", error, self._folder)
            self._failing = True
        else:
            if self._failing:
                logger.warning("the ledger is committed again; nothing is lost")
            self._failing = False

    def _commit(self) -> bool:
        """Commit a group of our own. Whether there may be more."""
        before = self._position
        try:
            attempts, position = self._next()
            if position == before:
                return False
            self._book.write(attempts, self._claim.number, before, position)
        except (Moved, FileNotFoundError):
            # Another process needed it at once.
            self._position = self._book.positions[self._claim.number]
            return True
        self._unpruned += len(attempts)
        if position.file != before.file:
            delete_before(self._folder, position)
        self._position = position
        return True

    def _others(self) -> list[int]:
        return [spool for spool in self._book.positions if spool != self._claim.number]

    def _look(self) -> None:
        """Take in what processes that are gone have left."""
        alive = 1
        for spool in self._others():
            if is_claimed(self._ledger, spool):
                alive += 1
            else:
                self._take_in(spool)
        self.workers = alive

    def _take_in(self, spool: int) -> None:
        """Commit what is in the spool of another process by now, whether that still lives or not."""
        folder = folder_of(self._ledger, spool)
        end: Position | None = None
        while True:
            position = self._book.positions[spool]
            try:
                end = end or end_of(folder)
                if position >= end:
                    return
                records, after = read(folder, position)
                if after == position:
                    return
                self._book.write(decoded(records), spool, position, after)
            except (Moved, FileNotFoundError):
                # So is somebody else.
                continue
            self._unpruned += len(records)
            if after.file != position.file:
                delete_before(folder, after)

    def _next(self) -> tuple[list[Attempt], Position]:
        """Some of what comes after the position, and the position after that."""
        handed, (file, byte) = self._handed, self._position
        while handed and (handed[0][0], handed[0][2]) <= (file, byte):
            handed.popleft()
        attempts: list[Attempt] = []
        while handed and len(attempts) < MOST_AT_ONCE and handed[0][:2] == (file, byte):
            at, begin, end, attempt = handed.popleft()
            if (at, begin) != (file, byte):
                # What was looked at has just been pushed out by a newer one: it is read, and so is this one.
                break
            byte = end
            attempts.append(attempt)
        if attempts:
            return attempts, Position(file, byte)
        records, position = read(self._folder, self._position)
        return decoded(records), position

    def _prune(self) -> None:
        """Delete a portion of what is old or too much, once an hour and once in so many attempts until there is no more."""
        hour = int(self._clock.now()) // HOUR
        if hour == self._pruned_at and self._unpruned < _PRUNE_EVERY:
            return
        if prune(self._book, self._settings, self._clock.now()):
            self._hurry.set()
            self._wake.set()
            return
        if hour != self._pruned_at:
            self._readers.submit(self._weigh)
        self._pruned_at = hour
        self._unpruned = 0


def _writable(member: Any) -> Any:
    return member.encode("utf-8", "replace").decode() if isinstance(member, str) else member
