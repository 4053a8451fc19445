"""Cached answers in a file of their own, `cache.sqlite`: there after a restart, and more than memory holds.

It may be deleted whenever nobody has it open. One thread reads and writes it; answers are gathered for a second and written together.
What is not in it is known without asking it. A file that cannot be read is begun anew; one that cannot be written is left alone.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cauce.ports.cache import CachedAnswer
from cauce.ports.clock import Clock
from cauce.stores.sqlite.transaction import transaction

VERSION = 1
"""Of the table. A file of another version is begun anew."""

_WAITING = 16 * 1024 * 1024
"""Bytes that may wait to be written. Beyond that answers are not kept: the disk is too slow for them."""

GATHERED = 1.0
"""Seconds that answers are gathered before they are written: a transaction costs much more than an answer in it."""

_AT_ONCE = 100
"""Answers of one transaction."""

_BATCH = 20
_MOST_BATCHES = 200
_PER_ENTRY = 1024
"""Bytes of an answer, for the size of the filter."""

_SCHEMA = f"""
CREATE TABLE answers (
    n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, until REAL NOT NULL, stored REAL NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, pieces INTEGER NOT NULL, deltas BLOB NOT NULL
);
CREATE INDEX answers_until ON answers (until);
PRAGMA user_version = {VERSION};
"""

_Waiting = tuple[CachedAnswer, float] | None
"""An answer and until when it is kept; None: it is to be deleted."""

logger = logging.getLogger("cauce.cache")


class SqliteCache:
    """See `ports.cache.BoundedCache`. `most_bytes` bounds the file; the oldest answers go first, and one that is larger alone is not
    kept. Empty until it is started."""

    def __init__(self, path: Path, clock: Clock, most_bytes: int) -> None:
        self._path = path
        self._clock = clock
        self._most = most_bytes
        self._thread = ThreadPoolExecutor(1, "cauce-cache")
        self._file: sqlite3.Connection | None = None
        self._usable = False
        self._known = _Filter(most_bytes // _PER_ENTRY)
        self._lock = threading.Lock()
        self._waiting: dict[bytes, _Waiting] = {}
        self._waiting_bytes = 0
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes of the file that hold something, as of the last write."""
        return self._size

    def start(self) -> None:
        """Open the file."""
        self._usable = True
        self._thread.submit(self._work, self._open)

    async def aclose(self) -> None:
        """Write what waits, and close the file."""
        if self._usable:
            await self.written()
            self._usable = False
            await asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown(wait=False)

    async def written(self) -> None:
        """Return once all that waits is in the file."""
        self._flush()
        await asyncio.wrap_future(self._thread.submit(_nothing))

    async def get(self, key: bytes) -> CachedAnswer | None:
        if not self._usable:
            return None
        with self._lock:
            if key in self._waiting:
                waiting = self._waiting[key]
                return waiting[0] if waiting is not None and waiting[1] > self._clock.now() else None
        if self._known.complete and key not in self._known:
            return None
        return await asyncio.wrap_future(self._thread.submit(self._read, key))

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        if len(answer.deltas) > self._most:
            await self.delete(key)
        elif keep > 0 and self._usable and self._waiting_bytes + len(answer.deltas) <= _WAITING:
            self._known.add(key)
            self._waiting_bytes += len(answer.deltas)
            self._enqueue(key, (answer, self._clock.now() + keep))

    async def delete(self, key: bytes) -> None:
        if self._usable and (key in self._known or not self._known.complete):
            self._enqueue(key, None)

    def _enqueue(self, key: bytes, what: _Waiting) -> None:
        with self._lock:
            self._waiting[key] = what
            count = len(self._waiting)
        if count == 1:
            self._timer = asyncio.get_running_loop().call_later(GATHERED, self._flush)
        elif count >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._thread.submit(self._work, self._write)

    # What follows runs in the thread.

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (sqlite3.OperationalError, OSError) as error:
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._file = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        [version] = file.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            if version or file.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise sqlite3.DatabaseError("it holds something else")
            file.executescript(_SCHEMA)
        for (key,) in file.execute("SELECT key FROM answers"):
            self._known.add(key)
        self._known.complete = True
        self._size = self._measured(file)

    def _read(self, key: bytes) -> CachedAnswer | None:
        if self._file is None:
            return None
        try:
            row = self._file.execute(
                "SELECT deltas, stored, provider, model, pieces FROM answers WHERE key = ? AND until > ?",
                (key, self._clock.now()),
            ).fetchone()
        except sqlite3.OperationalError as error:
            self._give_up(error)
            return None
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
            return None
        return CachedAnswer(*row) if row is not None else None

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._waiting_bytes = 0
        file = self._file
        if file is None:
            return
        entries = list(waiting.items())
        for first in range(0, len(entries), _AT_ONCE):
            self._transaction(file, entries[first : first + _AT_ONCE])

    def _transaction(self, file: sqlite3.Connection, entries: list[tuple[bytes, _Waiting]]) -> None:
        put = [
            (key, what[1], what[0].stored, what[0].provider, what[0].model, what[0].pieces, what[0].deltas)
            for key, what in entries
            if what is not None
        ]
        with transaction(file):
            file.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key, what in entries if what is None])
            file.executemany(
                "INSERT OR REPLACE INTO answers (key, until, stored, provider, model, pieces, deltas)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                put,
            )
            self._make_room(file)

    def _make_room(self, file: sqlite3.Connection) -> None:
        """Let go of answers whose time is over, some at a time, and of the oldest while there are too many."""
        oldest = "DELETE FROM answers WHERE n IN (SELECT n FROM answers ORDER BY n LIMIT ?)"
        over = "DELETE FROM answers WHERE n IN (SELECT n FROM answers WHERE until <= ? ORDER BY until LIMIT ?)"
        file.execute(over, (self._clock.now(), _AT_ONCE))
        for _ in range(_MOST_BATCHES):
            self._size = self._measured(file)
            if self._size <= self._most:
                break
            file.execute(oldest, (_BATCH,))

    def _measured(self, file: sqlite3.Connection) -> int:
        pages, free, size = [
            file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        ]
        return (pages - free) * size

    def _begin_anew(self, error: Exception) -> None:
        """The file is no use: it is replaced by an empty one."""
        logger.warning("%s: the cache of answers cannot be read and is begun anew: %s", self._path, error)
        self._close()
        for ending in ("", "-wal", "-shm"):
            Path(f"{self._path}{ending}").unlink(missing_ok=True)
        try:
            self._open()
        except (sqlite3.Error, OSError) as again:
            self._give_up(again)

    def _give_up(self, error: Exception) -> None:
        """The disk is of no use: go on without it."""
        if self._usable:
            logger.warning("%s: the cache of answers is kept in memory only: %s", self._path, error)
        self._usable = False
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _nothing() -> None:
    """What the thread does last."""


class _Filter:
    """Which keys may be there: never wrong about one that is, seldom about one that is not.

    A Bloom filter of 16 bits per entry with three hashes, which are parts of the key itself: a digest. Keys that are
    deleted stay in it until the next start.
    """

    def __init__(self, entries: int) -> None:
        self._bits = max(1 << 16, 1 << (max(1, entries) * 16 - 1).bit_length())
        self._mask = self._bits - 1
        self._table = bytearray(self._bits // 8)
        self.complete = False
        """All keys that are there have been added."""

    def add(self, key: bytes) -> None:
        for place in self._places(key):
            self._table[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: bytes) -> bool:
        table = self._table
        return all([table[place >> 3] >> (place & 7) & 1 for place in self._places(key)])

    def _places(self, key: bytes) -> tuple[int, int, int]:
        whole = int.from_bytes(key[:15], "little")
        mask = self._mask
        return whole & mask, whole >> 40 & mask, whole >> 80 & mask
