"""Every ledger keeps the contract; the one on disk also across restarts, failed writes and torn files."""

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.errors import InvalidRequest, Overloaded
from cauce.domain.histogram import bucket
from cauce.ports.ledger import LedgerStanding
from cauce.ports.usage import ALL_TENANTS, Dimension, Holder, Opinion, Query, Report, SpendUnit, Votes
from cauce.server.routes.usage import days_query
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.periods import DAY
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.stores.sqlite.ledger_tables import DAYS, FIRST, HOURS, MIGRATIONS
from cauce.stores.sqlite.reading import FILE, Reading
from cauce.stores.sqlite.retention import used
from cauce.stores.sqlite.schema import SchemaError, open_database
from cauce.stores.sqlite.settings import LedgerSettings
from cauce.stores.sqlite.spool import files
from cauce.stores.sqlite.spools import SPOOL
from cauce.testing.clock import FakeClock
from cauce.testing.ledger_contract import OWNER, Books, LedgerContract, entry, failed, report
from tests.disk import files_no_larger_than
from tests.http import within

pytestmark = pytest.mark.anyio


class TestInprocLedger(LedgerContract):
    @pytest.fixture
    def books(self) -> Books:
        return InprocLedger()


class TestSqliteLedger(LedgerContract):
    """As it comes: most of what is asked for is still in the spool."""

    @pytest.fixture
    async def books(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Books]:
        async with running(tmp_path, clock) as ledger:
            yield ledger


class Committed(SqliteLedger):
    """All of what is asked for is in the tables."""

    async def report(self, query: Query) -> Report:
        assert await self.flush()
        return await super().report(query)

    async def spent(self, holder: Holder, unit: SpendUnit, since: float) -> float:
        assert await self.flush()
        return await super().spent(holder, unit, since)


class TestCommittedLedger(LedgerContract):
    @pytest.fixture
    async def books(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Books]:
        ledger = Committed(tmp_path, clock)
        ledger.start()
        yield ledger
        await ledger.stop()


@asynccontextmanager
async def running(folder: Path, clock: FakeClock, **settings: int) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(folder, clock, LedgerSettings(**settings))
    ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


def abandoned(folder: Path, clock: FakeClock, *numbers: int) -> SqliteLedger:
    """A ledger whose process ended in the middle: it was never told to stop, and its thread never ran."""
    ledger = SqliteLedger(folder, clock)
    for number in numbers:
        ledger.record(entry(clock, number))
    # The kernel does that with the process.
    ledger._claim.let_go()
    return ledger


def only_spool_file(folder: Path) -> Path:
    [path] = (folder / SPOOL).iterdir()
    return path


async def attempts(ledger: SqliteLedger, clock: FakeClock) -> int:
    return (await report(ledger, clock)).total.sums.attempts


async def test_what_a_dead_process_left_in_the_spool_is_taken_in_once(clock: FakeClock, tmp_path: Path) -> None:
    abandoned(tmp_path, clock, 1, 2, 3)
    for _ in range(3):
        async with running(tmp_path, clock) as ledger:
            assert await attempts(ledger, clock) == 3
            assert await ledger.flush() and await attempts(ledger, clock) == 3
    assert len(files(tmp_path / SPOOL)) == 1


async def test_request_has_its_whole_time_when_its_attempts_are_committed_apart(
    clock: FakeClock, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as ledger:
        ledger.record(failed(clock, 1, latency=3.0, waited=10.0))
        assert await ledger.flush()
    clock.advance(5)
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 1, n=2, latency=4.0))
        waiting = (await report(ledger, clock)).total.spread.request
        assert await ledger.flush()
        committed = (await report(ledger, clock)).total.spread.request
    assert waiting == committed == {bucket(18.0): 1}


async def test_stopping_commits_what_is_left(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock))
    assert told(tmp_path, "SELECT request_id, input_tokens, cost FROM attempts_20231114") == [("req_1", 100, 0.01)]


