"""Every cache keeps the contract; each is bounded, and the file survives what happens to files."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cauce.ports.cache import Cache, CachedAnswer
from cauce.stores.inproc.cache import InprocCache
from cauce.stores.layered_cache import LayeredCache
from cauce.stores.redis.cache import RedisCache
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.sqlite.cache import SqliteCache
from cauce.testing.cache_contract import KEY, MOST, OTHER, Bounded, CacheContract, cached, fill, kept, key_of
from cauce.testing.clock import FakeClock
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


class TestInprocCache(CacheContract):
    @pytest.fixture
    def cache(self, clock: FakeClock) -> Cache:
        return InprocCache(clock, 1 << 20)

    @pytest.fixture
    def bounded(self, clock: FakeClock) -> Bounded:
        cache = InprocCache(clock, MOST)

        async def make(most_bytes: int) -> Cache:
            assert most_bytes == MOST
            return cache

        return make

    async def test_what_was_not_asked_for_longest_goes_first(self, clock: FakeClock) -> None:
        cache = InprocCache(clock, cached("0").size * 3)
        for number in range(3):
            await cache.put(bytes([number]), cached(str(number)), 60)
        await cache.get(bytes([0]))
        await cache.put(bytes([3]), cached("3"), 60)
        assert [await cache.get(bytes([number])) is not None for number in range(4)] == [True, False, True, True]

    async def test_it_never_holds_more_than_it_may(self, clock: FakeClock) -> None:
        cache = InprocCache(clock, 20_000)
        for number in range(200):
            await cache.put(bytes([number]), cached("x" * 17 * (number % 50)), 60)
            assert cache.size <= 20_000
        await cache.put(KEY, cached("x" * 30_000), 60)
        assert await cache.get(KEY) is None and len(cache) > 5

    async def test_room_of_what_is_gone_is_free_again(self, clock: FakeClock) -> None:
        cache = InprocCache(clock, 1 << 20)
        for _ in range(3):
            await cache.put(KEY, cached(), 60)
        await cache.put(OTHER, cached(), 60)
        clock.advance(61)
        assert await cache.get(KEY) is None
        await cache.delete(OTHER)
        assert cache.size == 0


class Written:
    """A file that is read, not what waits to be written into it."""

    def __init__(self, file: SqliteCache) -> None:
        self.file = file
        self.delete = file.delete

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        await self.file.put(key, answer, keep)

    async def get(self, key: bytes) -> CachedAnswer | None:
        await self.file.written()
        return await self.file.get(key)


@pytest.fixture
async def bounded_file(clock: FakeClock, tmp_path: Path) -> AsyncIterator[Bounded]:
    file = SqliteCache(tmp_path / "bounded.sqlite", clock, MOST)
    file.start()

    async def make(most_bytes: int) -> Cache:
        assert most_bytes == MOST
        return Written(file)

    yield make
    await file.aclose()


class TestSqliteCache(CacheContract):
    @pytest.fixture
    async def cache(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Cache]:
        cache = SqliteCache(tmp_path / "cache.sqlite", clock, 1 << 20)
        cache.start()
        yield cache
        await cache.aclose()

    @pytest.fixture
    def bounded(self, bounded_file: Bounded) -> Bounded:
        return bounded_file


class TestSqliteFile(CacheContract):
    @pytest.fixture
    def bounded(self, bounded_file: Bounded) -> Bounded:
        return bounded_file

    @pytest.fixture
    async def cache(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Cache]:
        file = await reopened(tmp_path / "cache.sqlite", clock)
        yield Written(file)
        await file.aclose()


class TestLayeredCache(CacheContract):
    @pytest.fixture
    async def cache(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Cache]:
        behind = SqliteCache(tmp_path / "cache.sqlite", clock, 1 << 20)
        behind.start()
        yield LayeredCache(InprocCache(clock, 3000), behind, clock, 60)
        await behind.aclose()

    @pytest.fixture
    def bounded(self, clock: FakeClock, bounded_file: Bounded) -> Bounded:
        async def make(most_bytes: int) -> Cache:
            return LayeredCache(InprocCache(clock, 3000), await bounded_file(most_bytes), clock, 60)

        return make

    async def test_what_is_found_behind_is_near_from_then_on(self, clock: FakeClock) -> None:
        near, behind = InprocCache(clock, 1 << 20), InprocCache(clock, 1 << 20)
        cache = LayeredCache(near, behind, clock, keep=100)
        await behind.put(KEY, cached(stored=clock.now() - 40), 60)
        assert await cache.get(KEY) == await near.get(KEY) is not None
        clock.advance(61)
        assert await near.get(KEY) is None


class TestRedisCache(CacheContract):
    OWN_CLOCK = True

    @pytest.fixture
    def cache(self, connection: RedisConnection) -> Cache:
        return RedisCache(connection, 1 << 20)

    @pytest.fixture
    async def bounded(
        self, connection: RedisConnection, redis_server: RedisServer, clock: FakeClock
    ) -> AsyncIterator[Bounded]:
        connections: list[RedisConnection] = []

        async def make(most_bytes: int) -> Cache:
            connection = RedisConnection(RedisSettings(redis_server.url), clock)
            await connection.start()
            connections.append(connection)
            return RedisCache(connection, most_bytes)

        yield make
        for connection in connections:
            await connection.aclose()

    async def test_redis_lets_go_of_it_when_its_time_is_over(self, connection: RedisConnection) -> None:
        await RedisCache(connection, MOST).put(KEY, cached(), 60)
        left = await connection.run(lambda redis: redis.pttl(f"cauce:{{cache}}:{KEY.hex()}"))
        assert 59_000 < left <= 60_000

    async def test_what_another_version_wrote_is_not_there(self, connection: RedisConnection) -> None:
        await connection.run(lambda redis: redis.set(f"cauce:{{cache}}:{KEY.hex()}", b"\xc1"))
        assert await RedisCache(connection, MOST).get(KEY) is None

    async def test_what_redis_uses_is_what_is_counted(self, connection: RedisConnection) -> None:
        cache = RedisCache(connection, MOST)
        before = await used(connection)
        await fill(cache, range(300), size=1000)
        assert cache.size <= MOST
        assert 0.8 < (await used(connection) - before) / cache.size < 1.1

    async def test_all_that_is_kept_goes_by_itself_when_nobody_uses_it(self, connection: RedisConnection) -> None:
        await fill(RedisCache(connection, MOST), range(10), 60)
        left = [await connection.run(lambda redis, name=name: redis.pttl(name)) for name in await names(connection)]
        assert len(left) == 13 and all([0 < one <= 61_000 for one in left])

    async def test_bound_that_became_smaller_is_kept_from_then_on(self, connection: RedisConnection) -> None:
        await fill(RedisCache(connection, MOST), range(60))
        less = RedisCache(connection, MOST // 4)
        await fill(less, range(60, 61))
        assert less.size <= MOST // 4 and await less.get(key_of(60)) is not None
        assert sum(await kept(less, range(61))) <= MOST // 4

    @pytest.mark.parametrize("part", ["order", "over", "sizes"])
    async def test_bound_is_kept_after_redis_lost_a_part_of_what_it_counts_with(
        self, connection: RedisConnection, part: str
    ) -> None:
        cache = RedisCache(connection, MOST)
        await fill(cache, range(50))
        await connection.run(lambda redis: redis.delete(f"cauce:{{cache}}:{part}"))
        await fill(cache, range(50, 200))
        assert MOST / 2 < sum(await kept(cache, range(50, 200))) <= MOST
        assert len(await kept(cache, range(180, 200))) == 20

    async def test_what_redis_let_go_of_by_itself_is_no_fault(self, connection: RedisConnection) -> None:
        cache = RedisCache(connection, MOST)
        await fill(cache, range(50))
        await connection.run(
            lambda redis: redis.delete(*[f"cauce:{{cache}}:{key_of(one).hex()}" for one in range(0, 50, 2)])
        )
        await fill(cache, range(200))
        assert MOST / 2 < sum(await kept(cache, range(200))) <= MOST


async def used(connection: RedisConnection) -> int:
    return (await connection.run(lambda redis: redis.info("memory")))["used_memory"]


async def names(connection: RedisConnection) -> list[bytes]:
    return await connection.run(lambda redis: redis.keys("cauce:{cache}:*"))


async def test_answers_are_kept_in_memory_while_redis_is_gone(clock: FakeClock) -> None:
    connection = RedisConnection(RedisSettings("redis://127.0.0.1:1/0"), clock)
    await connection.start()
    cache = LayeredCache(InprocCache(clock, 1 << 20), RedisCache(connection, MOST), clock, 60)
    await cache.put(KEY, cached(), 60)
    assert await cache.get(KEY) == cached()
    await cache.delete(KEY)
    assert await cache.get(KEY) is None
    await connection.aclose()


async def test_two_processes_share_what_one_has_kept(connection: RedisConnection, clock: FakeClock) -> None:
    one, two = [LayeredCache(InprocCache(clock, 1 << 20), RedisCache(connection, MOST), clock, 60) for _ in range(2)]
    answer = cached(stored=clock.now())
    await one.put(KEY, answer, 60)
    assert await two.get(KEY) == answer


async def reopened(path: Path, clock: FakeClock) -> SqliteCache:
    cache = SqliteCache(path, clock, 1 << 20)
    cache.start()
    return cache


async def test_answers_in_the_file_are_there_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    cache = await reopened(path, clock)
    await cache.put(KEY, cached(), 60)
    await cache.aclose()
    cache = await reopened(path, clock)
    assert await cache.get(KEY) == cached()
    await cache.aclose()


async def test_file_never_holds_much_more_than_it_may(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "cache.sqlite"
    cache = SqliteCache(path, clock, 300_000)
    cache.start()
    for number in range(400):
        await cache.put(number.to_bytes(20, "big"), cached("x" * 5000), 60)
    await cache.aclose()
    assert cache.size <= 300_000
    assert path.stat().st_size < 5000 * 400
    cache = SqliteCache(path, clock, 300_000)
    cache.start()
    assert await cache.get((399).to_bytes(20, "big")) is not None
    assert await cache.get((0).to_bytes(20, "big")) is None
    await cache.aclose()


async def test_answers_whose_time_is_over_leave_the_file(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "cache.sqlite"
    cache = await reopened(path, clock)
    for number in range(50):
        await cache.put(bytes([number]), cached(), 60)
    await cache.get(bytes([0]))
    clock.advance(61)
    await cache.put(KEY, cached(), 60)
    await cache.aclose()
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM answers").fetchone() == (1,)
    file.close()


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_file_that_cannot_be_read_is_begun_anew(
    tmp_path: Path, clock: FakeClock, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(content)
    cache = await reopened(path, clock)
    await cache.put(KEY, cached(), 60)
    assert await cache.get(KEY) == cached()
    await cache.aclose()
    assert "begun anew" in caplog.text
    cache = await reopened(path, clock)
    assert await cache.get(KEY) == cached()
    await cache.aclose()


async def test_file_that_breaks_while_it_is_read_is_begun_anew(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite"
    cache = await reopened(path, clock)
    for number in range(100):
        await cache.put(number.to_bytes(20, "big"), cached("x" * 5000), 60)
    await cache.aclose()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xaa" * (size - 8192))
    cache = await reopened(path, clock)
    for number in range(100):
        await cache.get(number.to_bytes(20, "big"))
    await cache.put(KEY, cached(), 60)
    assert await cache.get(KEY) == cached()
    await cache.aclose()
    assert "begun anew" in caplog.text


async def test_file_of_something_else_is_begun_anew(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE answers (other TEXT)")
    file.close()
    cache = await reopened(path, clock)
    await cache.put(KEY, cached(), 60)
    assert await cache.get(KEY) == cached()
    await cache.aclose()


@pytest.mark.parametrize("folder", [True, False])
async def test_place_that_cannot_be_written_costs_only_the_file(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, folder: bool
) -> None:
    if folder:
        (tmp_path / "cache.sqlite").mkdir()
    else:
        (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        cache = await reopened(tmp_path / "cache.sqlite" if folder else tmp_path / "file" / "cache.sqlite", clock)
        await cache.put(KEY, cached(), 60)
        await cache.get(OTHER)
        assert await cache.get(KEY) is None
        await cache.aclose()
    assert "in memory only" in caplog.text


async def test_cache_that_has_not_been_started_is_empty(tmp_path: Path, clock: FakeClock) -> None:
    cache = SqliteCache(tmp_path / "cache.sqlite", clock, 1 << 20)
    await cache.put(KEY, cached(), 60)
    assert await cache.get(KEY) is None
    await cache.aclose()
    assert not (tmp_path / "cache.sqlite").exists()
