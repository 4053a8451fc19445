"""The log of streams in PostgreSQL, for several processes that serve together. What it acknowledges is as safe as a commit there is."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from cauce.domain.stream import (
    Commit,
    Created,
    Erased,
    Head,
    Hold,
    NewStream,
    Renewed,
    StreamKey,
    Unreadable,
    Whose,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Fenced, LogUnavailable
from cauce.stores.followed import Followed
from cauce.stores.followed_log import FollowedLog, SharedLogOptions, check, look_again
from cauce.stores.postgres.connections import ANSWER, Connection, Connections, PostgresGone, fetched
from cauce.stores.postgres.early_cancels import BECOMES, cancel_early
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_appends import Append, StreamAppends
from cauce.stores.postgres.stream_erasing import delete, mark
from cauce.stores.postgres.stream_reading import StreamReading
from cauce.stores.postgres.stream_retention import Sweep
from cauce.stores.postgres.stream_tables import GIVEN_NOW, make_tables
from cauce.stores.stream_records import FORMAT, encode, encode_value, records

_LEAST = 2.0
"""Seconds that the server has for an answer, however impatient others are."""

_DEFAULT = SharedLogOptions()

_CREATE = f"""
WITH made AS (
    INSERT INTO streams AS s (principal, id, wire, request, request_hash, policy, node, lease_until, tail, bytes, created, retention,
                              settled, user_name)
    VALUES (%(principal)s, %(id)s, %(wire)s, %(request)s, %(hash)s, %(policy)s, %(node)s, {GIVEN_NOW} + %(lease)s, 1, %(bytes)s, %(created)s,
            %(retention)s, %(settled)s, %(user)s) {BECOMES} RETURNING key, cancel_reason
), first AS (
    INSERT INTO segments (stream, first_seq, n, epoch, format, data) SELECT key, 1, 1, 1, %(format)s, %(data)s FROM made
)
SELECT key, cancel_reason FROM made
"""  # noqa: S608
# A row that somebody has locked is not waited for: it is being written.
_CLAIM = f"""
UPDATE streams SET epoch = epoch + 1, node = %(node)s, lease_until = {GIVEN_NOW} + %(lease)s,
       state = CASE state WHEN 'queued' THEN 'queued' ELSE 'recovering' END,
       reader_mark = CASE reader_mark WHEN -1 THEN tail ELSE reader_mark END
 WHERE key = (SELECT key FROM streams WHERE principal = %(principal)s AND id = %(id)s AND epoch = %(epoch)s AND terminal_at IS NULL
                AND lease_until <= {GIVEN_NOW} FOR NO KEY UPDATE SKIP LOCKED)