async def test_quiet_ledger_commits_by_itself_what_comes(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as ledger:
        assert await ledger.flush()
        while not ledger._idle:
            await asyncio.to_thread(ledger._thread.join, 0.01)
        ledger.record(entry(clock))

        async def committed() -> None:
            while not days(tmp_path):
                await asyncio.to_thread(ledger._thread.join, 0.01)

        await within(committed(), 10)


async def test_spool_that_was_lost_does_not_stop_the_next_one(clock: FakeClock, tmp_path: Path) -> None:
    for number in range(3):
        async with running(tmp_path, clock) as ledger:
            ledger.record(entry(clock, number))
        for path in (tmp_path / SPOOL).iterdir():
            path.unlink()
    async with running(tmp_path, clock) as ledger:
        assert await ledger.flush() and await attempts(ledger, clock) == 3


@pytest.mark.parametrize("torn", [1, 7, 8, 9, 60, 120])
async def test_torn_record_at_the_end_was_never_taken(clock: FakeClock, tmp_path: Path, torn: int) -> None:
    abandoned(tmp_path, clock, 1, 2)
    path = only_spool_file(tmp_path)
    whole = path.read_bytes()
    first = 8 + (len(whole) - 8) // 2
    path.write_bytes(whole[: first + torn])
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 3))
        assert await attempts(ledger, clock) == 2
        assert await ledger.flush() and await attempts(ledger, clock) == 2


async def test_damaged_record_and_what_follows_it_in_its_file_are_left_out(clock: FakeClock, tmp_path: Path) -> None:
    abandoned(tmp_path, clock, 1, 2)
    path = only_spool_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[-4] ^= 0xFF
    path.write_bytes(bytes(data))
    async with running(tmp_path, clock) as ledger:
        assert await ledger.flush() and await attempts(ledger, clock) == 1


async def test_spool_goes_on_in_further_files_and_leaves_none_behind(clock: FakeClock, tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path, clock)
    ledger._spool._most_file = 1000
    for number in range(50):
        ledger.record(entry(clock, number))
    assert len(files(tmp_path / SPOOL)) > 5
    assert await attempts(ledger, clock) == 50
    ledger.start()
    assert await ledger.flush()
    assert await attempts(ledger, clock) == 50 and len(files(tmp_path / SPOOL)) == 1
    await ledger.stop()


async def test_nothing_is_lost_when_newer_entries_push_older_ones_out_while_those_are_taken(
    clock: FakeClock, tmp_path: Path
) -> None:
    class Crowded(deque[Any]):
        """Full, and a call ends between the thread's look at the oldest and its taking it."""

        def popleft(self) -> Any:
            if coming:
                ledger.record(entry(clock, coming.pop()))
            return super().popleft()

    ledger, coming = abandoned(tmp_path, clock, 1), [7, 6, 5]
    ledger._catch_up()
    ledger._handed = Crowded(maxlen=3)
    for number in (2, 3, 4):
        ledger.record(entry(clock, number))
    ledger._catch_up()
    await ledger.stop()
    ids = [row[0] for row in told(tmp_path, "SELECT request_id FROM attempts_20231114 ORDER BY id")]
    assert not coming and ids == [f"req_{number}" for number in range(1, 8)]


