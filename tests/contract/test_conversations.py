"""Every store of conversations keeps the contract; the file is there after a restart, and has nothing left of what was deleted."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cauce.domain.errors import Overloaded
from cauce.ports.conversations import Conversations
from cauce.stores.inproc.conversations import InprocConversations
from cauce.stores.postgres.conversations import PostgresConversations
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.sqlite.conversations import FILE, SqliteConversations
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.conversations_contract import KEEP_FOR, OWNER, ConversationsContract, Stores, exchanged, numbered
from tests.postgres_server import running_postgres

pytestmark = pytest.mark.anyio

_NUMBERS = itertools.count()


class TestInprocConversations(ConversationsContract):
    @pytest.fixture
    def stores(self, clock: FakeClock) -> Stores:
        store = InprocConversations(clock, keep_for=KEEP_FOR)

        async def make() -> Conversations:
            return store

        return make

    async def test_oldest_go_first_when_memory_is_short(self, clock: FakeClock) -> None:
        store = InprocConversations(clock, most_bytes=4000)
        for name in "abc":
            await store.keep(OWNER, name, exchanged(clock, name), clock.now())
        assert [await store.find(OWNER, name) is not None for name in "abc"] == [False, True, True]

    async def test_one_that_alone_takes_more_than_all_may_is_forgotten(self, clock: FakeClock) -> None:
        store = InprocConversations(clock, most_bytes=4000)
        for number in range(4):
            await store.keep(OWNER, "c", exchanged(clock, f"s{number}", "x" * 200, "y" * 200), clock.now())
        assert store._bytes <= 4000


class TestSqliteConversations(ConversationsContract):
    @pytest.fixture
    async def stores(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Stores]:
        made: list[SqliteConversations] = []

        async def make() -> Conversations:
            made.append(SqliteConversations(tmp_path / FILE, clock, keep_for=KEEP_FOR))
            return made[-1]

        yield make
        for store in made:
            await store.stop()

    async def test_conversations_are_there_after_a_restart(self, clock: FakeClock, tmp_path: Path) -> None:
        store = SqliteConversations(tmp_path / FILE, clock)
        turns = exchanged(clock)
        await store.keep(OWNER, "c", turns, clock.now())
        await store.stop()
        again = SqliteConversations(tmp_path / FILE, clock)
        assert list(await again.turns(OWNER, "c", 0, 10)) == numbered(turns)
        await again.stop()

    async def test_nothing_of_what_was_deleted_is_left_on_disk(self, clock: FakeClock, tmp_path: Path) -> None:
        store = SqliteConversations(tmp_path / FILE, clock, keep_for=KEEP_FOR)

        def on_disk(canary: bytes) -> bool:
            return any([canary in file.read_bytes() for file in tmp_path.iterdir()])

        for name, canary in (("c1", "canary one"), ("c2", "canary two")):
            await store.keep(OWNER, name, exchanged(clock, name, canary * 50, canary), clock.now())
        assert on_disk(b"canary one") and on_disk(b"canary two")
        await store.delete(OWNER, "c1")
        assert not on_disk(b"canary one") and on_disk(b"canary two")
        clock.advance(KEEP_FOR + 1)
        await store.sweep(10)
        assert not on_disk(b"canary two")
        await store.stop()

    async def test_file_that_cannot_be_written_is_told(self, clock: FakeClock, tmp_path: Path) -> None:
        store = SqliteConversations(tmp_path / FILE, clock)
        store._file.execute("PRAGMA query_only = ON")
        with pytest.raises(Overloaded, match="conversations cannot be used now"):
            await store.keep(OWNER, "c", exchanged(clock), clock.now())
        store._file.execute("PRAGMA query_only = OFF")
        await store.keep(OWNER, "c", exchanged(clock), clock.now())
        assert len(await store.turns(OWNER, "c", 0, 10)) == 2
        await store.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


class TestPostgresConversations(ConversationsContract):
    @pytest.fixture
    async def stores(self, clock: FakeClock, postgres: str) -> AsyncIterator[Stores]:
        made: list[PostgresConversations] = []
        settings = PostgresSettings(postgres, f"test{next(_NUMBERS)}")

        async def make() -> Conversations:
            made.append(PostgresConversations(settings, clock, keep_for=KEEP_FOR))
            return made[-1]

        yield make
        for store in made:
            await store.stop()


async def test_server_that_does_not_answer_is_told() -> None:
    store = PostgresConversations(PostgresSettings("postgresql://cauce@127.0.0.1:1/cauce"), SystemClock())
    with pytest.raises(Overloaded, match="conversations cannot be used now"):
        await store.find(OWNER, "c")
    await store.stop()