RETURNING key, tail, state, bytes, cancel_requested
"""  # noqa: S608
# Rows are locked in the order of their keys, as appends lock them: nobody waits for who waits for him.
_HELD = """
WITH held AS (
    SELECT s.key FROM streams s
      JOIN unnest(%(principals)s::text[], %(ids)s::text[], %(epochs)s::int[]) AS h (principal, id, epoch)
        ON s.principal = h.principal AND s.id = h.id AND s.epoch = h.epoch
     WHERE s.terminal_at IS NULL ORDER BY s.key FOR NO KEY UPDATE OF s
)
"""
_RENEW = f"""{_HELD}
UPDATE streams s SET lease_until = {GIVEN_NOW} + %(lease)s FROM held WHERE s.key = held.key
RETURNING s.principal, s.id, s.epoch, s.cancel_requested
"""  # noqa: S608
_RELEASE = f"{_HELD} UPDATE streams s SET lease_until = 0 FROM held WHERE s.key = held.key RETURNING s.key"  # noqa: S608
_SEEN = f"""
WITH read AS (
    SELECT s.key FROM streams s JOIN unnest(%(principals)s::text[], %(ids)s::text[]) AS h (principal, id)
        ON s.principal = h.principal AND s.id = h.id
     WHERE s.terminal_at IS NULL ORDER BY s.key FOR NO KEY UPDATE OF s
)
UPDATE streams s SET reader_seen = {GIVEN_NOW} FROM read WHERE s.key = read.key RETURNING s.key
"""  # noqa: S608


class PostgresStreamLog(FollowedLog):
    """See `ports.stream_log.StreamLog`. `node` names this run of this process and nobody else's.

    Time is the server's own, unless `time` gives it: UNIX seconds.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        clock: Clock,
        node: str,
        options: SharedLogOptions = _DEFAULT,
        time: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._node = node
        self._options = options
        self._time = time
        # Who waits for a connection and then for the server has waited for as long as a lease at most.
        answer = min(ANSWER, max(_LEAST, options.patience / 2))
        self._connections = Connections(settings, prepare=self._prepare, answer=answer)
        self._appending = Connections(settings, 1, self._prepare_appending, answer)
        self._prepared = False
        self._look_again = clock.monotonic()
        """When whether streams take more than they may can be looked at again."""
        self._reading = StreamReading(self._connections, clock)
        self.appends = StreamAppends(self._appending, clock, options.patience)
        super().__init__(Followed(self._reading, clock, shared=True))

    @property
    def up(self) -> bool:
        """Whether the server answered when it was asked last."""
        return self._connections.up and self._appending.up

    async def start(self) -> None:
        """Have the tables there. Raises `LogUnavailable`: then they are made once the server answers."""
        try:
            await self._connections.run(lambda connection: fetched(connection, "SELECT 1"))
        except PostgresGone as error:
            raise LogUnavailable("PostgreSQL does not answer", retry_after=1) from error
        except psycopg.Error as error:
            raise LogUnavailable(f"the tables of streams cannot be made in PostgreSQL: {error}") from error

    async def _prepare(self, connection: Connection) -> None:
        if not self._prepared:
            await make_tables(connection, self._settings.schema)
            self._prepared = True

    async def _prepare_appending(self, connection: Connection) -> None:
        # An append that waits for rows of others must not keep its own from them for longer than its lease.
        longest = f"{max(_LEAST, self._options.lease):g}s"
        await fetched(connection, "SELECT set_config('statement_timeout', %s, false)", (longest,))
        await self._prepare(connection)

    async def stop(self) -> None:
        """Write what waits, and let go of the connections."""
        await self._followed.stop()
        await self.appends.stop()
        await self._appending.aclose()
        await self._connections.aclose()

    async def create(self, new: NewStream) -> Created:
        data, deltas = encode((new.first,))
        facts = {
            "principal": new.key.principal,
            "id": new.key.id,
            "wire": new.wire,
            "request": encode_value(new.request),
            "hash": new.request_hash,
            "policy": new.policy,
            "node": self._node,
            "now": self._now(),
            "lease": self._options.lease,
            "bytes": len(data),
            "created": new.created,
            "retention": self._options.retention if new.retention is None else new.retention,
            "settled": new.settled,
            "user": new.user,
            "format": FORMAT,
            "data": data,
        }
        made = await self._reading.rows(_CREATE, facts)
        if made:
            self._followed.created(new.key, made[0][0], records(1, 1, deltas), len(data))
            return self._made(new, made[0][1])
        return await self._attached(new.key)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        live = await self._written(hold)
        data, deltas = encode(commit.deltas)
        check(self._options.limits, live, hold, commit, len(data))
        append = Append(
            int(live.row),
            hold,
            len(deltas),
            data,
            commit.steps,
            commit.cancels,
            [(row.n, encode_value(row)) for row in commit.attempts],
            None if commit.upstream is None else encode_value(commit.upstream),
            commit.finish is not None,
            self._now(),
            self._options.lease,
            self._followed.marks.kept(hold.key, hold.tail),
        )

        async def appended() -> Hold:
            try:
                await self.appends.submit(append)
            except Fenced:
                self._followed.refused(live, hold)
                raise
            self._followed.appended(live, hold, commit, records(hold.tail + 1, hold.epoch, deltas), len(data))
            return Hold(hold.key, hold.epoch, hold.tail + len(deltas))

        # Once it is on its way it is heard to its end: whoever leaves meanwhile must not leave readers behind the log.
        return await asyncio.shield(appended())

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        statement = """UPDATE streams SET cancel_requested = TRUE, cancel_reason = %s
            WHERE principal = %s AND id = %s AND terminal_at IS NULL AND NOT cancel_requested RETURNING key"""
        if await self._reading.rows(statement, (reason, key.principal, key.id), urgent=True):
            self._followed.cancelled(key)
            return await self.head(key)
        head = await self.head(key)
        if head is not None and (head.ended or head.cancel_requested):
            return head
        # It has yet to be made, or was just now.
        now = self._now()
        if not await self._reading.ask(lambda connection: cancel_early(connection, key, reason, now), urgent=True):
            return None
        self._followed.cancelled(key)
        return await self.head(key)

    async def orphans(self, limit: int) -> Sequence[Head | Unreadable]:
        return await self._reading.orphans(self._now(), limit)

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        facts = {
            "principal": head.key.principal,
            "id": head.key.id,
            "epoch": head.epoch,
            "node": node,
            "now": self._now(),
            "lease": self._options.lease,
        }
        found = await self._reading.rows(_CLAIM, facts, urgent=True)
        if not found:
            return None
        row, tail, state, size, cancelled = found[0]
        hold = Hold(head.key, head.epoch + 1, tail)
        self._followed.claimed(head.key, row, hold, state, size, cancelled=cancelled)
        return hold

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        if not holds:
            return ()
        facts = {"now": self._now(), "lease": self._options.lease, **_names(holds)}
        kept = {
            (principal, id, epoch): cancelled
            for principal, id, epoch, cancelled in await self._reading.rows(_RENEW, facts, urgent=True)
        }
        renewed: list[Renewed] = []
        for hold in holds:
            cancelled = kept.get((hold.key.principal, hold.key.id, hold.epoch))
            if cancelled is None:
                self._followed.overtaken(hold)
                renewed.append(Renewed(hold.key, "lost"))
            else:
                renewed.append(Renewed(hold.key, "cancel" if cancelled else "kept"))
        return renewed

    async def release(self, holds: Sequence[Hold]) -> None:
        if holds:
            await self._reading.rows(_RELEASE, _names(holds), urgent=True)
        self._followed.released(holds)

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        facts = {
            "now": self._now(),
            "principals": [key.principal for key in keys],
            "ids": [key.id for key in keys],
        }
        await self._reading.rows(_SEEN, facts, urgent=True)

    async def unseen(self, key: StreamKey) -> float | None:
        statement = f"SELECT {GIVEN_NOW} - reader_seen FROM streams WHERE principal = %(principal)s AND id = %(id)s"  # noqa: S608
        facts = {"now": self._now(), "principal": key.principal, "id": key.id}
        found = await self._reading.rows(statement, facts)
        return found[0][0] if found else None

    async def erase(self, whose: Whose) -> Erased:
        found = await self._reading.ask(lambda connection: mark(connection, whose), urgent=True)
        for key in found.open:
            self._followed.cancelled(key)
        left = found.rows
        while left:
            some = left
            left = await self._reading.ask(lambda connection, some=some: delete(connection, some, self._now()))
        self._followed.forget(found.ended)
        return Erased(found.ended, found.open)

    async def sweep(self, limit: int) -> int:
        sweep = Sweep(self._now(), limit)
        due, ended = await self._reading.ask(sweep.due)
        self._followed.forget(ended)
        # What expires anyway makes room first.
        return due if due == limit else due + await self._make_room(sweep)

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        statement = """SELECT principal, id FROM streams WHERE NOT settled AND terminal_at IS NOT NULL AND state <> 'expired'
            ORDER BY key LIMIT %s"""
        return [StreamKey(*names) for names in await self._reading.rows(statement, (limit,))]

    async def settle(self, key: StreamKey) -> None:
        statement = """UPDATE streams SET settled = TRUE
            WHERE principal = %s AND id = %s AND terminal_at IS NOT NULL AND NOT settled RETURNING key"""
        await self._reading.rows(statement, (key.principal, key.id))

    async def _make_room(self, sweep: Sweep) -> int:
        """How much there was to do since streams take more than they may. Where looking takes long, that is not looked at each time."""
        began = self._clock.monotonic()
        if began < self._look_again:
            return 0
        done = 0
        try:
            forgotten, early = await self._reading.ask(
                lambda connection: sweep.room(connection, self._options.max_bytes)
            )
            self._followed.forget(early)
            done = forgotten + len(early)
        finally:
            if not done:
                self._look_again = look_again(self._clock, began)
        return done

    def _now(self) -> float | None:
        """None: the server's own time."""
        return None if self._time is None else self._time()


def _names(holds: Sequence[Hold]) -> dict[str, Any]:
    """What `_HELD` asks for."""
    return {
        "principals": [hold.key.principal for hold in holds],
        "ids": [hold.key.id for hold in holds],
        "epochs": [hold.epoch for hold in holds],
    }
