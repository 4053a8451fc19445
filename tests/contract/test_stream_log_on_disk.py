"""The log on disk when things go wrong: processes killed, processes that share a file, answers lost, power cuts, full disks."""

import asyncio
import contextlib
import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Finish, Status, Text
from cauce.domain.errors import Gone
from cauce.domain.stream import Commit, Hold, StreamKey, StreamLimits
from cauce.ports.stream_log import EARLY, MOST_EARLY, Fenced, LogUnavailable
from cauce.stores.followed import Followed, Stored
from cauce.stores.followed_log import LEASE
from cauce.stores.live_streams import RING
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_reading import StreamReading
from cauce.stores.sqlite.stream_tables import FILE
from cauce.stores.sqlite.stream_writer import StreamWriter
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import CANCELLED, END, KEY, created, head_of, new_stream, text, whole
from tests.contract.stream_writers import key_of, texts

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def opened(path: Path, clock: Any = None, **options: Any) -> AsyncIterator[SqliteStreamLog]:
    log = SqliteStreamLog(path, clock or SystemClock(), "parent", StreamLogOptions(**options))
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


@contextlib.asynccontextmanager
async def writing(path: Path, node: str, streams: int, mode: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that writes, killed at the end."""
    command = [sys.executable, "-m", "tests.contract.stream_writers", str(path), node, str(streams), mode]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def acknowledged(line: bytes) -> dict[int, int]:
    """The tail of a stream, if `line` is whole and says so."""
    words = line.split()
    return {int(words[0]): int(words[2])} if line.endswith(b"\n") and len(words) == 3 else {}


async def test_every_acknowledged_record_is_there_after_kills_and_seq_is_dense(tmp_path: Path) -> None:
    path, streams = tmp_path / FILE, 20
    tails: dict[int, int] = {}
    for kill in range(4):
        async with writing(path, f"start {kill}", streams, "alone") as process:
            assert process.stdout is not None
            for _ in range(300 + 97 * kill):
                tails.update(acknowledged(await process.stdout.readline()))
            process.kill()
            # What it had said before it was killed counts too.
            async for line in process.stdout:
                tails.update(acknowledged(line))
    assert len(tails) == streams
    async with opened(path) as log:
        assert len(await log.orphans(100)) == streams
        for number, tail in tails.items():
            records = await whole(log, key_of(number))
            assert [record.seq for record in records] == list(range(1, len(records) + 1))
            assert len(records) >= tail
            assert tuple([record.delta for record in records[1:]]) == texts(number, 2, len(records) - 1)
            epochs = [record.epoch for record in records]
            assert epochs == sorted(epochs) and epochs[-1] <= 4


async def test_processes_on_one_file_fence_each_other(tmp_path: Path) -> None:
    path, streams = tmp_path / FILE, 5
    # This process' time runs ahead by more than a lease: it takes over streams whose holder is hard at work.
    clock = FakeClock(SystemClock().now() + 1000)
    async with writing(path, "child", streams, "shared") as process:
        assert process.stdout is not None
        tails: dict[int, int] = {}
        fenced: set[int] = set()
        holds: dict[int, Hold] = {}
        while await process.stdout.readline() != b"ready\n":
            pass
        async with opened(path, clock, lease=LEASE) as log:
            for number in range(streams):
                hold = None
                while hold is None:
                    # It moves all the time, which leaves its epoch as it is.
                    hold = await log.claim(await head_of(log, key_of(number)), "parent")
                holds[number] = await log.append(hold, Commit(texts(number, hold.tail + 1, 2)))
            async for line in process.stdout:
                words = line.split()
                if words[0] == b"fenced":
                    fenced.add(int(words[1]))
                tails.update(acknowledged(line))
            assert fenced == set(range(streams))
            for number, hold in holds.items():
                records = await whole(log, key_of(number))
                assert tuple([record.delta for record in records[1:]]) == texts(number, 2, hold.tail - 1)
                assert [record.epoch for record in records] == [1] * (hold.tail - 2) + [2, 2]
                assert tails.get(number, 1) <= hold.tail - 2


async def test_reader_in_another_process_hears_of_every_commit(tmp_path: Path) -> None:
    path = tmp_path / FILE
    async with writing(path, "child", 1, "shared") as process:
        assert process.stdout is not None
        while await process.stdout.readline() != b"ready\n":
            pass
        async with opened(path, lease=LEASE) as log:
            after = 0
            while after < 200:
                records = await log.read(key_of(0), after, 50)
                assert [record.seq for record in records] == list(range(after + 1, after + len(records) + 1))
                after += len(records)
                if not records:
                    assert await log.wait(key_of(0), after, 30)


class Late(StreamReading):
    """Tells of a stream what it was `before`."""

    before: Stored | None = None

    async def stored(self, key: StreamKey) -> Stored | None:
        return self.before or await super().stored(key)


async def test_reader_that_looked_before_the_last_commit_and_waits_after_it_was_heard_of_hears_of_it_too(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / FILE, lease=LEASE) as log:
        hold = await created(log)
        reading = Late(tmp_path / FILE, SystemClock())
        followed = Followed(reading, SystemClock(), shared=True)
        before = await reading.stored(KEY)
        first = asyncio.create_task(followed.wait(KEY, 1, 30))
        await log.append(hold, text("a"))
        assert await first
        reading.before = before
        assert await followed.wait(KEY, 1, 5)
        await followed.stop()
        reading.close()


class Looking(StreamReading):
    """Finds what there was when it was asked, and tells it when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SystemClock())
        self.looked, self.let = asyncio.Event(), asyncio.Event()

    async def stored(self, key: StreamKey) -> Stored | None:
        found = await super().stored(key)
        self.looked.set()
        await self.let.wait()
        return found


