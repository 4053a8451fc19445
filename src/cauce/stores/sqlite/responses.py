"""Kept responses in a file of their own, `responses.sqlite`: there after a restart, bounded in age and bytes.

One thread reads and writes it. What is to be written is gathered for a moment and written together, so that an answer does not wait
for the disk; reading comes after all that waits. Only `settle` waits: its log may be forgotten afterwards.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from cauce.domain.errors import Overloaded
from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey
from cauce.ports.clock import Clock
from cauce.ports.responses import KeptResponse
from cauce.stores.inproc.responses import KEEP
from cauce.stores.sqlite.cleaning import empty_log, rewrite
from cauce.stores.sqlite.schema import Migration, open_database
from cauce.stores.sqlite.transaction import transaction

FILE = "responses.sqlite"
"""What the file is called, in the data folder."""

MOST_BYTES = 1024 * 1024 * 1024

GATHERED = 0.1
"""Seconds that responses are gathered before they are written."""

_MOST_WAITING = 64 * 1024 * 1024
"""Bytes that may wait to be written. Beyond that responses are not kept: the disk is too slow for them."""

_AT_ONCE = 100
_MOST_BATCHES = 200

MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE responses (
            n INTEGER PRIMARY KEY, principal TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL,
            state TEXT NOT NULL, body BLOB, context BLOB, tape BLOB, UNIQUE (principal, id)
        )""",
        "CREATE INDEX promised_responses ON responses (n) WHERE state = 'promised'",
    ),
    ("ALTER TABLE responses ADD COLUMN private INTEGER NOT NULL DEFAULT 0",),
    (
        # Who asked, to find what is to be erased.
        "ALTER TABLE responses ADD COLUMN user TEXT",
        """UPDATE responses SET user = CASE WHEN json_valid(CAST(body AS TEXT))
            THEN nullif(substr(json_extract(CAST(body AS TEXT), '$.user'), 1, 200), '') END""",
        "CREATE INDEX responses_of_users ON responses (principal, user) WHERE user IS NOT NULL",
    ),
)

_PUT = """INSERT OR REPLACE INTO responses (principal, id, created, state, body, context, tape, user, private)
    VALUES (?, ?, ?, 'kept', ?, ?, ?, ?, ?)"""
_SETTLE = """INSERT INTO responses (principal, id, created, state, body, context, tape, user, private)
    VALUES (?, ?, ?, 'kept', ?, ?, ?, ?, ?)
    ON CONFLICT (principal, id) DO UPDATE SET state = 'kept', body = excluded.body, context = excluded.context,
    tape = excluded.tape, user = excluded.user, private = excluded.private WHERE state = 'promised'"""
_PROMISE = "INSERT OR IGNORE INTO responses (principal, id, created, state) VALUES (?, ?, ?, 'promised')"
_RENOUNCE = "DELETE FROM responses WHERE principal = ? AND id = ? AND state = 'promised'"
_DELETED = "UPDATE responses SET state = 'deleted', body = NULL, context = NULL, tape = NULL, user = NULL"
_DELETE = f"""{_DELETED}
    WHERE principal = ? AND id = ? AND state <> 'deleted' AND created > ?"""
_ERASE = f"{_DELETED} WHERE principal = ? AND (? IS NULL OR user = ?) AND state = 'kept'"

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_Write = tuple[str, StreamKey, KeptResponse | float | None]
"""A statement, whose response it is about, and the response; for a promise, when it was made."""

T = TypeVar("T")

logger = logging.getLogger("cauce.stores")


