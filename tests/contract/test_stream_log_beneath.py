"""What lies in the stores beneath the logs: what is damaged there or of another version, and what is left of streams that expired."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql

from cauce.domain.delta import Finish, Text, delta_size
from cauce.domain.errors import Gone
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.stream import AttemptRow, Commit, Head, Hold, Record, StreamKey, Unreadable
from cauce.ports.stream_log import StreamLog
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import CREATED, END, KEY, LEASE, RETENTION, bills, created, new_stream, text, whole
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

pytestmark = pytest.mark.anyio

_NUMBERS = itertools.count()
NO_JSON = b'["no'


class Beneath(msgspec.Struct):
    """Two logs on one store, and what is beneath them. `damage` is told what: records after the first, of which version, a bill, or a field of
    the head."""

    log: StreamLog
    other: StreamLog
    damage: Callable[[str], Awaitable[None]]
    everything: Callable[[], Awaitable[str]]


Opened = AsyncIterator[Beneath]

CHANGES = {
    "record": "UPDATE {} SET data = %s WHERE first_seq > 1",
    "format": "UPDATE {} SET format = 2 WHERE first_seq > 1 AND data <> %s",
    "bill": "UPDATE {} SET row = %s",
    "request": "UPDATE {} SET request = %s",
    "upstream": "UPDATE {} SET upstream = %s",
}
TABLES = {"record": "segments", "format": "segments", "bill": "attempts", "request": "streams", "upstream": "streams"}
EVERY = ("streams", "segments", "attempts")


@contextlib.asynccontextmanager
async def in_sqlite(clock: FakeClock, request: pytest.FixtureRequest) -> Opened:
    path: Path = request.getfixturevalue("tmp_path") / "streams.db"
    logs = [SqliteStreamLog(path, clock, node, StreamLogOptions(RETENTION, lease=LEASE)) for node in "ab"]
    for log in logs:
        await log.start()
    database = sqlite3.connect(path, isolation_level=None)

    async def damage(what: str) -> None:
        database.execute(CHANGES[what].format(TABLES[what]).replace("%s", "?"), (NO_JSON,))

    async def everything() -> str:
        return repr([database.execute(f"SELECT * FROM {name}").fetchall() for name in EVERY])

    yield Beneath(logs[0], logs[1], damage, everything)
    database.close()
    for log in logs:
        await log.stop()


@contextlib.asynccontextmanager
async def in_postgres(clock: FakeClock, request: pytest.FixtureRequest) -> Opened:
    url = request.getfixturevalue("postgres")
    schema = f"test{next(_NUMBERS)}"
    options = SharedLogOptions(RETENTION, LEASE)
    logs = [PostgresStreamLog(PostgresSettings(url, schema), clock, node, options, time=clock.now) for node in "ab"]
    for log in logs:
        await log.start()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:

        async def damage(what: str) -> None:
            await admin.execute(sql.SQL(CHANGES[what]).format(sql.Identifier(schema, TABLES[what])), (NO_JSON,))

        async def everything() -> str:
            asked = [sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, name)) for name in EVERY]
            return repr([await (await admin.execute(statement)).fetchall() for statement in asked])

        yield Beneath(logs[0], logs[1], damage, everything)
    for log in logs:
        await log.stop()


@contextlib.asynccontextmanager
async def in_redis(clock: FakeClock, _: pytest.FixtureRequest) -> Opened:
    with running_redis() as server:
        connection = RedisConnection(RedisSettings(server.url), clock)
        await connection.start()
        options = SharedLogOptions(RETENTION, LEASE)
        logs = [RedisStreamLog(connection, clock, node, options, time=clock.now) for node in "ab"]
        row = logs[0]._shelf.row(KEY)

        async def damage(what: str) -> None:
            if what == "bill":
                await connection.run(lambda redis: redis.hset(f"{row}:attempts", "1", NO_JSON))
            elif what in ("request", "upstream", "policy", "created"):
                await connection.run(lambda redis: redis.hset(f"{row}:meta", what, b"\xff" + NO_JSON))
            else:
                await connection.run(lambda redis: redis.delete(f"{row}:log"))
                fields: Any = {"e": "1", "d": NO_JSON}
                await connection.run(lambda redis: redis.xadd(f"{row}:log", fields, "2-0"))

        async def everything() -> str:
            found: list[Any] = []
            for name in await connection.run(lambda redis: redis.keys("*")):
                kind = await connection.run(lambda redis, name=name: redis.type(name))
                if kind == b"hash":
                    found.append(await connection.run(lambda redis, name=name: redis.hgetall(name)))
                elif kind == b"stream":
                    found.append(await connection.run(lambda redis, name=name: redis.xrange(name)))
            return repr(found)

        yield Beneath(logs[0], logs[1], damage, everything)
        for log in logs:
            await log.stop()
        await connection.aclose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=[in_sqlite, in_postgres, in_redis])
async def beneath(request: pytest.FixtureRequest, clock: FakeClock) -> Opened:
    async with request.param(clock, request) as opened:
        yield opened


@pytest.fixture
def asked(beneath: Beneath, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the store is asked by the log of the other process, in order."""
    asked: list[str] = []
    shelf = beneath.other._followed._shelf

    def counted(name: str) -> None:
        ask = getattr(shelf, name)

        async def counting(*facts: Any) -> Any:
            asked.append(name)
            return await ask(*facts)

        monkeypatch.setattr(shelf, name, counting)

    for name in ("stored", "records", "history"):
        counted(name)
    return asked


