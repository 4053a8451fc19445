"""Every store of responses keeps the contract; each is bounded, and the file is there after a restart."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cauce.domain.errors import Overloaded
from cauce.ports.responses import KeptResponse, Responses
from cauce.stores.inproc.responses import KEEP, InprocResponses
from cauce.stores.sqlite.responses import SqliteResponses
from cauce.stores.sqlite.schema import SchemaError
from cauce.testing.clock import FakeClock
from cauce.testing.responses_contract import KEY, OWNER, ResponsesContract, kept

pytestmark = pytest.mark.anyio


class TestInprocResponses(ResponsesContract):
    @pytest.fixture
    def responses(self, clock: FakeClock) -> Responses:
        return InprocResponses(clock)

    async def test_oldest_go_first_when_there_are_too_many(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most=2)
        for name in "abc":
            await responses.put(OWNER, KeptResponse(name, clock.now(), b"{}", ()))
        assert [await responses.get(OWNER, name) is not None for name in "abc"] == [False, True, True]

    async def test_oldest_go_first_when_they_are_too_large(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        for name in "abc":
            await responses.put(OWNER, KeptResponse(name, clock.now(), b"x" * 40, (b"y" * 40,), b"z" * 20))
        assert [await responses.get(OWNER, name) is not None for name in "abc"] == [False, True, True]

    async def test_one_that_is_too_large_alone_displaces_no_other(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        await responses.put(OWNER, KeptResponse("a", clock.now(), b"x" * 100, ()))
        await responses.put(OWNER, KeptResponse("b", clock.now(), b"x" * 300, ()))
        assert await responses.get(OWNER, "a") is not None and await responses.get(OWNER, "b") is None

    async def test_room_of_what_is_deleted_or_replaced_is_free_again(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        for _ in range(5):
            await responses.put(OWNER, KeptResponse("a", clock.now(), b"x" * 100, ()))
        await responses.put(OWNER, KeptResponse("b", clock.now(), b"x" * 100, ()))
        await responses.delete(OWNER, "a")
        await responses.put(OWNER, KeptResponse("c", clock.now(), b"x" * 100, ()))
        assert await responses.get(OWNER, "b") is not None and await responses.get(OWNER, "c") is not None


class TestSqliteResponses(ResponsesContract):
    @pytest.fixture
    async def responses(self, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Responses]:
        kept = SqliteResponses(tmp_path / "responses.sqlite", clock)
        yield kept
        await kept.aclose()

    async def test_what_is_kept_is_there_after_a_restart(self, tmp_path: Path, clock: FakeClock) -> None:
        path = tmp_path / "new" / "responses.sqlite"
        first = SqliteResponses(path, clock)
        await first.put(OWNER, kept(clock, "resp_0"))
        await first.promise(KEY, clock.now())
        await first.aclose()
        second = SqliteResponses(path, clock)
        assert await second.get(OWNER, "resp_0") == kept(clock, "resp_0")
        assert await second.promised(10) == [KEY]
        await second.aclose()

    async def test_nothing_of_a_deleted_response_is_left_on_disk(self, tmp_path: Path, clock: FakeClock) -> None:
        responses = SqliteResponses(tmp_path / "responses.sqlite", clock)
        await responses.settle(KEY, KeptResponse(KEY.id, clock.now(), b'"canary"', (), b"canary"))
        assert any([b"canary" in file.read_bytes() for file in tmp_path.iterdir()])
        assert await responses.delete(OWNER, KEY.id)
        assert not any([b"canary" in file.read_bytes() for file in tmp_path.iterdir()])
        await responses.aclose()

    async def test_settled_answer_is_there_though_the_process_dies_at_once(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        responses = SqliteResponses(tmp_path / "responses.sqlite", clock)
        await responses.settle(KEY, kept(clock))
        # What another process sees is what is left when this one is killed.
        with sqlite3.connect(tmp_path / "responses.sqlite") as file:
            assert file.execute("SELECT state FROM responses").fetchall() == [("kept",)]
        file.close()
        await responses.aclose()

    async def test_oldest_go_first_when_the_file_is_too_large(self, tmp_path: Path, clock: FakeClock) -> None:
        responses = SqliteResponses(tmp_path / "responses.sqlite", clock, most_bytes=400_000)
        names = [f"resp_{number}" for number in range(20)]
        for name in names:
            await responses.put(OWNER, kept(clock, name, b"x" * 50_000))
            assert await responses.get(OWNER, name) is not None
        there = [await responses.get(OWNER, name) is not None for name in names]
        assert there == sorted(there) and 3 <= sum(there) <= 8
        await responses.put(OWNER, kept(clock, "large", b"x" * 500_000))
        assert await responses.get(OWNER, "large") is None and await responses.get(OWNER, names[-1]) is not None
        await responses.aclose()

    async def test_what_has_gone_with_age_leaves_nothing_in_the_file(self, tmp_path: Path, clock: FakeClock) -> None:
        responses = SqliteResponses(tmp_path / "responses.sqlite", clock)
        await responses.put(OWNER, kept(clock))
        await responses.promise(KEY, clock.now())
        clock.advance(KEEP + 1)
        await responses.put(OWNER, kept(clock, "resp_new"))
        assert await responses.promised(10) == []
        await responses.aclose()
        file = sqlite3.connect(tmp_path / "responses.sqlite")
        assert file.execute("SELECT id FROM responses").fetchall() == [("resp_new",)]
        file.close()

    async def test_answer_that_cannot_be_written_stays_promised(self, tmp_path: Path, clock: FakeClock) -> None:
        responses = SqliteResponses(tmp_path / "responses.sqlite", clock)
        await responses.promise(KEY, clock.now())
        assert await responses.promised(10) == [KEY]
        responses._file.execute("PRAGMA query_only = ON")
        with pytest.raises(Overloaded, match="try again"):
            await responses.settle(KEY, kept(clock))
        responses._file.execute("PRAGMA query_only = OFF")
        assert await responses.promised(10) == [KEY]
        await responses.settle(KEY, kept(clock))
        assert await responses.get(OWNER, KEY.id) == kept(clock)
        await responses.aclose()

    async def test_file_of_a_newer_version_is_left_alone(self, tmp_path: Path, clock: FakeClock) -> None:
        path = tmp_path / "responses.sqlite"
        file = sqlite3.connect(path)
        file.execute("PRAGMA user_version = 99")
        file.close()
        with pytest.raises(SchemaError, match="newer version"):
            SqliteResponses(path, clock)
