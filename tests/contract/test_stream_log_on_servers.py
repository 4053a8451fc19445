"""The logs in Redis and in PostgreSQL when their servers do not answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cauce.domain.delta import Reasoning, Text
from cauce.domain.stream import AttemptRow, Commit, Hold, StreamKey
from cauce.engine.streams.tail import follow
from cauce.ports.stream_log import Fenced, LogUnavailable
from cauce.stores.followed_log import LEASE, SharedLogOptions
from cauce.stores.postgres.connections import Connection, Connections
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_appends import StreamAppends
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis import stream_shelf
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.system.clock import SystemClock
from cauce.testing.stream_samples import END, KEY, created, head_of, new_stream, text, whole
from tests.postgres_server import running_postgres
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience() -> None:
    """None."""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def connection(redis: RedisServer) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(RedisSettings(redis.url), SystemClock())
    await connection.start()
    yield connection
    await connection.aclose()


async def texts(log: Any) -> list[str]:
    return [record.delta.text for record in await whole(log) if isinstance(record.delta, Text)]


async def test_append_that_redis_did_without_an_answer_is_done_once(
    redis: RedisServer, connection: RedisConnection
) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    hold = await created(log)
    gone = asyncio.Event()
    connection.on_change(lambda up: up or gone.set())
    redis.stall()
    appending = asyncio.create_task(log.append(hold, text("a", "b")))
    await gone.wait()
    # It does now what it was told before, and is told again.
    redis.go_on()
    hold = await asyncio.wait_for(appending, 20)
    assert hold.tail == 3 and await texts(log) == ["a", "b"]
    await log.append(hold, END)
    await log.stop()


async def test_end_waits_for_a_redis_that_is_silent_as_every_append_does(
    redis: RedisServer, connection: RedisConnection
) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    hold = await log.append(await created(log), text("a"))
    gone, back = asyncio.Event(), asyncio.Event()
    connection.on_change(lambda up: back.set() if up else gone.set())
    redis.stall()
    ending = asyncio.create_task(log.append(hold, END))
    await gone.wait()
    redis.go_on()
    assert (await asyncio.wait_for(ending, 20)).tail == 3
    await back.wait()
    kept = await connection.run(lambda redis: redis.pttl(log._shelf.row(KEY) + ":log"))
    assert kept > SharedLogOptions().retention * 1000
    await log.stop()


async def test_redis_that_lost_its_memory_fences_what_it_does_not_know(
    redis: RedisServer, connection: RedisConnection
) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    hold = await log.append(await created(log), text("a"))
    redis.stop()
    redis.start()
    with pytest.raises(Fenced):
        await log.append(hold, text("b"))
    other = RedisStreamLog(connection, SystemClock(), "b")
    assert await other.head(KEY) is None
    for one in (log, other):
        await one.stop()


class Shorter:
    """A Redis that lost its newest: what it had at `remember` is there again after `lose`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._kept: dict[bytes, bytes] = {}

    async def remember(self) -> None:
        for key in await self._connection.run(lambda redis: redis.keys("*")):
            self._kept[key] = await self._connection.run(lambda redis, key=key: redis.dump(key))

    async def lose(self) -> None:
        await self._connection.run(lambda redis: redis.flushall())
        for key, value in self._kept.items():
            await self._connection.run(lambda redis, key=key, value=value: redis.restore(key, 0, value))


@pytest.fixture
async def pair(connection: RedisConnection) -> AsyncIterator[tuple[RedisStreamLog, RedisStreamLog]]:
    """Two nodes on one server, whose clock stands at what was set last."""
    logs = [RedisStreamLog(connection, SystemClock(), name, time=lambda: _NOW[0]) for name in ("a", "b")]
    _NOW[0] = 1000.0
    yield logs[0], logs[1]
    for log in logs:
        await log.stop()


_NOW = [1000.0]


