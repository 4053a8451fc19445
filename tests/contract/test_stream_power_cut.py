"""What a power cut takes from a file that is not waited for (`synchronous = "normal"`), and what it leaves: takeovers and cancels."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cauce.domain.stream import Hold, StreamKey
from cauce.stores.sqlite import stream_writer
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.system.clock import SystemClock
from cauce.testing.stream_samples import created, head_of, text, whole
from tests.chaos import power

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WRITTEN, TAKEN_OVER, CANCELLED, LATE = [StreamKey("p", id) for id in ("written", "taken-over", "cancelled", "late")]


def log_of(folder: Path) -> SqliteStreamLog:
    return SqliteStreamLog(folder / FILE, SystemClock(), "here", StreamLogOptions(synchronous="normal"))


async def written_until_the_power_goes(folder: Path, then: str) -> None:
    """The process ends with the power."""
    power.watch()
    # By themselves, writes would reach the disk once a second.
    stream_writer._CHECKPOINT_EVERY = 3600.0
    log = log_of(folder)
    await log.start()
    holds = [await created(log, key) for key in (WRITTEN, TAKEN_OVER, CANCELLED)]
    for hold in holds:
        await log.append(hold, text("shown "))
    match then:
        case "take over":
            await log.release([Hold(TAKEN_OVER, 1, 2)])
            [orphan] = await log.orphans(10)
            assert await log.claim(orphan, "here") is not None
        case "cancel":
            await log.request_cancel(CANCELLED, "enough")
        case _:
            assert then == "nothing"
    await created(log, LATE)
    os._exit(0)


async def cut(folder: Path, then: str) -> SqliteStreamLog:
    """The log after that."""
    here = f"import asyncio, sys, pathlib\nfrom {__name__} import written_until_the_power_goes as write\n"
    script = f"{here}asyncio.run(write(pathlib.Path(sys.argv[1]), sys.argv[2]))"
    command = [sys.executable, "-c", script, str(folder), then]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert power.cut(folder / FILE) > 0
    log = log_of(folder)
    await log.start()
    return log


async def test_what_no_disk_was_waited_for_goes_with_the_power(tmp_path: Path) -> None:
    log = await cut(tmp_path, "nothing")
    try:
        assert [await log.head(key) for key in (WRITTEN, TAKEN_OVER, CANCELLED, LATE)] == [None] * 4
    finally:
        await log.stop()


async def test_takeover_outlives_the_power_and_all_that_came_before_it_does(tmp_path: Path) -> None:
    """The next one has another epoch, or readers could not tell what either of them wrote apart."""
    log = await cut(tmp_path, "take over")
    try:
        assert [(await head_of(log, key)).epoch for key in (WRITTEN, TAKEN_OVER)] == [1, 2]
        assert [len(await whole(log, key)) for key in (WRITTEN, TAKEN_OVER, CANCELLED)] == [2, 2, 2]
        assert await log.head(LATE) is None
    finally:
        await log.stop()


async def test_cancel_outlives_the_power(tmp_path: Path) -> None:
    log = await cut(tmp_path, "cancel")
    try:
        assert [(await head_of(log, key)).cancel_requested for key in (WRITTEN, CANCELLED)] == [False, True]
        assert await log.head(LATE) is None
    finally:
        await log.stop()