async def test_stream_that_is_made_while_somebody_looks_for_it_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path / FILE) as log:
        reading = Looking(tmp_path / FILE)
        log._followed._shelf = reading  # pyright: ignore[reportPrivateUsage]
        looking = asyncio.create_task(log.head(KEY))
        await reading.looked.wait()
        hold = await created(log)
        following = asyncio.create_task(log.wait(KEY, 1, 30))
        await asyncio.sleep(0)
        reading.let.set()
        assert await looking is None
        await log.append(hold, text("a"))
        assert await following
        reading.close()


class Forgetful(StreamWriter):
    """Commits, and then does not know of it, as often as `lost` says."""

    lost = 0

    def _transact(self, batch: Any) -> None:
        super()._transact(batch)
        if self.lost:
            self.lost -= 1
            raise sqlite3.OperationalError("disk I/O error")


async def test_what_was_committed_is_not_written_again_when_its_answer_is_lost(tmp_path: Path) -> None:
    log = SqliteStreamLog(tmp_path / FILE, SystemClock(), "a")
    await log.writer.stop()
    writer = log.writer = Forgetful(tmp_path / FILE, SystemClock())
    await log.start()
    writer.lost = 2
    hold = await created(log)
    writer.lost = 1
    hold = await log.append(hold, text("a", "b"))
    writer.lost = 3
    hold = await log.append(hold, text("c"))
    await log.release([hold])
    writer.lost = 1
    claimed = await log.claim(await head_of(log), "b")
    assert claimed == Hold(KEY, 2, 4)
    writer.lost = 1
    with pytest.raises(Fenced):
        await log.append(hold, text("zombie"))
    writer.lost = 2
    await log.append(claimed, END)
    records = await whole(log)
    assert [record.delta for record in records[1:-1]] == [Text("a"), Text("b"), Text("c")]
    assert isinstance(records[-1].delta, Finish) and len(records) == 5
    await log.stop()


async def test_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path / FILE) as log:
        hold = await log.append(await created(log), text("a"))
        (pages,) = log.writer.database.execute("PRAGMA page_count").fetchone()
        log.writer.database.execute(f"PRAGMA max_page_count = {pages + 2}")
        appending = asyncio.create_task(log.append(hold, text("x" * 100_000)))
        while not caplog.records:
            await asyncio.sleep(0)
        assert len(await whole(log)) == 2 and not appending.done() and not log.up
        # Somebody makes room while it waits.
        while not appending.done():
            with contextlib.suppress(sqlite3.Error):
                log.writer.database.execute("PRAGMA max_page_count = 1000000")
            await asyncio.sleep(0)
        assert (await appending).tail == 3 and len(await whole(log)) == 3 and log.up


async def test_disk_that_stays_full_gives_up_and_the_stream_can_be_ended_later(tmp_path: Path) -> None:
    async with opened(tmp_path / FILE, patience=0.1) as log:
        hold = await log.append(await created(log), text("a"))
        (pages,) = log.writer.database.execute("PRAGMA page_count").fetchone()
        log.writer.database.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LogUnavailable):
            await log.append(hold, text("x" * 100_000))
        with pytest.raises(LogUnavailable):
            await log.create(
                new_stream(StreamKey("tenant/key", "y" * 100_000)),
            )
        log.writer.database.execute("PRAGMA max_page_count = 1000000")
        await log.release([hold])
        (orphan,) = await log.orphans(10)
        ours = await log.claim(orphan, "parent")
        assert ours == Hold(KEY, 2, 2)
        await log.append(ours, CANCELLED)
        assert [record.epoch for record in await whole(log)] == [1, 1, 2]


