"""What is the log's own in PostgreSQL: servers that are silent, transactions that meet, how much is asked for at a time."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.live_streams import LiveStream
from cauce.stores.postgres.connections import Connection, Connections, PostgresGone, fetched
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.postgres.stream_reading import StreamReading
from cauce.stores.postgres.stream_retention import PURGE_AFTER
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import END, KEY, RETENTION, created, text
from tests.postgres_server import running_postgres

pytestmark = pytest.mark.anyio

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
async def admin(server: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as admin:
        yield admin


@pytest.fixture
async def url(server: str, admin: Connection) -> str:
    """A database of its own."""
    name = f"test{next(_NUMBERS)}"
    await admin.execute(f"CREATE DATABASE {name}".encode())
    return make_conninfo(server, dbname=name)


@contextlib.asynccontextmanager
async def opened(url: str, clock: Any = None, **options: Any) -> AsyncIterator[PostgresStreamLog]:
    time = None if clock is None else clock.now
    log = PostgresStreamLog(PostgresSettings(url), clock or SystemClock(), "a", SharedLogOptions(**options), time)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def at_work(admin: Connection, url: str, state: str = "TRUE") -> list[int]:
    """The processes of the server behind the connections to the database of `url`."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    found = await fetched(admin, f"SELECT pid FROM pg_stat_activity WHERE datname = %s AND {state}", (name,))
    return [pid for (pid,) in found]