async def test_full_disk_keeps_entries_in_memory_until_there_is_room(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = abandoned(tmp_path, clock, 1)
    with files_no_larger_than(only_spool_file(tmp_path).stat().st_size + 100):
        for number in range(2, 12):
            ledger.record(entry(clock, number))
        assert await attempts(ledger, clock) == 11
        assert ledger.standing == LedgerStanding(waiting=10) and not ledger.standing.well
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
    ledger.record(entry(clock, 12))
    assert await attempts(ledger, clock) == 12 and ledger.standing == LedgerStanding()
    ledger.start()
    assert await ledger.flush() and await attempts(ledger, clock) == 12
    await ledger.stop()
    order = told(tmp_path, "SELECT request_id FROM attempts_20231114 ORDER BY id")
    assert order == [(f"req_{number}",) for number in range(1, 13)]
    async with running(tmp_path, clock) as again:
        assert await attempts(again, clock) == 12


@pytest.mark.parametrize("room", [0, 4])
async def test_disk_that_is_full_when_a_further_file_is_due_is_got_over(
    clock: FakeClock, tmp_path: Path, room: int
) -> None:
    ledger = abandoned(tmp_path, clock, 1)
    ledger._spool._most_file = 1
    with files_no_larger_than(room):
        for number in range(2, 5):
            ledger.record(entry(clock, number))
    ledger.record(entry(clock, 5))
    assert ledger._spool.backlog == () and await attempts(ledger, clock) == 5
    ledger.start()
    assert await ledger.flush() and await attempts(ledger, clock) == 5
    await ledger.stop()
    assert ledger.standing.lost == 0


async def test_memory_for_what_cannot_be_written_is_bounded_and_losses_are_counted(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cauce.stores.sqlite.spool.MOST_BACKLOG", 1000)
    ledger = abandoned(tmp_path, clock)
    with files_no_larger_than(0):
        for number in range(20):
            ledger.record(entry(clock, number))
    kept = await attempts(ledger, clock)
    assert 0 < kept < 20 and ledger.standing.lost == 20 - kept
    await ledger.stop()


async def test_while_the_tables_cannot_be_written_everything_is_still_told(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 1))
        assert await ledger.flush()
        ledger._book.connection.execute("PRAGMA query_only = 1")
        ledger.record(entry(clock, 2))
        assert not await ledger.flush()
        assert await attempts(ledger, clock) == 2
        with pytest.raises(Overloaded):
            await ledger.give(OWNER, Opinion("str_1", "up"))
        ledger._book.connection.execute("PRAGMA query_only = 0")
        assert await ledger.flush() and await attempts(ledger, clock) == 2


async def test_commit_that_fails_half_way_leaves_nothing_behind(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 1))
        assert await ledger.flush()
        database = ledger._book.connection
        database.execute("CREATE TRIGGER broken BEFORE UPDATE ON position BEGIN SELECT RAISE(ABORT, 'no'); END")
        for number in range(2, 5):
            ledger.record(entry(clock, number, model=f"new{number}"))
            assert not await ledger.flush()
        database.execute("DROP TRIGGER broken")
        assert await ledger.flush()
        groups = (await report(ledger, clock, "model")).groups
        assert [group.sums.attempts for group in groups] == [1, 1, 1, 1]
        assert told(tmp_path, "SELECT count(*) FROM attempts_20231114") == [(4,)]


async def test_attempts_go_by_whole_days_and_their_sums_stay(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock, keep_attempts=3, keep_rollups=10) as ledger:
        for _ in range(6):
            ledger.record(entry(clock))
            clock.advance(DAY)
        assert await settled(ledger, clock)
        assert len(days(tmp_path)) == 2
        assert (await report(ledger, clock, days=8)).total.sums.attempts == 6


async def test_conversations_are_told_as_long_as_their_attempts_are_kept(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock, keep_attempts=3, keep_rollups=10) as ledger:
        for _ in range(6):
            ledger.record(entry(clock, conversation_id="c1"))
            clock.advance(DAY)
        assert await settled(ledger, clock)
        oldest = clock.now() // DAY * DAY - 2 * DAY
        told = await report(ledger, clock, "conversation", days=8)
        assert (told.since, told.total.sums.attempts) == (oldest, 2)
        assert (await report(ledger, clock, days=8, conversation="c1")).since == oldest
        with pytest.raises(InvalidRequest, match=r"keep_attempts\), now since 2023-11-18") as refused:
            await ledger.report(Query("a", oldest - 5 * DAY, oldest, ("conversation",)))
        assert refused.value.field == "from"