async def test_after_a_power_cut_at_any_byte_every_acknowledged_record_is_there(tmp_path: Path) -> None:
    # The disk has what was synced, which is the write-ahead log up to the last acknowledgement, and any part of what came after.
    path = tmp_path / FILE
    wal = path.with_name(FILE + "-wal")
    async with opened(path) as log:
        assert log.writer.database.execute("PRAGMA synchronous").fetchone() == (2,)
        hold = await created(log)
        synced: list[tuple[int, int]] = []
        for number in range(12):
            hold = await log.append(hold, Commit(texts(0, hold.tail + 1, number % 3 + 1), "running"))
            synced.append((hold.tail, wal.stat().st_size))
        shutil.copy(path, tmp_path / "base.db")
        everything = wal.read_bytes()
    assert synced[0][1] < synced[-1][1] == len(everything)
    cuts = sorted({0, len(everything), *[size + more for _, size in synced for more in (0, 1, 24, 2000, 4120, 6001)]})
    for cut in [cut for cut in cuts if cut <= len(everything) and cut >= synced[0][1]]:
        copy = tmp_path / f"cut-{cut}.db"
        shutil.copy(tmp_path / "base.db", copy)
        # What was not synced may also be there as anything.
        copy.with_name(copy.name + "-wal").write_bytes(everything[:cut] + b"\x00\xff" * 3000)
        async with opened(copy) as log:
            records = await whole(log)
            assert len(records) >= max(tail for tail, size in synced if size <= cut)
            assert tuple([record.delta for record in records[1:]]) == texts(0, 2, len(records) - 1)
            assert (await head_of(log)).tail == len(records)


