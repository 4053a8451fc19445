"""Reading streams in Redis: what the names of their keys are, and what is in them.

| key | what |
|---|---|
| `…stream:{digest}:meta` | a hash: everything but the records |
| `…stream:{digest}:log` | a Redis stream: one entry for each record, its id is the sequence number |
| `…stream:{digest}:attempts` | a hash: the bills |
| `…streams:group:{digest}` | a sorted set of the open streams of a group, by when they were made: a hint |
| `…streams:early:{digest}` | a sorted set of a principal's streams that were cancelled before they were made, by when |
| `…streams:open` | a sorted set of what keys begin with, by the end of the lease: a hint |
| `…streams:unsettled` | the same of streams that have ended and whose answers are still to be copied, by when: a hint |
| `…{streams}:ended`, `…{streams}:gone`, `…{streams}:sizes` | those that have ended and have expired, and what they take: see `stream_room.lua` |
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar, cast

from redis.asyncio import Redis

from cauce.domain.stream import GROUP_END, OPEN, Head, Record, State, StreamKey, Unreadable
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.live_streams import LiveStream
from cauce.stores.redis.connection import RedisConnection, RedisGone
from cauce.stores.shelf import NOT_THERE, UNREADABLE, Page, Shelved, Standing, Stored, all_of
from cauce.stores.stream_records import decode, decode_attempt, decode_request, decode_upstream

_BLOCK = 100
"""Milliseconds that news of other processes are waited for at a time."""

_AT_ONCE = 2000
"""Records that one read gives at most."""

_HASHES = 500
"""Streams that are asked for in one round trip."""

T = TypeVar("T")


class StreamShelf:
    """See `stores.shelf.Shelf`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self.open = connection.key("streams:open")
        self.unsettled = connection.key("streams:unsettled")
        # One hash tag: they change together.
        self.ended, self.gone, self.sizes = [
            connection.key(f"{{streams}}:{name}") for name in ("ended", "gone", "sizes")
        ]

    def row(self, key: StreamKey) -> str:
        """What the stream's keys begin with. One hash tag: in a cluster they are together."""
        return self.named(_digest(key.principal, key.id))

    def group(self, key: StreamKey) -> str:
        """The name of the sorted set of open streams of the key's group."""
        return self._connection.key(f"streams:group:{_digest(key.principal, key.group)}")

    def early(self, principal: str) -> str:
        """The name of the sorted set of what was cancelled before it was made."""
        return self._connection.key(f"streams:early:{_digest(principal, '')}")

    def named(self, digest: str) -> str:
        """The same, by the digest in it."""
        return self._connection.key(f"stream:{{{digest}}}")

    async def ask(self, command: Callable[[Redis], Awaitable[T]], *, urgent: bool = False) -> T:
        """What `command` gives. `urgent`: it does not wait behind what readers ask. Raises `LogUnavailable`."""
        try:
            return await self._connection.run(command, urgent=urgent)
        except RedisGone as error:
            raise LogUnavailable("streams cannot be read now: try again", retry_after=1) from error

    async def stored(self, key: StreamKey) -> Stored | None:
        row = self.row(key)
        found = await self.ask(lambda redis: cast(Awaitable[Any], redis.hgetall(f"{row}:meta")))
        return _stored(row, found) if b"state" in found else None

    async def several(self, rows: Sequence[str]) -> list[Stored]:
        """Those of the streams whose keys begin with `rows` that are there."""

        async def look(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipeline:
                for row in rows:
                    pipeline.hgetall(f"{row}:meta")
                return await pipeline.execute()

        found = await self.ask(look, urgent=True) if rows else []
        return [_stored(row, meta) for row, meta in zip(rows, found, strict=True) if meta]

    async def leases(self, rows: Sequence[str]) -> list[tuple[bytes | None, float, float]]:
        """State, end of the lease and time of creation of each stream whose keys begin with one of `rows`."""
        names = [f"{row}:meta" for row in rows]
        found = await self.fields(names, ("state", "lease", "created"), urgent=True)
        return [(state, float(lease or 0), _created(created)) for state, lease, created in found]

    async def fields(
        self, names: Sequence[str], fields: Sequence[str], *, urgent: bool = False
    ) -> list[list[bytes | None]]:
        """`fields` of each of the hashes `names`."""

        async def look(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hmget(name, [*fields])
                return await pipeline.execute()

        return await self.ask(look, urgent=urgent) if names else []

    async def rows_of(self, principal: str, user: str | None) -> list[str]:
        """What the keys of all streams of `principal` begin with, or of those of its `user`. It looks at every stream there is: nothing
        else needs to know whose they are."""
        # Whoever ends a stream puts it into the second before it leaves the first.
        still_open = await self.ask(lambda redis: cast(Any, redis).zrange(self.open, 0, -1))
        found = await self._whose([row.decode() for row in still_open], principal, user)
        cursor = -1
        while cursor:
            last = max(0, cursor)
            cursor, ended = await self.ask(
                lambda redis, last=last: cast(Any, redis).zscan(self.ended, last, count=_HASHES)
            )
            found += await self._whose([row.decode() for row, _ in ended], principal, user)
        return list(dict.fromkeys(found))

    async def _whose(self, rows: Sequence[str], principal: str, user: str | None) -> list[str]:
        """Those of `rows` that are of `principal`, and of its `user`."""
        mine: list[str] = []
        for first in range(0, len(rows), _HASHES):
            some = rows[first : first + _HASHES]
            fields = await self.fields([f"{row}:meta" for row in some], ("principal", "user"))
            for row, (owner, name) in zip(some, fields, strict=True):
                if owner == principal.encode() and (user is None or name == user.encode()):
                    mine.append(row)
        return mine

    async def records(self, live: LiveStream, after: int, limit: int) -> Page:
        count = min(limit, _AT_ONCE)
        found = await self.ask(lambda redis: redis.xrange(f"{live.row}:log", f"{after + 1}-0", "+", count))
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return Page([_record(entry) for entry in entries], sum([len(fields[b"d"]) for _, fields in entries]))

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        name = self.group(StreamKey(principal, group + GROUP_END))

        async def look(redis: Redis) -> list[Any]:
            rows = await cast(Any, redis).zrevrange(name, 0, -1)
            async with redis.pipeline(transaction=False) as pipeline:
                for row in rows:
                    pipeline.hmget(f"{row.decode()}:meta", ["id", "state"])
                return await pipeline.execute()

        for id, state in await self.ask(look):
            if id is not None and state.decode() in OPEN:
                return StreamKey(principal, id.decode())
        return None

    async def history(self, live: LiveStream) -> Shelved | None:
        async def look(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(f"{live.row}:meta")
                pipeline.hgetall(f"{live.row}:attempts")
                pipeline.xrange(f"{live.row}:log", count=_AT_ONCE)
                return await pipeline.execute()

        meta, bills, entries = await self.ask(look, urgent=True)
        if not meta:
            return None
        page = entries
        while len(page) == _AT_ONCE:
            # In one answer a long one could take longer than a command may.
            last = f"({page[-1][0].decode()}"
            page = await self.ask(lambda redis, last=last: _range(redis, f"{live.row}:log", last), urgent=True)
            entries += page
        return Shelved(
            _stored(str(live.row), meta),
            all_of(lambda: [_record(entry) for entry in entries]),
            all_of(lambda: sorted([decode_attempt(row) for row in bills.values()], key=lambda row: row.n)),
        )

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, Standing]:
        after: Any = {f"{live.row}:log": f"{live.tail}-0" for live in waited}
        # One question for all readers, and what they wait for: it does not stand in line with theirs.
        await self.ask(lambda redis: redis.xread(after, count=1, block=_BLOCK), urgent=True)

        async def look(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipeline:
                for live in waited:
                    pipeline.hmget(f"{live.row}:meta", ["tail", "epoch", "state"])
                return await pipeline.execute()

        found = await self.ask(look, urgent=True)
        return {
            live.key: NOT_THERE
            if state is None
            else Standing(int(tail or 0), int(epoch or 0), cast(State, state.decode()))
            for live, (tail, epoch, state) in zip(waited, found, strict=True)
        }


def _digest(principal: str, name: str) -> str:
    return blake2b(f"{principal}\0{name}".encode(errors="replace"), digest_size=16).hexdigest()


async def _range(redis: Redis, log: str, first: str) -> list[Any]:
    return await cast(Any, redis).xrange(log, first, "+", _AT_ONCE)


def _record(entry: tuple[bytes, dict[bytes, bytes]]) -> Record:
    id, fields = entry
    (delta,) = decode(fields[b"d"])
    return Record(int(id.partition(b"-")[0]), int(fields[b"e"]), delta)


def _created(value: bytes | None) -> float:
    """What cannot be read is taken for old."""
    try:
        return float(value or 0)
    except ValueError:
        return 0.0


def _stored(row: str, found: dict[bytes, bytes]) -> Stored:
    def text(name: str) -> str | None:
        value = found.get(name.encode())
        return None if value is None else value.decode()

    def number(name: str) -> float | None:
        value = found.get(name.encode())
        return None if value is None else float(value)

    state = cast(State, text("state"))
    tail, epoch = int(number("tail") or 0), int(number("epoch") or 0)
    cancel = text("cancel")
    head: Head | Unreadable | None = None
    if state != "expired":
        try:
            upstream, mark = text("upstream"), number("mark")
            head = Head(
                StreamKey(text("principal") or "", text("id") or ""),
                decode_request(found[b"request"]),
                found[b"hash"],
                number("created") or 0.0,
                state,
                epoch,
                tail,
                cancel is not None,
                number("ended"),
                # Somebody read along when the process that wrote this ended.
                None if mark is None else tail if mark == -1 else int(mark),
                cancel,
                text("wire") or "",
                text("policy") or "",
                None if upstream is None else decode_upstream(upstream),
            )
        except UNREADABLE:
            key = StreamKey(*[found.get(name, b"").decode(errors="replace") for name in (b"principal", b"id")])
            head = Unreadable(key, _created(found.get(b"created")), state, epoch, cancel is not None, cancel)
    size = int(number("bytes") or 0)
    return Stored(row, state, epoch, tail, cancel is not None, size, head)