async def spelled(log: StreamLog, word: str) -> Hold:
    """A new stream with a record for each letter of `word`."""
    hold = await created(log)
    for letter in word:
        hold = await log.append(hold, text(letter))
    return hold


async def read_through(log: StreamLog, tail: int, page: int = 2) -> list[tuple[int, int]]:
    """Number and epoch of all records up to `tail`, read a few at a time."""
    found: list[tuple[int, int]] = []
    while len(found) < tail:
        found += [(record.seq, record.epoch) for record in await log.read(KEY, len(found), page)]
    return found


async def test_store_is_asked_once_how_a_stream_stands_for_as_long_as_it_is_read(
    beneath: Beneath, asked: list[str]
) -> None:
    hold = await spelled(beneath.log, "abcd")
    reader = beneath.other
    first, second = reader.attach(KEY), reader.attach(KEY)
    assert await read_through(reader, 5) == [(seq, 1) for seq in range(1, 6)]
    assert asked == ["stored", *["records"] * 3]
    reader.detach(KEY, first)
    hold = await beneath.log.append(hold, text("e"))
    async with asyncio.timeout(5):
        assert await reader.wait(KEY, 5)
    assert [record.seq for record in await reader.read(KEY, 5, 10)] == [6]
    reader.detach(KEY, second)
    await beneath.log.append(hold, text("f"))
    del asked[:]
    assert [record.seq for record in await reader.read(KEY, 6, 10)] == [7]
    assert asked == ["stored", "records"]