class SqliteResponses:
    """See `ports.responses.Responses`. `keep` is in seconds; the file is of about `most_bytes` at most, the oldest forgotten first."""

    def __init__(self, path: Path, clock: Clock, *, keep: float = KEEP, most_bytes: int = MOST_BYTES) -> None:
        """Raises `SchemaError`, and `OSError` when the folder cannot be written."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = open_database(path, MIGRATIONS)
        self._path = path
        self._clock = clock
        self._keep = keep
        self._most = most_bytes
        self._thread = ThreadPoolExecutor(1, "cauce-responses")
        self._waiting: list[_Write] = []
        self._unwritten = 0
        """Bytes of responses that wait or are being written."""
        self._timer: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """Write what waits, and close the file."""
        with contextlib.suppress(Overloaded):
            await self._do(_nothing)
        await asyncio.wrap_future(self._thread.submit(self._file.close))
        self._thread.shutdown(wait=False)

    async def put(self, scope: Scope, response: KeptResponse) -> None:
        if self._has_room(response):
            self._enqueue(_PUT, StreamKey(scope.principal, response.id), response)

    async def get(self, scope: Scope, id: str) -> KeptResponse | None:
        asked = """SELECT created, body, context, tape, user, private FROM responses
            WHERE principal = ? AND id = ? AND state = 'kept' AND created > ?"""
        row = await self._do(lambda: self._one(asked, (scope.principal, id, self._horizon())))
        if row is None:
            return None
        created, body, context, tape, user, private = row
        items = tuple([bytes(item) for item in _decode_items(context)])
        return KeptResponse(id, created, body, items, tape, user, bool(private))

    async def delete(self, scope: Scope, id: str) -> bool:
        def delete() -> bool:
            deleted = self._file.execute(_DELETE, (scope.principal, id, self._horizon())).rowcount > 0
            if deleted:
                with contextlib.suppress(sqlite3.Error):
                    # While somebody reads it stays in the log of writes, until the next time.
                    empty_log(self._file)
            return deleted

        return await self._do(delete)

    async def erase(self, principal: str, user: str | None) -> int:
        return await self._do(lambda: self._erase(principal, user))

    async def deleted(self, scope: Scope, id: str) -> bool:
        asked = "SELECT 1 FROM responses WHERE principal = ? AND id = ? AND state = 'deleted'"
        return await self._do(lambda: self._one(asked, (scope.principal, id))) is not None

    async def promise(self, key: StreamKey, created: float) -> None:
        self._enqueue(_PROMISE, key, created)

    async def promised(self, limit: int) -> Sequence[StreamKey]:
        asked = "SELECT principal, id FROM responses WHERE state = 'promised' ORDER BY n LIMIT ?"
        return await self._do(lambda: [StreamKey(*row) for row in self._file.execute(asked, (limit,)).fetchall()])

    async def settle(self, key: StreamKey, response: KeptResponse) -> None:
        if response.size > self._most:
            await self.renounce(key)
        if self._has_room(response):
            await self._do(lambda: self._transaction([(_SETTLE, key, response)]))

    async def renounce(self, key: StreamKey) -> None:
        self._enqueue(_RENOUNCE, key)

    def _has_room(self, response: KeptResponse) -> bool:
        if response.size > self._most:
            logger.warning("response %s is not kept: it is larger than all of them may be together", response.id)
        elif self._unwritten + response.size > _MOST_WAITING:
            logger.warning("response %s is not kept: %s is too slow for so many of them", response.id, self._path)
        else:
            return True
        return False

    def _enqueue(self, statement: str, key: StreamKey, what: KeptResponse | float | None = None) -> None:
        self._waiting.append((statement, key, what))
        if isinstance(what, KeptResponse):
            self._unwritten += what.size
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHERED, self._flush)

    def _flush(self) -> None:
        """Have what waits written, before anything that is asked of the thread from here on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            writes, self._waiting = self._waiting, []
            size = sum([what.size for _, _, what in writes if isinstance(what, KeptResponse)])

            def written(_: object) -> None:
                self._unwritten -= size

            asyncio.wrap_future(self._thread.submit(self._write, writes)).add_done_callback(written)

    async def _do(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in the thread. Raises `Overloaded` when the file cannot be used."""
        self._flush()
        try:
            return await asyncio.wrap_future(self._thread.submit(work))
        except sqlite3.Error as error:
            raise Overloaded(f"kept responses cannot be used now ({error}): try again", retry_after=1) from error

    # What follows runs in the thread.

    def _horizon(self) -> float:
        return self._clock.now() - self._keep

    def _one(self, asked: str, values: tuple[object, ...]) -> tuple[float, bytes, bytes, bytes, str | None, int] | None:
        return self._file.execute(asked, values).fetchone()

    def _erase(self, principal: str, user: str | None) -> int:
        erased = self._file.execute(_ERASE, (principal, user, user)).rowcount
        if erased:
            try:
                rewrite(self._file)
                empty_log(self._file)
            except sqlite3.Error as error:
                logger.warning("%s: traces of what was erased stay in it for now: %s", self._path, error)
        return erased

    def _write(self, writes: list[_Write]) -> None:
        try:
            self._transaction(writes)
        except sqlite3.Error as error:
            logger.error("%s: %d responses are not kept: %s", self._path, len(writes), error)

    def _transaction(self, writes: list[_Write]) -> None:
        with transaction(self._file):
            for statement, key, what in writes:
                self._file.execute(statement, (key.principal, key.id, *_columns(what)))
            self._make_room()

    def _make_room(self) -> None:
        """Forget responses whose time is over, some at a time, and the oldest while there are too many."""
        # The oldest have the smallest numbers, so that needs no index of its own.
        over = "DELETE FROM responses WHERE n IN (SELECT n FROM responses ORDER BY n LIMIT ?) AND created <= ?"
        oldest = "DELETE FROM responses WHERE n IN (SELECT n FROM responses ORDER BY n LIMIT ?)"
        self._file.execute(over, (_AT_ONCE, self._horizon()))
        for _ in range(_MOST_BATCHES):
            if self._used() <= self._most:
                break
            self._file.execute(oldest, (1,))

    def _used(self) -> int:
        pages, free, size = [
            self._file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        ]
        return (pages - free) * size


def _columns(what: KeptResponse | float | None) -> tuple[object, ...]:
    """What a statement takes beside whose response it is about."""
    if isinstance(what, KeptResponse):
        context = b"[" + b",".join(what.context) + b"]"
        return what.created, what.body, context, what.tape, what.user, what.private
    return () if what is None else (what,)


def _nothing() -> None:
    """What the thread does last."""
