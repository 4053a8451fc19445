"""The thread that writes the streams' file: what waits is committed together, and its write-ahead log does not grow for ever."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cauce.domain.delta import Text
from cauce.domain.stream import Commit, Hold, StreamKey
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.system.clock import SystemClock
from cauce.testing.stream_samples import created, text, whole

pytestmark = pytest.mark.anyio

STREAMS = 200
MEGABYTE = 1024 * 1024
WAL_BOUND = 160 * MEGABYTE
"""Most of it is for slow machines: a checkpoint begins at 16 MB and is made between two writes beyond 32 MB, and meanwhile writing
goes on, by 12 MB at a time. Without that the whole 288 MB are in it."""


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteStreamLog]:
    log = SqliteStreamLog(folder / FILE, SystemClock(), "here", StreamLogOptions(synchronous="normal"))
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def begun(log: SqliteStreamLog, streams: int) -> list[Hold]:
    keys = [StreamKey("p", str(number)) for number in range(streams)]
    return list(await asyncio.gather(*[created(log, key) for key in keys]))


async def test_appends_that_wait_are_committed_in_one_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        holds = await begun(log, STREAMS)
        before = log.writer.commits
        # While the file is another's, the first append has its turn, and all others wait for theirs.
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            appends = [asyncio.create_task(log.append(hold, text("word "))) for hold in holds]
            await asyncio.sleep(0)
            assert log.writer.commits == before and not any([append.done() for append in appends])
            other.execute("ROLLBACK")
        async with asyncio.timeout(20):
            await asyncio.gather(*appends)
        assert 1 <= log.writer.commits - before <= 3
        for hold in holds:
            assert [record.delta for record in await whole(log, hold.key)][-1] == Text("word ")


async def test_many_streams_that_write_at_once_need_far_fewer_transactions_than_appends(tmp_path: Path) -> None:
    async def written(hold: Hold) -> None:
        for _ in range(20):
            hold = await log.append(hold, text("word "))

    async with opened(tmp_path) as log:
        holds = await begun(log, STREAMS)
        before = log.writer.commits
        async with asyncio.timeout(60):
            await asyncio.gather(*[written(hold) for hold in holds])
        assert log.writer.commits - before < 20 * STREAMS / 10


async def test_write_ahead_log_is_bounded_while_writing_goes_on(tmp_path: Path) -> None:
    wal = tmp_path / f"{FILE}-wal"
    largest = total = 0

    async def written(hold: Hold) -> None:
        nonlocal largest, total
        for _ in range(24):
            hold = await log.append(hold, Commit((Text("x" * (MEGABYTE // 4)),)))
            total += MEGABYTE // 4
            largest = max(largest, wal.stat().st_size)

    async with opened(tmp_path) as log:
        holds = await begun(log, 48)
        async with asyncio.timeout(120):
            await asyncio.gather(*[written(hold) for hold in holds])
    assert total == 288 * MEGABYTE
    assert largest < WAL_BOUND, f"{largest / MEGABYTE:.0f} MB"
