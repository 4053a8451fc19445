"""Every stream log keeps the contract, and agrees with a model of ten lines."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import Gone
from cauce.domain.stream import Commit, Created, NewStream, StreamKey, StreamLimits
from cauce.ports.stream_log import LogUnavailable, StreamLog
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.parted_log import PartedStreamLog
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.testing.clock import FakeClock
from cauce.testing.stream_log_contract import StreamLogContract
from cauce.testing.stream_samples import CREATED, END, KEY, LEASE, RETENTION, Logs, created, new_stream, text
from tests.postgres_server import running_postgres
from tests.redis_server import RedisServer, running_redis

MOST = 4 * 1024 * 1024 * 1024
_NUMBERS = itertools.count()


class TestInprocStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock) -> Logs:
        # One process only: all nodes are the same.
        made: dict[StreamLimits, InprocStreamLog] = {}

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            log = InprocStreamLog(clock, retention=RETENTION, max_bytes=max_bytes, lease=LEASE, limits=limits)
            return made.setdefault(limits, log)

        return make

    async def test_oldest_ended_streams_go_first_when_memory_is_short(self, clock: FakeClock) -> None:
        log = InprocStreamLog(clock, max_bytes=1024)
        await log.append(
            await log.append(await created(log), Commit((Text("x" * 2000),), "running")),
            Commit((Finish("stop"),), "completed"),
        )
        assert await log.sweep(10) == 1

    async def test_what_was_asked_counts_when_memory_is_short(self, clock: FakeClock) -> None:
        log = InprocStreamLog(clock, max_bytes=20_000)
        for number in range(4):
            new = msgspec.structs.replace(new_stream(StreamKey("tenant/key", f"chat-{number}")), policy="x" * 8_000)
            hold = (await log.create(new)).hold
            assert hold is not None
            await log.append(await log.append(hold, text("a")), END)
        while await log.sweep(10):
            pass
        there = [
            key for key in [StreamKey("tenant/key", f"chat-{number}") for number in range(4)] if await known(log, key)
        ]
        assert [key.id for key in there] == ["chat-3"]


class AllPrivate(PartedStreamLog):
    """A log whose streams are private, all of them."""

    def __init__(self, clock: FakeClock, limits: StreamLimits, max_bytes: int) -> None:
        self.others = InprocStreamLog(clock)
        here = InprocStreamLog(clock, retention=RETENTION, max_bytes=max_bytes, lease=LEASE, limits=limits)
        shared: Any = self.others
        super().__init__(here, shared)

    async def create(self, new: NewStream) -> Created:
        made = await super().create(msgspec.structs.replace(new, private=True))
        assert await self.others.head(new.key) is None
        return made


async def known(log: StreamLog, key: StreamKey) -> bool:
    try:
        return await log.head(key) is not None
    except Gone:
        return False


class TestPrivateStreamsOfPartedStreamLog(StreamLogContract):
    """As if all streams were private: the other log is never asked to keep one."""

    @pytest.fixture
    async def logs(self, clock: FakeClock) -> Logs:
        made: dict[StreamLimits, StreamLog] = {}

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            return made.setdefault(limits, AllPrivate(clock, limits, max_bytes))

        return make


class TestOtherStreamsOfPartedStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Logs]:
        made: list[PartedStreamLog] = []

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            options = StreamLogOptions(RETENTION, max_bytes, LEASE, limits=limits)
            shared = SqliteStreamLog(tmp_path / "streams.db", clock, f"node {len(made)}", options)
            log = PartedStreamLog(InprocStreamLog(clock), shared)
            await log.start()
            made.append(log)
            return log

        yield make
        for log in made:
            await log.stop()


class Away(InprocStreamLog):
    """A log that does not answer."""

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        raise LogUnavailable("streams cannot be read now: try again", retry_after=1)


@pytest.mark.anyio
class TestNewestOpenStreamOfPartedStreamLog:
    """A chat may have private streams and others."""

    @staticmethod
    async def made(clock: FakeClock, *private: bool, shared: type[InprocStreamLog] = InprocStreamLog) -> StreamLog:
        """A log with open streams of the group `c`, `c~0` before `c~1`."""
        others: Any = shared(clock)
        log = PartedStreamLog(InprocStreamLog(clock), others)
        for number, one in enumerate(private):
            new = new_stream(StreamKey(KEY.principal, f"c~{number}"), created=CREATED + number)
            await log.create(msgspec.structs.replace(new, private=one))
        return log

    @pytest.mark.parametrize("private", [(True, False), (False, True), (True, True), (False, False)])
    async def test_newest_of_both_is_found(self, clock: FakeClock, private: tuple[bool, bool]) -> None:
        log = await self.made(clock, *private)
        assert await log.newest_open(KEY.principal, "c") == StreamKey(KEY.principal, "c~1")
        assert await log.newest_open(KEY.principal, "d") is None

    async def test_stream_of_another_server_with_the_id_of_a_private_one_is_not_meant(self, clock: FakeClock) -> None:
        log: Any = await self.made(clock, True, True)
        newer = new_stream(StreamKey(KEY.principal, "c~0"), created=CREATED + 9)
        await log._shared.create(newer)
        assert await log.newest_open(KEY.principal, "c") == StreamKey(KEY.principal, "c~1")

    async def test_private_one_is_found_also_while_the_other_log_is_away(self, clock: FakeClock) -> None:
        log = await self.made(clock, True, shared=Away)
        assert await log.newest_open(KEY.principal, "c") == StreamKey(KEY.principal, "c~0")
        with pytest.raises(LogUnavailable):
            await log.newest_open(KEY.principal, "d")


class TestSqliteStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Logs]:
        made: list[SqliteStreamLog] = []

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            options = StreamLogOptions(RETENTION, max_bytes, LEASE, limits=limits)
            log = SqliteStreamLog(tmp_path / "streams.db", clock, f"node {len(made)}", options)
            await log.start()
            made.append(log)
            return log

        yield make
        for log in made:
            await log.stop()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


class TestRedisStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock, redis: RedisServer) -> AsyncIterator[Logs]:
        made: list[RedisStreamLog] = []
        prefix = f"test{next(_NUMBERS)}:"
        connections: list[RedisConnection] = []

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            connection = RedisConnection(RedisSettings(redis.url, prefix=prefix), clock)
            await connection.start()
            connections.append(connection)
            options = SharedLogOptions(RETENTION, LEASE, limits=limits, max_bytes=max_bytes)
            log = RedisStreamLog(connection, clock, f"node {len(made)}", options, time=clock.now)
            made.append(log)
            return log

        yield make
        for log in made:
            await log.stop()
        for connection in connections:
            await connection.aclose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


class TestPostgresStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock, postgres: str) -> AsyncIterator[Logs]:
        made: list[PostgresStreamLog] = []
        settings = PostgresSettings(postgres, f"test{next(_NUMBERS)}")

        async def make(limits: StreamLimits = StreamLimits(), max_bytes: int = MOST) -> StreamLog:  # noqa: B008
            options = SharedLogOptions(RETENTION, LEASE, limits=limits, max_bytes=max_bytes)
            log = PostgresStreamLog(settings, clock, f"node {len(made)}", options, time=clock.now)
            await log.start()
            made.append(log)
            return log

        yield make
        for log in made:
            await log.stop()