async def test_what_one_reader_was_told_of_a_stream_others_need_not_ask_the_store_for(
    beneath: Beneath, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take longer than a second for all of this.
    monkeypatch.setattr("cauce.stores.followed._CURRENT", 30.0)
    hold = await spelled(beneath.log, "abcdefgh")
    reader = beneath.other
    whole = [(seq, 1) for seq in range(1, 10)]
    number = reader.attach(KEY)
    # Those who come at once ask once.
    assert await asyncio.gather(*[read_through(reader, 9, 9) for _ in range(20)]) == [whole] * 20
    assert asked.count("records") == 1
    reader.detach(KEY, number)
    # Whoever comes later asks whether it is still so, and no more.
    del asked[:]
    await reader.head(KEY)
    reader.attach(KEY)
    assert await read_through(reader, 9) == whole and asked == ["stored"]
    await beneath.log.append(hold, text("i"))
    async with asyncio.timeout(5):
        assert await reader.wait(KEY, 9)
    del asked[:]
    assert await asyncio.gather(*[read_through(reader, 10) for _ in range(3)]) == [[*whole, (10, 1)]] * 3
    assert asked == ["records"]


async def test_whoever_comes_just_when_the_store_has_answered_need_not_ask_it(
    beneath: Beneath, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await spelled(beneath.log, "abcdefgh")
    reader = beneath.other
    reader.attach(KEY)
    shelf = reader._followed._shelf
    ask = shelf.records
    late: list[asyncio.Task[list[tuple[int, int]]]] = []

    async def answering(*facts: Any) -> Any:
        answer = await ask(*facts)
        # Its first step is done before anybody has the answer.
        asyncio.get_running_loop().call_soon(lambda: late.append(asyncio.create_task(read_through(reader, 9, 9))))
        return answer

    monkeypatch.setattr(shelf, "records", answering)
    await read_through(reader, 9, 9)
    assert len(await late[0]) == 9
    assert asked == ["stored", "records"]


async def test_whoever_takes_a_stream_over_has_read_it_for_its_readers(
    beneath: Beneath, asked: list[str], clock: FakeClock
) -> None:
    await spelled(beneath.log, "abc")
    heir = beneath.other
    await heir.read(KEY, 0, 1)
    clock.advance(LEASE + 1)
    (orphan,) = await heir.orphans(10)
    mine = await heir.claim(orphan, "b")
    assert mine is not None
    history = await heir.history(KEY)
    assert history.deltas is not None and len(history.deltas) == 4
    mine = await heir.append(mine, text("d"))
    del asked[:]
    assert await read_through(heir, 5) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)] and not asked


async def test_what_is_known_of_a_stream_is_read_anew_once_somebody_else_has_taken_it_over(
    beneath: Beneath, asked: list[str], clock: FakeClock
) -> None:
    await beneath.log.append(await created(beneath.log), text("a"))
    reader = beneath.other
    reader.attach(KEY)
    assert await read_through(reader, 2) == [(1, 1), (2, 1)]
    clock.advance(LEASE + 1)
    (orphan,) = await beneath.log.orphans(10)
    hold = await beneath.log.claim(orphan, "a")
    assert hold is not None
    await beneath.log.append(hold, text("b"))
    async with asyncio.timeout(5):
        assert await reader.wait(KEY, 2)
    del asked[:]
    # There may have been less of it when it was taken over than had been read here.
    assert await read_through(reader, 3) == [(1, 1), (2, 1), (3, 2)] and asked.count("records") == 2


async def test_what_cannot_be_read_of_a_stream_is_gone_and_nothing_else(beneath: Beneath) -> None:
    hold = await beneath.log.append(await created(beneath.log), text("a"))
    await beneath.log.append(hold, END)
    fine = StreamKey(KEY.principal, "fine")
    await beneath.damage("bill")
    await beneath.log.append(await created(beneath.log, fine), Commit((Text("b"),), "running", attempts=END.attempts))
    history = await beneath.other.history(KEY)
    assert history.attempts is None and history.deltas is not None and len(history.deltas) == history.head.tail
    assert await bills(beneath.other, fine) == list(END.attempts)
    await beneath.damage("record")
    assert (await beneath.other.history(KEY)).deltas is None
    with pytest.raises(Gone, match="cannot be read"):
        await beneath.other.read(KEY, 1, 10)
    assert await beneath.other.head(KEY) is not None


async def is_nobodys_and_can_be_ended(beneath: Beneath, clock: FakeClock, created_at: float) -> None:
    """What is true of a stream whose head cannot be read."""
    clock.advance(LEASE + 1)
    for log in (beneath.log, beneath.other):
        with pytest.raises(Gone, match="cannot be read"):
            await log.head(KEY)
    (orphan,) = await beneath.other.orphans(10)
    assert orphan == Unreadable(KEY, created_at, "running", 1, cancel_requested=False, cancel_reason=None)
    hold = await beneath.other.claim(orphan, "b")
    assert hold == Hold(KEY, 2, 2)
    with pytest.raises(Gone, match="cannot be read"):
        await beneath.log.create(new_stream())
    await beneath.other.append(hold, Commit((Finish("error", outcome="incomplete"),), "incomplete"))
    clock.advance(LEASE + 1)
    assert await beneath.other.orphans(10) == []
    clock.advance(RETENTION + 1)
    assert await beneath.other.sweep(10) == 1
    with pytest.raises(Gone, match="expired"):
        await beneath.log.head(KEY)