async def test_conversations_of_more_attempts_than_can_be_looked_at_are_refused(
    clock: FakeClock, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as ledger:
        for number in range(4):
            ledger.record(entry(clock, number, conversation_id=f"c{number}"))
            clock.advance(DAY / 2)
        assert await ledger.flush()
    now = clock.now()
    with contextlib.closing(Reading(tmp_path, clock.now, most_rows=3)) as reading:
        assert len(reading.report(Query("a", now - DAY, now + 1, ("conversation",))).groups) == 3
        with pytest.raises(InvalidRequest, match="3 attempts at most: ask for fewer days, or for one") as refused:
            reading.report(Query("a", now - 3 * DAY, now + 1, ("conversation",)))
        assert refused.value.field == "group_by"
        one = reading.report(Query("a", now - 3 * DAY, now + 1, where=(("conversation", "c0"),)))
        assert one.total.sums.attempts == 1


async def test_sums_go_with_age_too(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock, keep_attempts=3, keep_rollups=5) as ledger:
        for number in range(100):
            ledger.record(entry(clock, number, model=f"m{number}"))
            if number == 0:
                await ledger.give(OWNER, Opinion("str_0", "up"))
            clock.advance(DAY)
        assert await settled(ledger, clock)
        assert told(tmp_path, f"SELECT count(*) FROM cells WHERE span = {DAYS}") == [(4,)]
        assert told(tmp_path, f"SELECT count(*) FROM cells WHERE span = {HOURS}") == [(4,)]
        assert told(tmp_path, "SELECT count(*) FROM feedback") == [(0,)]
        assert told(tmp_path, "SELECT count(*) FROM kinds")[0][0] < 40


async def test_million_attempts_a_day_fit_into_the_file_for_as_long_as_they_are_kept(
    clock: FakeClock, tmp_path: Path
) -> None:
    count, settings = 5000, LedgerSettings()
    ids = [f"{number * 2654435761 % 2**32:024x}" for number in range(count)]
    named = {"scope": msgspec.structs.replace(OWNER, user="ana@example.com"), "conversation_id": "c" * 36}
    async with running(tmp_path, clock) as ledger:
        for number in range(count):
            some = {"request_id": f"req_{ids[number]}", "stream_id": f"str_{ids[number]}"}
            ledger.record(entry(clock, number, **some, **named))
        assert await ledger.flush()
        each = used(ledger._book.connection) / count
    sums = 1024**3
    assert each * 1_000_000 * settings.keep_attempts + sums < settings.max_bytes


async def test_file_that_is_too_large_loses_its_oldest_attempts_first(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, clock) as ledger:
        for day in range(4):
            for number in range(400):
                ledger.record(entry(clock, day * 1000 + number))
            clock.advance(DAY)
        assert await ledger.flush()
        assert len(days(tmp_path)) == 4
        ledger._settings = LedgerSettings(max_bytes=250_000)
        clock.advance(3600)
        assert await settled(ledger, clock)
        assert 0 < len(days(tmp_path)) < 4 and days(tmp_path)[-1] == "attempts_20231117"
        assert (await report(ledger, clock, days=8)).total.sums.attempts == 1600
        ledger._settings = LedgerSettings(max_bytes=1)
        clock.advance(3600)
        assert await settled(ledger, clock)
        assert days(tmp_path) == [] and (await report(ledger, clock, days=8)).total.sums.attempts == 1600
    deleted = [record.getMessage().partition(" max_bytes: ")[2] for record in caplog.records]
    assert deleted[0] == "the attempts of 20231114 are deleted, their sums stay"
    assert deleted[4:] == ["the oldest sums of single hours are deleted"] * 4


async def test_data_of_a_newer_version_is_refused_in_a_sentence(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock):
        pass
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(SchemaError, match="newer version of Cauce"):
        SqliteLedger(tmp_path, clock)


async def test_file_that_is_no_database_is_refused_in_a_sentence(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else entirely, and long enough to be looked at" * 100)
    with pytest.raises(SchemaError, match="put it aside"):
        SqliteLedger(tmp_path, clock)


async def test_tables_of_somebody_else_are_refused(clock: FakeClock, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(SchemaError, match="not Cauce's"):
        SqliteLedger(tmp_path, clock)


def test_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite"
    first = ("CREATE TABLE one (x)", "INSERT INTO one VALUES (1)")
    open_database(path, [first]).close()
    with pytest.raises(SchemaError, match="from version 1 of its tables to 2"):
        open_database(path, [first, ("ALTER TABLE one ADD COLUMN y", "INSERT INTO nowhere VALUES (1)")])
    database = open_database(path, [first])
    assert database.execute("SELECT * FROM one").fetchall() == [(1,)]
    database.close()


def test_data_of_the_first_schema_goes_through_every_later_one(tmp_path: Path) -> None:
    path = tmp_path / FILE
    database = open_database(path, [FIRST])
    database.execute(
        "INSERT INTO kinds VALUES (1, 'a', 'p', 'm', '', 'chat', 'k', 'primary', 'completed', 'priced', 0, '', '')"
    )
    database.execute("INSERT INTO cells VALUES (2, 19000, 1, 1, 1, 10, 5, 0, 0, 0, 0.5, 0, 0, 0, 0, NULL)")
    database.close()
    database = open_database(path, MIGRATIONS)
    assert database.execute("SELECT cost FROM cells JOIN kinds ON kinds.id = kind WHERE tenant = 'a'").fetchall() == [
        (0.5,)
    ]
    database.close()


async def test_budgets_do_not_wait_for_a_long_report(clock: FakeClock, tmp_path: Path) -> None:
    over = threading.Event()
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 1))
        ledger._readers.submit(over.wait)
        report = asyncio.create_task(attempts(ledger, clock))
        try:
            async with asyncio.timeout(10):
                spent = await ledger.spent(Holder("key", OWNER.tenant, OWNER.key), "requests", 0)
        finally:
            over.set()
        assert spent == 1 and await report == 1


async def test_another_process_reads_beside_the_one_that_writes(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as ledger:
        ledger.record(entry(clock, 1))
        assert await ledger.flush()
        ledger.record(entry(clock, 2))
        reading = Reading(tmp_path, clock.now)
        found = reading.report(Query("a", clock.now() - DAY, clock.now() + 1))
        reading.close()
        assert found.total.sums.attempts == 2


async def test_several_processes_tell_the_same_before_any_of_it_is_committed(clock: FakeClock, tmp_path: Path) -> None:
    ledgers = [SqliteLedger(tmp_path, clock) for _ in range(3)]
    for number, ledger in enumerate(ledgers):
        ledger.record(entry(clock, number))
    assert [await attempts(ledger, clock) for ledger in ledgers] == [3, 3, 3]
    assert [await ledger.spent(Holder("tenant", "a"), "requests", 0) for ledger in ledgers] == [3, 3, 3]
    for ledger in ledgers:
        await ledger.stop()
    assert len({ledger.node for ledger in ledgers}) == 1


async def test_opinion_is_joined_at_any_process_to_what_another_has_not_committed_yet(
    clock: FakeClock, tmp_path: Path
) -> None:
    busy = SqliteLedger(tmp_path, clock)
    busy.record(entry(clock, 1))
    async with running(tmp_path, clock) as asked:
        assert await asked.give(OWNER, Opinion("str_1", "up"))
        assert not await asked.give(OWNER, Opinion("str_2", "up"))
        busy.record(entry(clock, 2))
        busy.start()
        assert await busy.flush() and await attempts(asked, clock) == await attempts(busy, clock) == 2
        assert asked.approval("openai/gpt") == Votes(up=1)
    await busy.stop()
    assert told(tmp_path, "SELECT request_id FROM attempts_20231114") == [("req_1",), ("req_2",)]


async def test_what_a_process_that_died_left_is_taken_in_by_another_that_is_there(
    clock: FakeClock, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as ledger:
        abandoned(tmp_path, clock, 1, 2, 3)
        assert await ledger.flush()
        assert told(tmp_path, "SELECT count(*) FROM attempts_20231114") == [(3,)]
        assert ledger.workers == 1 and await attempts(ledger, clock) == 3


async def test_spool_of_a_process_that_lives_is_left_to_it(clock: FakeClock, tmp_path: Path) -> None:
    other = SqliteLedger(tmp_path, clock)
    other.record(entry(clock, 1))
    async with running(tmp_path, clock) as ledger:
        assert await ledger.flush()
        assert days(tmp_path) == [] and ledger.workers == 2 and await attempts(ledger, clock) == 1
    await other.stop()


async def test_spools_are_used_again_by_those_who_come(clock: FakeClock, tmp_path: Path) -> None:
    for _ in range(5):
        async with running(tmp_path, clock) as one, running(tmp_path, clock) as two:
            one.record(entry(clock))
            two.record(entry(clock))
    assert sorted([path.name for path in tmp_path.iterdir() if path.is_dir()]) == ["spool", "spool-2"]
    assert told(tmp_path, "SELECT count(*) FROM attempts_20231114") == [(10,)]


async def test_process_whose_entries_were_taken_in_by_another_goes_on_from_there(
    clock: FakeClock, tmp_path: Path
) -> None:
    owner = SqliteLedger(tmp_path, clock)
    owner._spool._most_file = 700
    async with running(tmp_path, clock) as other:
        for number in range(12):
            owner.record(entry(clock, number))
            if number % 3 == 2:
                # Which has all of them taken in.
                await other.give(OWNER, Opinion("str_unknown", "up"))
                owner.record(entry(clock, 100 + number))
                owner._catch_up()
        await owner.stop()
    ids = [id for (id,) in told(tmp_path, "SELECT request_id FROM attempts_20231114")]
    assert len(ids) == len(set(ids)) == 16 and len(files(tmp_path / SPOOL)) <= 2
    assert told(tmp_path, f"SELECT sum(attempts) FROM cells WHERE span = {DAYS}") == [(16,)]


Step = tuple[int, str]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["record", "record", "commit", "give", "die", "stop"])),
        max_size=60,
    )
)
def test_whatever_several_processes_do_and_whoever_dies_each_entry_is_there_once(steps: list[Step]) -> None:
    async def play(folder: Path) -> None:
        clock = FakeClock()
        ledgers = [SqliteLedger(folder, clock) for _ in range(3)]
        count = 0
        for place, step in steps:
            ledger = ledgers[place]
            if step == "record":
                count += 1
                ledger.record(entry(clock, count))
            elif step == "commit":
                ledger._catch_up()
            elif step == "give":
                for spool in ledger._others():
                    ledger._take_in(spool)
            else:
                if step == "die":
                    ledger._claim.let_go()
                    ledger._book.close()
                else:
                    await ledger.stop()
                ledgers[place] = SqliteLedger(folder, clock)
            assert await attempts(ledgers[count % 3], clock) == count
        for ledger in ledgers:
            await ledger.stop()
        async with running(folder, clock) as last:
            assert await last.flush() and await attempts(last, clock) == count
        ids = [id for day in days(folder) for (id,) in told(folder, f"SELECT request_id FROM {day}")]
        assert sorted(ids) == sorted([f"req_{number + 1}" for number in range(count)])

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(play(Path(name)))


