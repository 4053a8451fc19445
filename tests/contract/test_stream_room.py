"""What bounds the streams of several servers: what is counted is what PostgreSQL and Redis take, whatever has happened to it."""

import base64
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cauce.bootstrap.streaming import open_log
from cauce.config import Config
from cauce.domain.errors import Gone
from cauce.domain.stream import StreamKey, Whose
from cauce.ports.stream_log import LogUnavailable, StreamLog
from cauce.server.settings import StreamSettings
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.postgres.connections import Connection, fetched
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.postgres.stream_retention import ROOM_LOCK
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.stream_room_contract import MOST, ended, is_newest, key_of, settled, there
from cauce.testing.stream_samples import END, LEASE, RETENTION, created, head_of, text
from cauce.testing.upstream import Reply, Upstream
from tests.http import ask, within
from tests.postgres_server import running_postgres
from tests.redis_server import RedisServer
from tests.serving import MESSAGES, serving, upstream_table

pytestmark = pytest.mark.anyio

_NUMBERS = itertools.count()
LITTLE = 60_000
"""Bytes that a few small streams take."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as admin:
        yield admin


@pytest.fixture
def settings(postgres: str) -> PostgresSettings:
    return PostgresSettings(postgres, f"test{next(_NUMBERS)}")


@pytest.fixture
async def in_postgres(settings: PostgresSettings, clock: FakeClock) -> AsyncIterator[PostgresStreamLog]:
    log = PostgresStreamLog(settings, clock, "a", options(), time=clock.now)
    await log.start()
    yield log
    await log.stop()


def options(max_bytes: int = MOST) -> SharedLogOptions:
    return SharedLogOptions(RETENTION, LEASE, max_bytes=max_bytes)


def in_redis(connection: RedisConnection, clock: FakeClock, max_bytes: int = MOST) -> RedisStreamLog:
    return RedisStreamLog(connection, clock, "a", options(max_bytes), time=clock.now)


async def small(log: StreamLog, number: int, records: int = 1) -> None:
    """A stream that has ended, of so many short records."""
    hold = await created(log, key_of(number))
    for _ in range(records):
        hold = await log.append(hold, text("a word or two of it"))
    await log.append(hold, END)


async def remembered(log: StreamLog, count: int) -> list[int]:
    """Those of the first `count` streams that are known to have been there."""
    found: list[int] = []
    for number in range(count):
        try:
            assert await log.head(key_of(number)) is None
        except Gone:
            found.append(number)
    return found


async def only_the_newest_are_remembered(log: StreamLog, clock: FakeClock) -> None:
    """Fails where tombstones take the place of what can be read."""
    for number in range(120):
        await small(log, number)
        await log.erase(Whose(key_of(number).principal, id=key_of(number).id))
        clock.advance(0.01)
    for number in range(200, 203):
        await small(log, number)
    for _ in range(2):
        await settled(log, clock)
    found = await remembered(log, 120)
    assert 20 <= len(found) <= 30 and found == list(range(120 - len(found), 120))
    assert await there(log, range(200, 203)) == [200, 201, 202]
    await small(log, 0)
    assert (await head_of(log, key_of(0))).ended


async def test_tombstones_in_redis_do_not_take_the_place_of_what_can_be_read(
    connection: RedisConnection, clock: FakeClock
) -> None:
    log = in_redis(connection, clock, LITTLE)
    await only_the_newest_are_remembered(log, clock)
    await log.stop()


async def test_tombstones_in_postgresql_do_not_take_the_place_of_what_can_be_read(
    settings: PostgresSettings, clock: FakeClock
) -> None:
    log = PostgresStreamLog(settings, clock, "a", options(LITTLE), time=clock.now)
    await log.start()
    await only_the_newest_are_remembered(log, clock)
    await log.stop()


@pytest.mark.parametrize(("streams", "records"), [(150, 20), (40, 100)])
async def test_what_is_counted_of_streams_is_what_redis_uses(
    connection: RedisConnection, clock: FakeClock, streams: int, records: int
) -> None:
    log = in_redis(connection, clock, 1 << 30)
    before = await used(connection)
    for number in range(streams):
        await small(log, number, records)
    counted = await connection.run(lambda redis: redis.hget(log._shelf.sizes, "total"))
    assert counted is not None
    taken = await used(connection) - before
    assert 0.8 < taken / int(counted) < 1.25
    for number in range(streams):
        await log.erase(Whose(key_of(number).principal, id=key_of(number).id))
    assert await connection.run(lambda redis: redis.hgetall(log._shelf.sizes)) == {b"total": b"0"}
    assert 300 < (await used(connection) - before) / streams < 700
    await log.stop()


async def used(connection: RedisConnection) -> int:
    return (await connection.run(lambda redis: redis.info("memory")))["used_memory"]


async def test_what_is_counted_of_streams_is_what_postgresql_uses(
    in_postgres: PostgresStreamLog, settings: PostgresSettings, admin: Connection
) -> None:
    for number in range(100):
        await small(in_postgres, number, 20)
    size = 0
    for table in ("streams", "segments", "attempts"):
        await admin.execute(f"VACUUM FULL {settings.schema}.{table}".encode())
        size += (await fetched(admin, f"SELECT pg_total_relation_size('{settings.schema}.{table}')"))[0][0]
    [(counted,)] = await fetched(admin, f"SELECT sum(kept) FROM {settings.schema}.streams")
    assert 0.8 < size / int(counted) < 1.25


async def test_streams_that_postgresql_packs_small_stay(in_postgres: PostgresStreamLog, clock: FakeClock) -> None:
    for number in range(12):
        hold = await created(in_postgres, key_of(number))
        await in_postgres.append(await in_postgres.append(hold, text("x" * 100_000)), END)
    await settled(in_postgres, clock)
    assert await there(in_postgres, range(12)) == list(range(12))


async def test_server_leaves_it_to_another_to_make_room_that_is_at_it(
    in_postgres: PostgresStreamLog, settings: PostgresSettings, admin: Connection, clock: FakeClock
) -> None:
    for number in range(14):
        await ended(in_postgres, number)
        clock.advance(1)
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (ROOM_LOCK, settings.schema))
        await settled(in_postgres, clock)
        assert await there(in_postgres, range(14)) == list(range(14))
    await settled(in_postgres, clock)
    assert is_newest(await there(in_postgres, range(14)), range(14))


async def test_tables_of_before_there_was_a_bound_are_gone_on_with(
    in_postgres: PostgresStreamLog, settings: PostgresSettings, admin: Connection, clock: FakeClock
) -> None:
    await ended(in_postgres, 0)
    await admin.execute(f"ALTER TABLE {settings.schema}.streams DROP COLUMN kept".encode())
    await admin.execute(f"CREATE INDEX due_streams ON {settings.schema}.streams (due) WHERE due IS NOT NULL".encode())
    later = PostgresStreamLog(settings, clock, "b", options(), time=clock.now)
    await later.start()
    for number in range(1, 14):
        await ended(later, number)
        clock.advance(1)
    await settled(later, clock)
    found = await there(later, range(14))
    assert found[0] == 0 and is_newest(found[1:], range(14))
    clock.advance(RETENTION + 1)
    await settled(later, clock)
    assert await there(later, range(14)) == []
    await later.stop()


async def test_streams_whose_server_died_as_they_ended_are_counted_by_others(
    connection: RedisConnection, clock: FakeClock
) -> None:
    class Dying(RedisStreamLog):
        """Ends streams, and does no more."""

        async def _ended(self, *_: Any) -> None:
            raise LogUnavailable("it died")

    dying = Dying(connection, clock, "a", options(), time=clock.now)
    for number in range(14):
        await ended(dying, number)
        clock.advance(1)
    log = in_redis(connection, clock)
    await settled(log, clock)
    assert await there(log, range(14)) == list(range(14))
    assert await log.orphans(10) == []
    await settled(log, clock)
    assert is_newest(await there(log, range(14)), range(14))
    for one in (dying, log):
        await one.stop()


@pytest.mark.parametrize("part", ["ended", "sizes"])
async def test_streams_stay_within_their_bytes_after_redis_lost_a_part_of_what_it_counts_with(
    connection: RedisConnection, clock: FakeClock, part: str
) -> None:
    log = in_redis(connection, clock)
    for number in range(4):
        await ended(log, number)
    await connection.run(lambda redis: redis.delete(getattr(log._shelf, part)))
    for number in range(4, 18):
        await ended(log, number)
        clock.advance(1)
    await settled(log, clock)
    assert is_newest(await there(log, range(4, 18)), range(4, 18))
    await log.stop()


@pytest.mark.parametrize("store", ["postgres", "redis"])
async def test_bound_of_the_configuration_holds(postgres: str, redis_server: RedisServer, store: Any) -> None:
    most = 16 * 1024 * 1024
    config = Config(
        streams=StreamSettings(store=store, max_disk=most),
        postgres=PostgresSettings(postgres, "configured"),
        redis=RedisSettings(redis_server.url, prefix="configured:"),
    )
    opened = open_log(config, SystemClock(), "a")
    await opened.log.start()
    if opened.start is not None:
        await opened.start()
    content = base64.b64encode(random.Random(1).randbytes(750_000)).decode()
    for number in range(20):
        hold = await created(opened.log, StreamKey("tenant/key", f"chat-{number}"))
        await opened.log.append(await opened.log.append(hold, text(content)), END)
    while await opened.log.sweep(300):
        pass
    found = await there(opened.log, range(20))
    assert found == list(range(20 - len(found), 20)) and 15 <= len(found) <= 16
    await opened.log.stop()
    if opened.stop is not None:
        await opened.stop()


@pytest.mark.parametrize("bound", ["max_stream = 65536", "max_records = 1000"])
@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres", "redis"])
async def test_answer_is_as_long_as_the_configuration_allows_in_every_log(
    postgres: str, redis_server: RedisServer, tmp_path: Path, store: str, bound: str
) -> None:
    toml = (
        f"[streams]\nstore = {store!r}\n{bound}\n[postgres]\nurl = {postgres!r}\n[redis]\nurl = {redis_server.url!r}\n"
    )
    # Texts with thoughts between them are not joined: each is a record.
    pieces = [
        b'{"choices":[{"delta":{"%s":"%s"}}]}' % (name, b"x" * 100) for name in (b"reasoning_content", b"content")
    ]
    async with Upstream(Reply(chunks=tuple(pieces * 600))) as upstream:
        async with serving(toml + upstream_table("up", upstream.base_url), data=tmp_path / "data") as served:
            asked = {"model": "up/m", "messages": MESSAGES}
            frames = (await within(ask(served.port, "POST", f"/chat/stream/{store}-{bound[4]}", asked), 30)).frames()
    told = frames[-1]
    assert (told["type"], told["error_code"], told["final_error"]) == ("error", "payload_too_large", True)
    assert told["partial"] == "".join([frame["data"] for frame in frames if frame["type"] == "content"])
    assert told["seq"] <= 1001
