"""The log of streams in Redis or Valkey, for several processes that serve together.

How safe it is is the server's matter: with `appendfsync always` what was acknowledged survives a power cut, with `everysec` the newest
second may not, without persistence nothing does. A log that became shorter is noticed by readers, whose cursor lies beyond it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

from cauce.domain.stream import (
    APPENDED,
    ERASED,
    TERMINAL,
    Commit,
    Created,
    Erased,
    Head,
    Hold,
    NewStream,
    Renewed,
    State,
    StreamKey,
    Unreadable,
    Whose,
    advance,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import EARLY, Cancelled, Fenced, LogUnavailable
from cauce.stores.followed import Followed
from cauce.stores.followed_log import FollowedLog, SharedLogOptions, check
from cauce.stores.live_streams import LiveStream
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.early_cancels import remember_early
from cauce.stores.redis.stream_room import StreamRoom, takes
from cauce.stores.redis.stream_script import Arguments, StreamScript
from cauce.stores.redis.stream_shelf import StreamShelf
from cauce.stores.shelf import Stored
from cauce.stores.stream_records import encode, encode_value, records

_BEFORE: dict[State, str] = {state: " ".join(sorted(before)) for state, before in APPENDED.items()}
_ENDED = TERMINAL | {"expired"}
_GROUP_SECONDS = 86_400
"""After the last stream of a group was made it is forgotten which were: none is open for so long."""

_ERASED_AT_ONCE = 500
"""Streams that are erased at a time."""

_HINTS = 1000
"""Orphans that are looked at at a time."""

_UNMADE = 60.0
"""Seconds after which a hint of a stream that is not there is taken for one that never will be: what makes it has given up by then."""


_DEFAULT = SharedLogOptions()


class RedisStreamLog(FollowedLog):
    """See `ports.stream_log.StreamLog`. `node` names this run of this process and nobody else's.

    Time is the server's own, unless `time` gives it: UNIX seconds.
    """

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        node: str,
        options: SharedLogOptions = _DEFAULT,
        time: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._node = node
        self._options = options
        self._time = time
        self._shelf = StreamShelf(connection)
        self._script = StreamScript(connection, clock, options.patience)
        self._room = StreamRoom(self._shelf, clock, options.max_bytes, time)
        super().__init__(Followed(self._shelf, clock, shared=True))
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Nothing needs to be begun: the connection is somebody else's."""

    async def stop(self) -> None:
        """Write what waits."""
        await self._followed.stop()
        await self._script.stop()

    async def create(self, new: NewStream) -> Created:
        data, deltas = encode((new.first,))
        row = self._shelf.row(new.key)
        retention = self._options.retention if new.retention is None else new.retention
        # Before the stream is there: without it nobody would find it again.
        await self._hint(self._shelf.open, row, await self._now() + self._options.lease)
        if new.key.group:
            await self._hint(self._shelf.group(new.key), row, new.created)
            await self._shelf.ask(lambda redis: redis.expire(self._shelf.group(new.key), _GROUP_SECONDS))
        request = encode_value(new.request)
        meta: dict[str, str | bytes | int] = {
            "principal": new.key.principal,
            "id": new.key.id,
            "wire": new.wire,
            "request": request,
            "asked": len(request) + len(new.policy),
            "hash": new.request_hash,
            "policy": new.policy,
            "created": repr(new.created),
            "retention": repr(retention),
        }
        if not new.settled:
            meta["unsettled"] = 1
        if new.user is not None:
            meta["user"] = new.user
        flat = [member for pair in meta.items() for member in pair]
        nonce = f"{self._node} {next(self._numbers)}"
        lease = repr(self._options.lease)
        arguments = [self._node, lease, len(data), data, nonce, *flat]
        made, cancelled = await self._run("create", row, lambda again: arguments)
        if made:
            self._followed.created(new.key, row, records(1, 1, deltas), len(data))
            return self._made(new, None if cancelled is None else cancelled.decode())
        return await self._attached(new.key)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        live = await self._written(hold)
        each = [encode((delta,)) for delta in commit.deltas]
        size = sum([len(data) for data, _ in each])
        check(self._options.limits, live, hold, commit, size)
        steps = commit.steps
        before = [hold.epoch, hold.tail]
        after: list[str | bytes | int] = [
            repr(self._options.lease),
            steps[-1] if steps else "",
            _BEFORE[steps[0]] if steps else "",
            size,
            b"" if commit.upstream is None else encode_value(commit.upstream),
            "" if (mark := self._followed.marks.kept(hold.key, hold.tail)) is None else mark,
            int(commit.cancels),
            len(each),
            *[data for data, _ in each],
        ]
        for row in commit.attempts:
            after += [row.n, encode_value(row)]

        def arguments(again: bool) -> Arguments:
            return [*before, int(again), *after]

        async def appended() -> Hold:
            answer = await self._run("append", str(live.row), arguments)
            self._check(answer, live, hold, commit)
            deltas = [delta for _, decoded in each for delta in decoded]
            self._followed.appended(live, hold, commit, records(hold.tail + 1, hold.epoch, deltas), size)
            if commit.finish is not None:
                with contextlib.suppress(LogUnavailable):
                    # It is written all the same, and goes by itself in the end.
                    await self._ended(hold.key, str(live.row), hold.tail + len(deltas), *answer[1:])
            return Hold(hold.key, hold.epoch, hold.tail + len(deltas))

        # Once it is on its way it is heard to its end: whoever leaves meanwhile must not leave readers behind the log.
        return await asyncio.shield(appended())

    def _check(self, answer: Sequence[bytes], live: LiveStream, hold: Hold, commit: Commit) -> None:
        """Raises what an append that wrote nothing raises."""
        verdict, told, *_ = answer
        match verdict:
            case b"ok":
                pass
            case b"cancelled":
                raise Cancelled
            case b"illegal":
                # Raises: the table is the same one.
                advance(cast(State, told.decode()), *commit.steps)
                raise Fenced
            case _:
                self._followed.refused(live, hold)
                raise Fenced

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        row = self._shelf.row(key)
        if await self._run("cancel", row, lambda again: [reason, int(EARLY)]):
            self._followed.cancelled(key)
        else:
            for old in await remember_early(self._shelf, key, row, await self._now()):
                await self._run("forget", old, lambda again: [])
        return await self.head(key)

    async def orphans(self, limit: int) -> Sequence[Head | Unreadable]:
        return [one.head for one in await self._orphaned(limit) if one.head is not None]

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        row = self._shelf.row(head.key)
        lease = repr(self._options.lease)
        found = await self._run("claim", row, lambda again: [head.epoch, node, lease, int(again)])
        if not found:
            return None
        tail, state, size, cancelled = found
        hold = Hold(head.key, head.epoch + 1, tail)
        self._followed.claimed(head.key, row, hold, state.decode(), size, cancelled=bool(cancelled))
        # That its lease is longer now, those who look for orphans see for themselves.
        return hold

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        renewed = await asyncio.gather(*[self._renew(hold) for hold in holds])
        kept = [one.key for one in renewed if one.verdict != "lost"]
        if kept:
            until = await self._now() + self._options.lease
            scores: Any = {self._shelf.row(key): until for key in kept}
            await self._shelf.ask(lambda redis: redis.zadd(self._shelf.open, scores), urgent=True)
        return renewed

    async def release(self, holds: Sequence[Hold]) -> None:
        rows = [self._shelf.row(hold.key) for hold in holds]
        answers = await asyncio.gather(
            *[
                self._run("release", row, lambda again, hold=hold: [hold.epoch])
                for row, hold in zip(rows, holds, strict=True)
            ]
        )
        over: Any = {row: 0 for row, released in zip(rows, answers, strict=True) if released}
        if over:
            await self._shelf.ask(lambda redis: redis.zadd(self._shelf.open, over), urgent=True)
        self._followed.released(holds)

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        await asyncio.gather(*[self._run("seen", self._shelf.row(key), lambda again: []) for key in keys])

    async def unseen(self, key: StreamKey) -> float | None:
        ago = await self._run("unseen", self._shelf.row(key), lambda again: [])
        return None if ago is None else float(ago)

    async def erase(self, whose: Whose) -> Erased:
        if whose.id is not None:
            rows = [self._shelf.row(StreamKey(whose.principal, whose.id))]
        else:
            rows = await self._shelf.rows_of(whose.principal, whose.user)
        found: dict[str, list[StreamKey]] = {"deleted": [], "open": [], "none": []}
        for first in range(0, len(rows), _ERASED_AT_ONCE):
            some = rows[first : first + _ERASED_AT_ONCE]
            for verdict, key in await asyncio.gather(*[self._erase(row, whose.principal) for row in some]):
                found[verdict].append(key)
        return Erased(tuple(found["deleted"]), tuple(found["open"]))

    async def sweep(self, limit: int) -> int:
        due = await self._due(self._shelf.ended, await self._now(), limit)
        for row, _ in due:
            names = await self._shelf.ask(
                lambda redis, row=row: cast(Any, redis.hmget(f"{row}:meta", ["principal", "id"]))
            )
            expired = await self._run("expire", row, lambda again: [])
            if None not in names:
                self._followed.forget([StreamKey(names[0].decode(), names[1].decode())])
            await self._room.gone(row, remembered=bool(expired))
        # What expires anyway makes room first.
        early, forgotten = (0, []) if len(due) == limit else await self._room.make(limit)
        for row in forgotten:
            await self._run("forget", row, lambda again: [])
        return len(due) + early + len(forgotten)

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        hints = await self._shelf.ask(lambda redis: cast(Any, redis).zrange(self._shelf.unsettled, 0, limit - 1))
        rows = [hint.decode() for hint in hints]
        wanted = ("principal", "id", "state", "unsettled")
        found: list[StreamKey] = []
        over: list[str] = []
        names = [f"{row}:meta" for row in rows]
        for row, (principal, id, state, unsettled) in zip(rows, await self._shelf.fields(names, wanted), strict=True):
            if principal and id and unsettled and state is not None and state.decode() in TERMINAL:
                found.append(StreamKey(principal.decode(), id.decode()))
            else:
                over.append(row)
        if over:
            await self._shelf.ask(lambda redis: redis.zrem(self._shelf.unsettled, *over))
        return found

    async def settle(self, key: StreamKey) -> None:
        row = self._shelf.row(key)
        await self._run("settle", row, lambda again: [])
        await self._shelf.ask(lambda redis: redis.zrem(self._shelf.unsettled, row))

    async def _orphaned(self, most: int) -> list[Stored]:
        now = await self._now()
        due = await self._due(self._shelf.open, now, max(_HINTS, most))
        over: list[str] = []
        later: dict[Any, float] = {}
        found: list[tuple[float, str]] = []
        for (row, since), (state, lease, created) in zip(due, await self._shelf.leases([*dict(due)]), strict=True):
            if state is None:
                # Its hint comes first, and whoever makes it may be slow.
                if now - since > _UNMADE:
                    over.append(row)
            elif state.decode() in _ENDED:
                over.append(row)
                await self._count(row, now)
            elif lease > now:
                # Its holder has written since.
                later[row] = lease
            else:
                found.append((created, row))
        if over:
            await self._shelf.ask(lambda redis: redis.zrem(self._shelf.open, *over), urgent=True)
        if later:
            await self._shelf.ask(lambda redis: redis.zadd(self._shelf.open, later), urgent=True)
        stored = await self._shelf.several([row for _, row in sorted(found)[:most]])
        return [one for one in stored if one.state not in _ENDED]

    async def _erase(self, row: str, principal: str) -> tuple[str, StreamKey]:
        """What became of the stream, and its key."""
        verdict, id = [member.decode() for member in await self._run("erase", row, lambda again: [ERASED])]
        key = StreamKey(principal, id)
        if verdict == "open":
            self._followed.cancelled(key)
        elif verdict == "deleted":
            self._followed.forget([key])
            await self._room.gone(row, remembered=True)
        return verdict, key

    async def _renew(self, hold: Hold) -> Renewed:
        lease = repr(self._options.lease)
        verdict = (await self._run("renew", self._shelf.row(hold.key), lambda again: [hold.epoch, lease])).decode()
        if verdict == "lost":
            self._followed.overtaken(hold)
        return Renewed(hold.key, verdict)

    async def _run(self, operation: str, row: str, arguments: Callable[[bool], Arguments]) -> Any:
        now = "" if self._time is None else repr(self._time())
        keys = (f"{row}:meta", f"{row}:log", f"{row}:attempts")
        return await self._script.submit(keys, lambda again: [operation, now, *arguments(again)])

    async def _hint(self, name: str, row: str, score: float) -> None:
        scores: Any = {row: score}
        await self._shelf.ask(lambda redis: redis.zadd(name, scores))

    async def _due(self, name: str, now: float, limit: int) -> list[tuple[str, float]]:
        """What is due in that sorted set, and since when."""
        found = await self._shelf.ask(
            lambda redis: cast(Any, redis).zrangebyscore(name, "-inf", now, 0, limit, withscores=True), urgent=True
        )
        return [(hint.decode(), since) for hint, since in found]

    async def _ended(self, key: StreamKey, row: str, tail: int, *figures: bytes) -> None:
        retention, size, asked, unsettled = [float(figure) for figure in figures]
        await self._room.ended(row, retention, takes(int(size), tail, int(asked)))
        if unsettled:
            await self._hint(self._shelf.unsettled, row, self._clock.now())
        await self._shelf.ask(lambda redis: redis.zrem(self._shelf.open, row))
        if key.group:
            await self._shelf.ask(lambda redis: redis.zrem(self._shelf.group(key), row))

    async def _count(self, row: str, now: float) -> None:
        """Whoever ended that stream may not have come to have it counted."""
        wanted = ("state", "ended", "retention", "bytes", "tail", "asked", "unsettled")
        [[state, *figures]] = await self._shelf.fields([f"{row}:meta"], wanted, urgent=True)
        if state is not None and state.decode() in TERMINAL:
            ended, retention, size, tail, asked, unsettled = [float(figure or 0) for figure in figures]
            await self._room.ended(row, ended + retention - now, takes(int(size), int(tail), int(asked)))
            if unsettled:
                await self._hint(self._shelf.unsettled, row, ended)

    async def _now(self) -> float:
        if self._time is not None:
            return self._time()
        seconds, microseconds = cast(
            "tuple[int, int]", await self._shelf.ask(lambda redis: cast(Any, redis).time(), urgent=True)
        )
        return seconds + microseconds / 1e6