async def test_reader_that_fell_out_of_the_ring_reads_on_from_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path / FILE) as log:
        hold = await created(log)
        for number in range(20):
            hold = await log.append(hold, text(f"{number}" + "x" * (RING // 8)))
        assert 1 <= len(await log.read(KEY, 0, 1000)) < 20, "it reads a piece at a time"
        seen = [record.delta for record in (await whole(log))[:3]]
        assert isinstance(seen[0], Status) and seen[1:] == [Text(f"{n}" + "x" * (RING // 8)) for n in range(2)]
        assert [record.seq for record in await whole(log)] == list(range(1, 22))


async def test_file_is_bounded_and_what_ended_first_goes_first(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / FILE, clock, max_bytes=1_000_000, limits=StreamLimits(bytes=10**7)) as log:
        for number in range(10):
            hold = await created(log, key_of(number))
            hold = await log.append(hold, text("x" * 200_000))
            await log.append(hold, END)
            clock.advance(1)
        while await log.sweep(100):
            pass
        clock.advance(61)
        while await log.sweep(100):
            pass
        gone = 0
        for number in range(10):
            with contextlib.suppress(Gone):
                assert await log.head(key_of(number)) is not None
                break
            gone += 1
        assert 5 <= gone <= 8
        (pages,) = log.writer.database.execute("PRAGMA page_count").fetchone()
        assert pages * 4096 < 1_300_000


async def test_what_a_process_whose_clock_is_ahead_has_let_go_of_is_on_its_way_out(tmp_path: Path) -> None:
    clock = FakeClock()
    ahead = FakeClock(clock.now() + 5)
    async with (
        opened(tmp_path / FILE, clock, max_bytes=1_000_000, lease=LEASE) as log,
        opened(tmp_path / FILE, ahead, max_bytes=1_000_000, lease=LEASE) as other,
    ):
        for number in range(12):
            await log.append(await log.append(await created(log, key_of(number)), text("x" * 100_000)), END)
        for one in (other, log):
            while await one.sweep(300):
                pass
        left = [await is_there(other, number) for number in range(12)]
        assert sum(left) in (8, 9)


async def test_as_many_streams_go_as_take_what_is_too_much_and_what_was_asked_counts(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / FILE, clock, max_bytes=1_000_000) as log:
        for number in range(12):
            new = msgspec.structs.replace(new_stream(key_of(number)), policy="x" * 100_000)
            hold = (await log.create(new)).hold
            assert hold is not None
            await log.append(await log.append(hold, text("a")), END)
            clock.advance(1)
        while await log.sweep(300):
            pass
        assert [await is_there(log, number) for number in range(12)] == [False] * 3 + [True] * 9


async def test_what_expires_anyway_makes_room_first(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / FILE, clock, max_bytes=1_000_000) as log:
        for number in range(12):
            retention = 7200.0 if number % 2 else 600.0
            new = msgspec.structs.replace(new_stream(key_of(number), retention), policy="x" * 100_000)
            hold = (await log.create(new)).hold
            assert hold is not None
            await log.append(await log.append(hold, text("a")), END)
        clock.advance(601)
        while await log.sweep(300):
            pass
        assert [await is_there(log, number) for number in range(12)] == [False, True] * 6


async def test_tombstones_take_a_part_of_the_file_and_not_the_place_of_what_can_be_read(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / FILE, clock, max_bytes=2_000_000) as log:
        database = log.writer.database
        database.execute(
            """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                INSERT INTO streams (principal, id, wire, request, request_hash, policy, state, node, lease_until, tail, bytes,
                    created, retention, terminal_at, due)
                SELECT 'default/0123456789ab', printf('%032x', i), 'native', x'', x'', '', 'expired', 'node_0123456789abcdef', 1.5, 30,
                    0, 1700000000.5, 600.0, 1700000000.5, 1700600000.25 + i FROM n"""
        )
        for number in range(20):
            await log.append(await log.append(await created(log, key_of(number)), text("a")), END)
        clock.advance(1)
        while await log.sweep(300):
            pass
        assert all([await is_there(log, number) for number in range(20)])
        left = database.execute("SELECT id FROM streams WHERE state = 'expired' ORDER BY due").fetchall()
        assert 1_000 < len(left) < 10_000 and int(left[-1][0], 16) == 10_000


async def is_there(log: SqliteStreamLog, number: int) -> bool:
    try:
        return await log.head(key_of(number)) is not None
    except Gone:
        return False


async def test_expired_streams_leave_a_tombstone_for_a_week_and_then_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / FILE, clock, retention=600.0) as log:
        hold = await created(log)
        for _ in range(30):
            hold = await log.append(hold, text("a"))
        await log.append(hold, END)
        for seconds in (601, 61):
            clock.advance(seconds)
            while await log.sweep(10):
                pass
        with pytest.raises(Gone):
            await log.head(KEY)
        count = (
            "SELECT (SELECT count(*) FROM segments), (SELECT count(*) FROM attempts), (SELECT count(*) FROM streams)"
        )
        assert log.writer.database.execute(count).fetchone() == (0, 0, 1)
        clock.advance(7 * 86_400 + 1)
        while await log.sweep(10):
            pass
        assert await log.head(KEY) is None
        assert (await created(log)).epoch == 1


class Slow(StreamWriter):
    """Commits, and keeps the answer to itself until it is let `go`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.go = threading.Event()
        self.go.set()

    def _acknowledge(self, batch: Any) -> None:
        self.go.wait()
        super()._acknowledge(batch)


async def test_nobody_sees_a_commit_before_it_is_acknowledged(tmp_path: Path) -> None:
    log = SqliteStreamLog(tmp_path / FILE, SystemClock(), "a")
    await log.writer.stop()
    writer = log.writer = Slow(tmp_path / FILE, SystemClock())
    await log.start()
    hold = await log.append(await created(log), text("x" * (2 * RING)))
    writer.go.clear()
    ending = asyncio.create_task(log.append(hold, END))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
        while other.execute("SELECT tail FROM streams").fetchone() != (3,):
            await asyncio.sleep(0)
    head = await head_of(log)
    assert (head.state, head.tail, head.terminal_at) == ("running", 2, None)
    assert len(await whole(log)) == 2
    writer.go.set()
    await ending
    assert (await head_of(log)).state == "completed" and len(await whole(log)) == 3
    await log.stop()


async def test_error_that_nobody_expected_fails_what_was_asked_and_not_the_thread(tmp_path: Path) -> None:
    class Broken:
        size = 0

        def apply(self, database: sqlite3.Connection, again: bool) -> None:
            database.execute("DELETE FROM segments")
            raise KeyError("a mistake")

        def committed(self, result: None, /) -> None:
            raise AssertionError

    async with opened(tmp_path / FILE) as log:
        hold = await created(log)
        with pytest.raises(LogUnavailable):
            await log.writer.submit(Broken())
        hold = await log.append(hold, text("a"))
        assert len(await whole(log)) == 2


async def test_record_that_cannot_be_read_does_not_keep_the_log_of_writes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / FILE
    async with opened(path) as log, opened(path) as other:
        await log.append(await log.append(await created(log), text("a")), text("b"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("UPDATE segments SET data = ? WHERE first_seq > 1", (b'["no',))
            with pytest.raises(Gone, match="cannot be read") as caught:
                await other.read(KEY, 1, 10)
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, caught.value


async def test_cancels_that_no_stream_came_for_leave_nothing_in_the_file(tmp_path: Path) -> None:
    def rows() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as database:
            return database.execute("SELECT count(*) FROM streams").fetchone()[0]

    clock = FakeClock()
    async with opened(tmp_path / FILE, clock) as log:
        for number in range(MOST_EARLY + 10):
            await log.request_cancel(key_of(number))
        assert rows() == MOST_EARLY
        clock.advance(EARLY + 1)
        while await log.sweep(100):
            pass
        assert rows() == 0