async def test_sums_and_answers_are_found_by_index(clock: FakeClock, tmp_path: Path) -> None:
    async with running(tmp_path, clock, keep_attempts=3) as ledger:
        asked = listened(ledger)
        for number in range(6):
            ledger.record(failed(clock, number, scope=msgspec.structs.replace(OWNER, user=f"user{number}")))
            assert await ledger.flush()
            clock.advance(5)
            # What began in rows is looked up there: for a report out of the spool, and when it is committed.
            ledger.record(entry(clock, number, n=2, conversation_id=f"conversation{number}"))
            await attempts(ledger, clock)
            assert await ledger.flush()
            clock.advance(DAY / 4)
        for tenant in ("a", ALL_TENANTS):
            for dimension in get_args(Dimension):
                where = () if dimension == "day" else ((dimension, "web"),)
                for since in (clock.now() - 3600, clock.now() - 70 * DAY):
                    await ledger.report(Query(tenant, since, clock.now() + 1, (dimension,)))
                    await ledger.report(Query(tenant, since, clock.now() + 1, ("day",), where))
        await ledger.report(days_query("a", clock.now(), (("key", "web"),)))
        for kind, unit in product(get_args(Holder.__annotations__["kind"]), get_args(SpendUnit)):
            await ledger.spent(Holder(kind, "a", "web"), unit, clock.now() - 40 * DAY)
        for id in ("str_5", "req_5", "str_5", "nothing of ours"):
            await ledger.give(OWNER, Opinion(id, "up", 0.5))
        plans = explained(tmp_path, asked)
        # Deleting what is old drops the tables that were asked here.
        asked.clear()
        clock.advance(500 * DAY)
        assert await settled(ledger, clock)
        plans |= explained(tmp_path, asked)
    text = " ".join(plans)
    for table in ("cells", "kinds", "feedback", "attempts_20231114", "ids_20231115"):
        assert f" {table} " in text
    # A step that no value bounds walks through all there is. Kinds are as many as there are names, tables as there are days, and
    # there is one position: none of them grows with calls. The largest number is the last of its table.
    small = ("SCAN kinds", "SCAN position", "SCAN sqlite_schema")
    walks = [(statement, step) for statement, steps in plans.items() for step in steps if walk(step)]
    walks = [(what, step) for what, step in walks if step not in small and "max(id)" not in what]
    # To tell all conversations apart is the one exception: it counts the attempts before it looks at them.
    assert [(what, step) for what, step in walks if "a.conversation_id <> ''" not in what] == []
    assert {step for _, step in walks} == {"SCAN a"}