async def taken_over(log: RedisStreamLog) -> Hold:
    """The stream, once its lease is over."""
    _NOW[0] += LEASE + 1
    (orphan,) = await log.orphans(1)
    hold = await log.claim(orphan, "heir")
    assert hold is not None
    return hold


async def test_log_that_became_shorter_is_gone_on_with_from_what_is_left_of_it(
    connection: RedisConnection, pair: tuple[RedisStreamLog, RedisStreamLog]
) -> None:
    ours, _ = pair
    hold = await ours.append(await created(ours), text("a"))
    server = Shorter(connection)
    await server.remember()
    hold = await ours.append(hold, text("lost", "lost too"))
    async with following(ours) as reader:
        while reader.tail < 4:
            await asyncio.sleep(0)
        await server.lose()
        with pytest.raises(Fenced):
            await ours.append(hold, text("more"))
        claimed = await taken_over(ours)
        assert claimed == Hold(KEY, 2, 2) and await texts(ours) == ["a"]
        # Whoever has read what is lost is not given what follows instead.
        with pytest.raises(LogUnavailable, match="lost"):
            await asyncio.wait_for(reader.task, 10)
    await ours.append(claimed, text("b", "c", "d"))
    assert await texts(ours) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_reader_elsewhere_of_a_log_that_became_shorter_is_sent_away(
    connection: RedisConnection, pair: tuple[RedisStreamLog, RedisStreamLog], at_once: bool
) -> None:
    ours, theirs = pair
    hold = await ours.append(await created(ours), text("a"))
    server = Shorter(connection)
    await server.remember()
    await ours.append(hold, text("lost", "lost too"))
    async with following(theirs) as reader:
        while reader.tail < 4:
            await asyncio.sleep(0)
        await server.lose()
        if at_once:
            # It has grown again before anybody else looked.
            claimed = await taken_over(ours)
            await ours.append(claimed, text("b", "c", "d", "e"))
        with pytest.raises(LogUnavailable, match="lost"):
            await asyncio.wait_for(reader.task, 10)
    assert reader.tail == 4


async def test_what_is_asked_of_a_log_that_became_shorter_is_answered_from_what_is_left(
    connection: RedisConnection, pair: tuple[RedisStreamLog, RedisStreamLog]
) -> None:
    ours, _ = pair
    hold = await ours.append(await created(ours), text("a"))
    server = Shorter(connection)
    await server.remember()
    await ours.append(await ours.append(hold, text("lost")), END)
    await server.lose()
    head = await head_of(ours)
    assert (head.state, head.tail) == ("running", 2)
    assert await texts(ours) == ["a"]


class Following:
    """A reader from the beginning; `tail` is how far it has come."""

    def __init__(self, log: RedisStreamLog) -> None:
        self.tail = 0
        self.task = asyncio.create_task(self._follow(log))

    async def _follow(self, log: RedisStreamLog) -> None:
        async for records in follow(log, KEY, 0):
            self.tail = records[-1].seq


@contextlib.asynccontextmanager
async def following(log: RedisStreamLog) -> AsyncIterator[Following]:
    reader = Following(log)
    try:
        yield reader
    finally:
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)


async def test_redis_that_is_gone_is_given_up_after_a_while(redis: RedisServer, connection: RedisConnection) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a", SharedLogOptions(patience=0.2))
    hold = await created(log)
    redis.stop()
    with pytest.raises(LogUnavailable):
        await log.append(hold, text("a"))
    with pytest.raises(LogUnavailable):
        await log.head(KEY)
    await log.stop()


