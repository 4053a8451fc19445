"""Conversations in a file of their own, `conversations.db`. Several processes may have it open.

What was deleted is overwritten in the file and in the log of writes beside it: see `Cleaning`. One thread reads and writes.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.errors import Overloaded
from cauce.domain.request import Scope, storable
from cauce.ports.clock import Clock
from cauce.ports.conversations import TOMBSTONE, Place
from cauce.stores.sqlite.cleaning import COUNT, ERASURES, Cleaning, empty_log
from cauce.stores.sqlite.schema import Migration, open_database
from cauce.stores.sqlite.transaction import transaction
from cauce.stores.turn_rows import CONVERSATION, MOST_BYTES, TURN, conversation_of, said, turn_of

FILE = "conversations.db"
"""What the file is called."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        # `deleted_at`: it is remembered that it was, and nothing else of it. `count` is the `seq` of its last turn.
        """CREATE TABLE conversations (
            n INTEGER PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, user_id TEXT NOT NULL DEFAULT '',
            kind TEXT NOT NULL DEFAULT 'assistant', state TEXT NOT NULL DEFAULT 'open', title TEXT NOT NULL,
            started_at REAL NOT NULL, last_at REAL NOT NULL, count INTEGER NOT NULL DEFAULT 0, deleted_at REAL,
            UNIQUE (tenant, key, id)
        )""",
        "CREATE INDEX newest_conversations ON conversations (tenant, key, last_at, id) WHERE deleted_at IS NULL",
        "CREATE INDEX oldest_conversations ON conversations (last_at) WHERE deleted_at IS NULL",
        "CREATE INDEX deleted_conversations ON conversations (deleted_at) WHERE deleted_at IS NOT NULL",
        # `message` is the whole of what was said, where that is more than a text. `user_id` is whose request it was said in.
        """CREATE TABLE turns (
            conversation INTEGER NOT NULL, seq INTEGER NOT NULL, message_id TEXT NOT NULL, role TEXT NOT NULL, speaker TEXT,
            text TEXT NOT NULL, message BLOB, happened_at REAL NOT NULL, recorded_at REAL NOT NULL, status TEXT NOT NULL,
            stream_id TEXT NOT NULL, model TEXT NOT NULL, user_id TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (conversation, seq), UNIQUE (conversation, message_id)
        ) WITHOUT ROWID""",
        "CREATE INDEX users_of_turns ON turns (user_id, conversation) WHERE user_id <> ''",
    ),
    (
        # What was begun until then is not added: it was deleted then, and begun anew.
        "ALTER TABLE conversations ADD COLUMN begins_at REAL",
        # The same of all that an owner, or a user of his, has said. A `user_id` of nothing: all users.
        """CREATE TABLE erased_owners (
            tenant TEXT NOT NULL, key TEXT NOT NULL, user_id TEXT NOT NULL, erased_at REAL NOT NULL, PRIMARY KEY (tenant, key, user_id)
        ) WITHOUT ROWID""",
    ),
    # Those of which traces may be in the file: see `Cleaning`.
    ERASURES,
)

_MADE = """INSERT INTO conversations (tenant, key, id, user_id, title, started_at, last_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
    ON CONFLICT (tenant, key, id) DO UPDATE SET user_id = excluded.user_id, title = excluded.title, started_at = excluded.started_at,
    last_at = excluded.last_at, begins_at = deleted_at, deleted_at = NULL WHERE deleted_at < ?7 RETURNING n"""
_WHERE = "tenant = ? AND key = ? AND id = ? AND deleted_at IS NULL"
_OF_USER = "AND (user_id = ? OR n IN (SELECT conversation FROM turns WHERE user_id = ? AND user_id <> ''))"
_TURNS = f"""SELECT {TURN} FROM (
    SELECT *, sum(length(text) + coalesce(length(message), 0)) OVER (ORDER BY seq) - length(text) - coalesce(length(message), 0) AS ahead
      FROM (SELECT turns.* FROM turns JOIN conversations ON conversation = n WHERE {_WHERE} AND seq > ? ORDER BY seq LIMIT ?)
) WHERE ahead < {MOST_BYTES} ORDER BY seq"""  # noqa: S608