def walk(step: str) -> bool:
    """Whether a step of a plan goes through a whole table, or the whole of an index."""
    return step.startswith(("SCAN", "SEARCH")) and "?" not in step and not step.endswith("CONSTANT ROWS")


def listened(ledger: SqliteLedger) -> set[str]:
    """What the ledger asks its tables from now on."""
    asked: set[str] = set()
    for database in (ledger._book.connection, ledger._reading._connection(), ledger._spending._connection()):
        database.set_trace_callback(asked.add)
    return asked


def explained(folder: Path, statements: set[str]) -> dict[str, list[str]]:
    """How the tables answer each of `statements`, step by step."""
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    return {
        statement: [step for *_, step in told(folder, f"EXPLAIN QUERY PLAN {statement}")]
        for statement in sorted(statements)
        if statement.startswith(verbs)
    }


def told(folder: Path, question: str) -> list[tuple[Any, ...]]:
    """What the tables hold, seen from beside."""
    database = sqlite3.connect(folder / FILE)
    try:
        return database.execute(question).fetchall()
    finally:
        database.close()


def days(folder: Path) -> list[str]:
    names = told(folder, "SELECT name FROM sqlite_schema WHERE name GLOB 'attempts_*' AND type = 'table' ORDER BY 1")
    return [name for (name,) in names]


async def settled(ledger: SqliteLedger, clock: FakeClock) -> bool:
    """Committed, and everything that is too old or too much deleted: a portion goes with each round."""
    assert await ledger.flush()
    while ledger._pruned_at != int(clock.now()) // 3600:
        assert await ledger.flush()
    return True