@pytest.mark.parametrize("what", ["request", "upstream"])
async def test_stream_whose_head_cannot_be_read_is_nobodys_and_can_be_ended(
    beneath: Beneath, clock: FakeClock, what: str
) -> None:
    await beneath.log.append(await created(beneath.log), text("a"))
    await beneath.damage(what)
    await is_nobodys_and_can_be_ended(beneath, clock, CREATED)


@pytest.mark.parametrize("beneath", [in_redis], indirect=True)
@pytest.mark.parametrize(("what", "created_at"), [("policy", CREATED), ("created", 0.0)])
async def test_any_damage_to_the_head_of_a_stream_in_redis_leaves_it_to_be_ended(
    beneath: Beneath, clock: FakeClock, what: str, created_at: float
) -> None:
    await beneath.log.append(await created(beneath.log), text("a"))
    await beneath.damage(what)
    await is_nobodys_and_can_be_ended(beneath, clock, created_at)


async def test_cancel_of_a_stream_whose_head_cannot_be_read_is_told_to_whoever_finds_it(
    beneath: Beneath, clock: FakeClock
) -> None:
    await created(beneath.log)
    await beneath.log.request_cancel(KEY, "erased")
    await beneath.damage("request")
    clock.advance(LEASE + 1)
    (orphan,) = await beneath.other.orphans(10)
    assert isinstance(orphan, Unreadable) and (orphan.cancel_requested, orphan.cancel_reason) == (True, "erased")


async def test_streams_beside_one_whose_head_cannot_be_read_are_found(beneath: Beneath, clock: FakeClock) -> None:
    await created(beneath.log)
    await beneath.damage("request")
    fine = StreamKey(KEY.principal, "fine")
    await beneath.log.create(new_stream(fine, created=CREATED + 1))
    clock.advance(LEASE + 1)
    assert [type(one) for one in await beneath.other.orphans(10)] == [Unreadable, Head]


@pytest.mark.parametrize("beneath", [in_sqlite, in_postgres], indirect=True)
async def test_records_that_another_version_wrote_are_gone(beneath: Beneath) -> None:
    await beneath.log.append(await created(beneath.log), text("a"))
    assert len(await whole(beneath.log)) == 2
    await beneath.damage("format")
    with pytest.raises(Gone, match="cannot be read"):
        await beneath.other.read(KEY, 1, 10)


async def test_nothing_of_what_was_said_is_left_of_a_stream_that_expired(beneath: Beneath, clock: FakeClock) -> None:
    request = Request("auto", (Message("user", (TextPart("secret of the request"),)),))
    new = msgspec.structs.replace(new_stream(), request=request, policy='{"asked":"secret of the policy"}')
    hold = (await beneath.log.create(new)).hold
    assert hold is not None
    bill = AttemptRow(1, "secret of the bill", "m", outcome="completed")
    hold = await beneath.log.append(hold, text("secret of the answer"))
    await beneath.log.append(hold, msgspec.structs.replace(END, attempts=(bill,)))
    first = await beneath.everything()
    assert all([f"secret of the {part}" in first for part in ("request", "policy", "answer", "bill")]), first
    clock.advance(RETENTION + 1)
    assert await beneath.log.sweep(100)
    at_once = await beneath.everything()
    assert "secret of the request" not in at_once and "secret of the policy" not in at_once
    clock.advance(61)
    while await beneath.log.sweep(100):
        pass
    left = await beneath.everything()
    assert "secret" not in left and KEY.id in left


async def test_read_gives_what_a_slow_reader_can_hold_however_much_was_written_at_once(beneath: Beneath) -> None:
    hold = await created(beneath.log)
    await beneath.log.append(hold, text(*["x" * 5000] * 40))
    seen: list[Record] = []
    while len(seen) < 41:
        batch = await beneath.other.read(KEY, len(seen), 250)
        assert len(batch) >= 1 and sum([delta_size(record.delta) for record in batch]) <= 3 * 5000
        seen += batch
    assert [record.seq for record in seen] == list(range(1, 42))