T = TypeVar("T")


class SqliteConversations:
    """See `ports.conversations.Conversations`. `keep_for` is in seconds (None: until they are deleted)."""

    shared = False

    def __init__(self, path: Path, clock: Clock, *, keep_for: float | None = None) -> None:
        """Raises `SchemaError`, and `OSError` when the folder cannot be written."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = open_database(path, MIGRATIONS)
        # Once a turn is here its stream's log is told so: it must not be lost in a power cut that the log outlives.
        self._file.execute("PRAGMA synchronous = FULL")
        self._clock = clock
        self._keep_for = keep_for
        self._cleaning = Cleaning(clock)
        self._thread = ThreadPoolExecutor(1, "cauce-conversations")

    async def stop(self) -> None:
        """Close the file."""
        await asyncio.wrap_future(self._thread.submit(self._file.close))
        self._thread.shutdown(wait=False)

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        await self._do(lambda: self._keep(scope, id, turns, begun))

    async def make(self, scope: Scope, id: str, title: str) -> bool:
        return await self._do(lambda: self._make(scope, id, title))

    async def find(self, scope: Scope, id: str) -> Conversation | None:
        asked = f"SELECT {CONVERSATION} FROM conversations WHERE {_WHERE}"  # noqa: S608
        found = await self._do(lambda: self._rows(asked, *_name(scope, id)))
        return conversation_of(found[0]) if found else None

    async def newest(self, scope: Scope, limit: int, after: Place | None = None) -> Sequence[Conversation]:
        further, place = ("AND (last_at, id) < (?, ?)", (after.updated, after.id)) if after is not None else ("", ())
        asked = f"""SELECT {CONVERSATION} FROM conversations WHERE tenant = ? AND key = ? AND deleted_at IS NULL {further}
            ORDER BY last_at DESC, id DESC LIMIT ?"""  # noqa: S608
        found = await self._do(lambda: self._rows(asked, scope.tenant, scope.key, *place, limit))
        return [conversation_of(row) for row in found]

    async def turns(self, scope: Scope, id: str, after: int, limit: int) -> Sequence[Turn]:
        found = await self._do(lambda: self._rows(_TURNS, *_name(scope, id), after, limit))
        return [turn_of(row) for row in found]

    async def rename(self, scope: Scope, id: str, title: str) -> bool:
        asked = f"UPDATE conversations SET title = ? WHERE {_WHERE} RETURNING n"  # noqa: S608
        return bool(await self._do(lambda: self._rows(asked, storable(title), *_name(scope, id))))

    async def delete(self, scope: Scope, id: str) -> Sequence[str] | None:
        return await self._do(lambda: self._delete(scope, id))

    async def erase(self, scope: Scope, user: str | None = None) -> int:
        return await self._do(lambda: self._erase(scope, user))

    async def sweep(self, limit: int) -> int:
        return await self._do(lambda: self._sweep(limit))

    async def _do(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in the thread. Raises `Overloaded` when the file cannot be used."""
        try:
            return await asyncio.wrap_future(self._thread.submit(work))
        except sqlite3.Error as error:
            raise Overloaded(f"conversations cannot be used now ({error}): try again", retry_after=1) from error

    # What follows runs in the thread.

    def _rows(self, asked: str, *values: object) -> list[tuple[Any, ...]]:
        return self._file.execute(asked, values).fetchall()

    def _keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        file, user = self._file, storable(scope.user or "")
        with transaction(file):
            erased = (
                "SELECT 1 FROM erased_owners WHERE tenant = ? AND key = ? AND user_id IN ('', ?) AND erased_at >= ?"
            )
            if self._rows(erased, scope.tenant, scope.key, user, begun):
                return
            self._rows(_MADE, *_name(scope, id), user, "", turns[0].at, begun)
            asked = f"SELECT n, count FROM conversations WHERE {_WHERE} AND coalesce(begins_at < ?, 1)"  # noqa: S608
            found = self._rows(asked, *_name(scope, id), begun)
            if not found:
                # It was deleted since that was begun.
                return
            [(n, count)] = found
            seq = count
            for turn in turns:
                values = (n, seq + 1, storable(turn.id), *said(turn), turn.at, self._clock.now(), turn.standing)
                seq += file.execute(
                    """INSERT INTO turns (conversation, seq, message_id, role, speaker, text, message, happened_at, recorded_at, status,
                        stream_id, model, user_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                        ON CONFLICT (conversation, message_id) DO NOTHING""",
                    (*values, storable(turn.stream_id), storable(turn.model), user),
                ).rowcount
            if seq > count:
                last = max([turn.at for turn in turns])
                file.execute(
                    "UPDATE conversations SET count = ?, last_at = max(last_at, ?) WHERE n = ?", (seq, last, n)
                )

    def _make(self, scope: Scope, id: str, title: str) -> bool:
        what = (storable(scope.user or ""), storable(title), self._clock.now(), inf)
        return bool(self._rows(_MADE, *_name(scope, id), *what))

    def _delete(self, scope: Scope, id: str) -> Sequence[str] | None:
        with transaction(self._file):
            found = self._rows(f"SELECT n FROM conversations WHERE {_WHERE}", *_name(scope, id))  # noqa: S608
            if not found:
                return None
            [(n,)] = found
            streams = [
                one for (one,) in self._rows("SELECT DISTINCT stream_id FROM turns WHERE conversation = ?", n) if one
            ]
            self._empty([(n,)])
        self._clean()
        return streams

    def _erase(self, scope: Scope, user: str | None) -> int:
        which, whose = ("", ()) if user is None else (_OF_USER, (storable(user),) * 2)
        asked = f"SELECT n FROM conversations WHERE tenant = ? AND key = ? AND deleted_at IS NULL {which}"  # noqa: S608
        with transaction(self._file):
            self._file.execute(
                "INSERT OR REPLACE INTO erased_owners VALUES (?, ?, ?, ?)",
                (scope.tenant, scope.key, storable(user or ""), self._clock.now()),
            )
            found = self._rows(asked, scope.tenant, scope.key, *whose)
            if found:
                self._empty(found)
        self._clean(at_once=True)
        return len(found)

    def _empty(self, some: Sequence[tuple[Any, ...]]) -> None:
        """Leave of these, by their numbers, that they were there."""
        self._file.executemany("DELETE FROM turns WHERE conversation = ?", some)
        self._file.executemany(
            "UPDATE conversations SET title = '', user_id = '', count = 0, deleted_at = ?2 WHERE n = ?1",
            [(n, self._clock.now()) for (n,) in some],
        )
        self._file.execute(COUNT)

    def _sweep(self, limit: int) -> int:
        now = self._clock.now()
        over = "DELETE FROM conversations WHERE n IN (SELECT n FROM conversations WHERE deleted_at <= ? LIMIT ?) RETURNING n"
        with transaction(self._file):
            done = len(self._rows(over, now - TOMBSTONE, limit))
            self._file.execute("DELETE FROM erased_owners WHERE erased_at <= ?", (now - TOMBSTONE,))
            silent = "SELECT n FROM conversations WHERE last_at <= ? AND deleted_at IS NULL ORDER BY last_at LIMIT ?"
            old = [] if self._keep_for is None else self._rows(silent, now - self._keep_for, limit)
            self._file.executemany("DELETE FROM turns WHERE conversation = ?", old)
            self._file.executemany("DELETE FROM conversations WHERE n = ?", old)
        if old:
            with contextlib.suppress(sqlite3.Error):
                empty_log(self._file)
        self._clean()
        return done + len(old)

    def _clean(self, *, at_once: bool = False) -> None:
        """Have what somebody has deleted be nowhere. Where that cannot be just now, the next sweep looks again."""
        with contextlib.suppress(sqlite3.Error):
            self._cleaning.clean(self._file, at_once=at_once)


def _name(scope: Scope, id: str) -> tuple[str, str, str]:
    return scope.tenant, scope.key, storable(id)