async def test_stream_in_redis_that_took_long_to_be_made_is_found_when_it_is_nobodys(
    connection: RedisConnection,
) -> None:
    now = 1000.0
    other = RedisStreamLog(connection, SystemClock(), "b", time=lambda: now)

    class Slow(RedisStreamLog):
        """Others look for orphans before the stream is there, whose hint is."""

        async def _run(self, operation: str, row: str, arguments: Any) -> Any:
            nonlocal now
            if operation == "create":
                now += LEASE + 1
                assert await other.orphans(10) == []
            return await super()._run(operation, row, arguments)

    log = Slow(connection, SystemClock(), "a", time=lambda: now)
    await created(log)
    now += LEASE + 1
    assert [head.key for head in await other.orphans(10)] == [KEY]
    now += 100
    await connection.run(lambda redis: redis.delete(f"{log._shelf.row(KEY)}:meta"))
    assert await other.orphans(10) == []
    assert await connection.run(lambda redis: redis.zcard(log._shelf.open)) == 0
    await log.stop()
    await other.stop()


@contextlib.contextmanager
def round_trips(connection: RedisConnection, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As many items as commands go to the server within."""
    trips: list[int] = []
    run = connection.run

    async def counted(command: Any, *, urgent: bool = False) -> Any:
        trips.append(1)
        return await run(command, urgent=urgent)

    with monkeypatch.context() as patched:
        patched.setattr(connection, "run", counted)
        yield trips


async def test_many_holds_in_redis_are_renewed_and_released_in_as_many_round_trips_as_one(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    needed: list[int] = []
    for count in (1, 30):
        holds = [await created(log, StreamKey(f"tenant/{count}", f"chat-{n}")) for n in range(count)]
        with round_trips(connection, monkeypatch) as trips:
            await log.renew(holds)
            await log.seen([hold.key for hold in holds])
            await log.release(holds)
        needed.append(len(trips))
    assert needed[0] == needed[1] and len(await log.orphans(100)) == 31
    await log.stop()


async def test_history_in_redis_is_read_in_pages(connection: RedisConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    hold = await log.append(await created(log), text("a"))
    for word in "bcdef":
        hold = await log.append(hold, Commit((Text(word), Reasoning(word))))
    for page in (3, 4, 12, 13):
        monkeypatch.setattr(stream_shelf, "_AT_ONCE", page)
        assert (await log.history(KEY)).deltas == tuple([record.delta for record in await whole(log)]), page
    await log.stop()


async def test_orphans_in_redis_are_found_in_as_many_round_trips_however_many_there_are(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RedisStreamLog(connection, SystemClock(), "a")
    needed: list[int] = []
    for count in (1, 30):
        await log.release([await created(log, StreamKey(f"tenant/{count}", f"chat-{n}")) for n in range(count)])
        with round_trips(connection, monkeypatch) as trips:
            found = await log.orphans(100)
        needed.append(len(trips))
    assert len(found) == 31 and needed[0] == needed[1]
    await log.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


class Forgetful(StreamAppends):
    """Commits, and then does not know of it, as often as `lost` says."""

    lost = 0

    async def _transact(self, connection: Connection, batch: Any) -> Any:
        refused = await super()._transact(connection, batch)
        if self.lost:
            self.lost -= 1
            raise psycopg.OperationalError("the connection is lost")
        return refused


async def test_append_that_postgresql_did_without_an_answer_is_done_once(postgres: str) -> None:
    settings = PostgresSettings(postgres, "forgetful")
    log = PostgresStreamLog(settings, SystemClock(), "a")
    await log.start()
    appends = log.appends = Forgetful(Connections(settings, 1), SystemClock())
    hold = await created(log)
    appends.lost = 2
    hold = await log.append(hold, text("a", "b"))
    appends.lost = 1
    with pytest.raises(Fenced):
        await log.append(Hold(KEY, 1, 1), text("stale"))
    hold = await log.append(hold, text("c"))
    await log.release([hold])
    ours = await log.claim(await head_of(log), "b")
    assert ours is not None
    appends.lost = 1
    await log.append(ours, END)
    assert await texts(log) == ["a", "b", "c"] and len(await whole(log)) == 5
    await log.stop()
    await appends._connections.aclose()


async def test_connections_that_the_server_cut_are_made_anew(postgres: str) -> None:
    log = PostgresStreamLog(PostgresSettings(postgres, "cut"), SystemClock(), "a")
    await log.start()
    hold = await log.append(await created(log), text("a"))
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as other:
        await other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert (await head_of(log)).tail == 2
    hold = await log.append(hold, text("b"))
    await log.append(hold, END)
    assert await texts(log) == ["a", "b"]
    await log.stop()


async def test_postgresql_that_is_not_there_is_given_up_after_a_while() -> None:
    settings = PostgresSettings("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    log = PostgresStreamLog(settings, SystemClock(), "a", SharedLogOptions(patience=0.1))
    with pytest.raises(LogUnavailable):
        await log.start()
    assert "nobody" not in repr(settings)
    await log.stop()


async def test_one_append_that_cannot_be_written_does_not_fail_its_neighbours(postgres: str) -> None:
    log = PostgresStreamLog(PostgresSettings(postgres, "neighbours"), SystemClock(), "a")
    await log.start()
    other = StreamKey("tenant/key", "other")
    first, second = await created(log), await created(log, other)
    impossible = Commit((Text("b"),), "running", attempts=(AttemptRow(2**40, "up", "m"),))
    outcomes = await asyncio.gather(
        log.append(first, impossible), log.append(second, text("a")), return_exceptions=True
    )
    assert isinstance(outcomes[0], Exception) and outcomes[1] == Hold(other, 1, 2)
    assert (await head_of(log)).tail == 1
    await log.stop()


async def test_leases_in_postgresql_are_by_its_own_clock_whatever_ours_does(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PostgresSettings(postgres, "clock")
    log, other = [PostgresStreamLog(settings, SystemClock(), node) for node in "ab"]
    await log.start()
    hold = await log.append(await created(log), text("a"))
    loop = asyncio.get_running_loop()
    time = loop.time
    with monkeypatch.context() as suspended:
        # The machine slept meanwhile: its clock did not go on.
        suspended.setattr(loop, "time", lambda: time() - 1000)
        hold = await log.append(hold, text("b"))
    assert await other.orphans(10) == []
    assert await other.claim(await head_of(other), "b") is None
    assert [one.verdict for one in await log.renew([hold])] == ["kept"]
    await other.seen([KEY])
    ago = await log.unseen(KEY)
    assert ago is not None and 0 <= ago < 60
    await log.append(hold, END)
    assert await log.sweep(10) == 0 and (await head_of(log)).terminal_at is not None
    for one in (log, other):
        await one.stop()


async def test_postgresql_that_only_reads_after_a_failover_is_waited_for_and_then_given_up(postgres: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as admin:
        await admin.execute("CREATE DATABASE failover")
        settings = PostgresSettings(make_conninfo(postgres, dbname="failover"))
        log = PostgresStreamLog(settings, SystemClock(), "a", SharedLogOptions(patience=0.2))
        await log.start()
        hold = await log.append(await created(log), text("a"))
        cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'failover'"
        await admin.execute("ALTER DATABASE failover SET default_transaction_read_only = on")
        await admin.execute(cut)
        for asked in (log.append(hold, text("b")), log.create(new_stream(StreamKey("tenant/key", "other")))):
            with pytest.raises(LogUnavailable):
                await asked
        assert not log.up and (await head_of(log)).tail == 2
        await admin.execute("ALTER DATABASE failover RESET default_transaction_read_only")
        await admin.execute(cut)
        await log.append(hold, text("b"))
        assert await texts(log) == ["a", "b"]
        await log.stop()


async def test_statement_that_postgresql_refuses_is_a_log_that_is_not_available(postgres: str) -> None:
    log = PostgresStreamLog(PostgresSettings(postgres, "dropped"), SystemClock(), "a", SharedLogOptions(patience=0.2))
    await log.start()
    hold = await created(log)
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as admin:
        await admin.execute("DROP TABLE dropped.streams")
    for asked in (log.head(KEY), log.append(hold, text("a")), log.sweep(10), log.orphans(10)):
        with pytest.raises(LogUnavailable):
            await asked
    await log.stop()