@contextlib.contextmanager
def silent(pids: list[int]) -> Iterator[None]:
    """They take what they are told, and answer nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_connection_on_which_nothing_comes_back_is_given_up_and_made_anew(admin: Connection, url: str) -> None:
    connections = Connections(PostgresSettings(url), 1, answer=0.2)

    async def name(connection: Connection) -> Any:
        return await fetched(connection, "SELECT 1")

    assert await connections.run(name) == [(1,)]
    pids = await at_work(admin, url)
    with silent(pids):
        asked = [asyncio.create_task(connections.run(name)) for _ in range(3)]
        outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        # Those that waited for the one before them found it cut, or asked on a new one.
        assert isinstance(outcomes[0], PostgresGone) and len(pids) == 1
        assert await connections.run(name) == [(1,)] and connections.up
    await connections.aclose()


async def test_append_to_a_silent_postgresql_is_given_up_after_a_while(admin: Connection, url: str) -> None:
    async with opened(url, patience=0.2) as log:
        hold = await log.append(await created(log), text("a"))
        with silent(await at_work(admin, url)):
            for asked in (log.append(hold, text("b")), log.renew([hold])):
                with pytest.raises(LogUnavailable):
                    await asyncio.wait_for(asked, 30)
            assert not log.up
        assert [one.verdict for one in await log.renew([hold])] == ["kept"]


async def test_what_renews_and_what_appends_lock_in_one_order(admin: Connection, url: str) -> None:
    async with opened(url) as log, await psycopg.AsyncConnection.connect(url) as appending:
        first, second = [await created(log, StreamKey("tenant/key", id)) for id in ("z made first", "a made then")]
        keys = [second.key, first.key]
        # In a table with others it goes through the holds as they are given, and not through the table.
        await appending.execute(
            """INSERT INTO cauce.streams (principal, id, wire, request, request_hash, policy, lease_until, tail, bytes, created, retention)
                SELECT 'others', n, '', '', '', '', 1e12, 1, 1, 1, 1 FROM generate_series(1, 1000) AS n"""
        )
        await appending.execute("ANALYZE cauce.streams")
        await appending.commit()
        for asked in (log.renew([second, first]), log.seen(keys), log.release([second, first])):
            lock = "SELECT 1 FROM cauce.streams WHERE id = %s FOR UPDATE"
            await appending.execute(lock.encode(), (first.key.id,))
            asking = asyncio.ensure_future(asked)
            while not await at_work(admin, url, "wait_event_type = 'Lock'"):
                await asyncio.sleep(0)
            # It waits for the first and has not taken the second: whoever appends to both has it next.
            await appending.execute(f"{lock} NOWAIT".encode(), (second.key.id,))
            await appending.rollback()
            await asking
        assert {head.key for head in await log.orphans(10)} == set(keys)


async def test_what_the_server_undid_for_somebody_else_is_told_again_at_once(url: str) -> None:
    connections = Connections(PostgresSettings(url))
    left = 3

    async def undone(connection: Connection) -> Any:
        nonlocal left
        async with connection.transaction():
            left -= 1
            if left >= 0:
                code = "40P01" if left else "40001"
                await connection.execute(f"DO $$ BEGIN RAISE 'undone' USING ERRCODE = '{code}'; END $$".encode())
            return await fetched(connection, "SELECT 1")

    assert await connections.run(undone) == [(1,)] and left == -1
    left = 1_000
    with pytest.raises(PostgresGone):
        await connections.run(undone)
    assert connections.up
    await connections.aclose()


async def test_expired_streams_are_deleted_a_few_records_at_a_time(admin: Connection, url: str) -> None:
    clock = FakeClock()
    async with opened(url, clock, retention=RETENTION) as log:
        for id, count in (("long", 24), ("short", 1), ("longer", 30)):
            hold = await created(log, StreamKey("tenant/key", id))
            for _ in range(count):
                hold = await log.append(hold, text("a"))
            await log.append(hold, END)
        there = [await left(log)]
        clock.advance(RETENTION + 1)
        assert await log.sweep(10) == 3
        clock.advance(PURGE_AFTER + 1)
        while await log.sweep(10):
            there.append(await left(log))
        assert there[0] == 61 and there[-1] == 0
        assert all([before - after <= 10 for before, after in itertools.pairwise(there)]) and len(there) >= 7
        assert await log._reading.rows("SELECT count(*), sum(bytes) FROM streams") == [(3, 0)]
        assert await log._reading.rows("SELECT count(*) FROM attempts") == [(0,)]


async def left(log: PostgresStreamLog) -> int:
    return (await log._reading.rows("SELECT count(*) FROM segments"))[0][0]


class Counting(StreamReading):
    """`fetched` is how many rows it was given."""

    fetched = 0

    async def rows(self, statement: str, facts: Any = ()) -> list[Any]:
        found = await super().rows(statement, facts)
        self.fetched += len(found)
        return found


async def test_read_fetches_no_more_than_it_gives(url: str) -> None:
    async with opened(url) as log:
        hold = await created(log)
        for _ in range(40):
            hold = await log.append(hold, text(*["a"] * 5))
        for _ in range(5):
            hold = await log.append(hold, text("x" * 10_000))
        (row,) = (await log._reading.rows("SELECT key FROM streams"))[0]
        reading = Counting(log._connections, SystemClock())
        live = LiveStream(KEY, row, hold.tail, 1, "running")
        found = await reading.records(live, 3, 10)
        assert [record.seq for record in found.records] == list(range(4, 14)) and reading.fetched == 3
        reading.fetched = 0
        assert [record.seq for record in (await reading.records(live, 201, 100)).records] == [202, 203]
        assert reading.fetched == 2
        seen = 0
        while batch := (await reading.records(live, seen, 250)).records:
            assert batch[0].seq == seen + 1
            seen = batch[-1].seq
        assert seen == hold.tail


async def test_many_holds_are_renewed_and_released_in_one_round_trip(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as log:
        holds = [await created(log, StreamKey("tenant/key", f"chat-{number}")) for number in range(20)]
        trips = 0
        run = log._connections.run

        async def counted(work: Any, *, urgent: bool = False) -> Any:
            nonlocal trips
            trips += 1
            return await run(work, urgent=urgent)

        monkeypatch.setattr(log._connections, "run", counted)
        assert {one.verdict for one in await log.renew(holds)} == {"kept"}
        await log.seen([hold.key for hold in holds])
        await log.release(holds)
        assert trips == 3
        assert len(await log.orphans(100)) == 20


async def test_what_ended_before_conversations_were_kept_is_not_looked_at(admin: Connection, url: str) -> None:
    async with opened(url) as log:
        ended = await created(log)
        await log.append(await log.append(ended, text("a")), END)
        still_open = await log.append(await created(log, StreamKey("tenant/key", "open")), text("a"))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as old:
            # As a version before them left it.
            await old.execute("UPDATE cauce.streams SET settled = FALSE")
            await old.execute("DROP INDEX cauce.unsettled_streams")
        async with opened(url) as newer:
            assert await newer.unsettled(10) == []
            await log.append(still_open, END)
            assert [key.id for key in await newer.unsettled(10)] == ["open"]
