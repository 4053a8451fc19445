"""What a power cut takes from a file that is not waited for (`synchronous = "normal"`), and what it leaves."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cauce.domain.stream import StreamKey
from cauce.stores.sqlite import stream_log, stream_writer
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.stores.sqlite.stream_work import Claim
from cauce.system.clock import SystemClock
from cauce.testing.stream_samples import END, bills, created, head_of, text, whole
from tests.chaos import power

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WRITTEN, TAKEN_OVER, CANCELLED, ENDED = KEYS = [StreamKey("p", id) for id in ("written", "taken", "cancelled", "ended")]


class LazyClaim(Claim):
    """Is on the disk when everything else is."""

    lasting: bool = False


def log_of(folder: Path) -> SqliteStreamLog:
    return SqliteStreamLog(folder / FILE, SystemClock(), "here", StreamLogOptions(synchronous="normal"))


async def written_until_the_power_goes(folder: Path, then: str) -> None:
    """The process ends with the power, when the disk has not been waited for since `then`."""
    power.watch()
    # By themselves, writes would reach the disk once a second.
    stream_writer._CHECKPOINT_EVERY = 3600.0
    log = log_of(folder)
    await log.start()
    holds = {key: await created(log, key) for key in KEYS}
    for key, hold in holds.items():
        holds[key] = await log.append(hold, text("shown "))
    match then:
        case "take over" | "take over without the disk":
            if then != "take over":
                stream_log.Claim = LazyClaim
            await log.release([holds[TAKEN_OVER]])
            [orphan] = await log.orphans(10)
            assert await log.claim(orphan, "here") is not None
        case "cancel":
            await log.request_cancel(CANCELLED, "enough")
        case "end":
            await log.append(holds[ENDED], END)
        case _:
            assert then == "create"
    await log.append(holds[WRITTEN], text("and lost"))
    os._exit(0)


@contextlib.asynccontextmanager
async def cut(folder: Path, then: str) -> AsyncIterator[SqliteStreamLog]:
    """The log after that."""
    script = f"""
import asyncio, pathlib, sys
from {__name__} import written_until_the_power_goes
asyncio.run(written_until_the_power_goes(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""
    command = [sys.executable, "-c", script, str(folder), then]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert power.cut(folder / FILE) > 0
    log = log_of(folder)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def test_what_no_disk_was_waited_for_goes_with_the_power_and_the_stream_stays(tmp_path: Path) -> None:
    """Or its id could be taken again, with another text under the same numbers."""
    async with cut(tmp_path, "create") as log:
        assert [len(await whole(log, key)) for key in KEYS] == [1, 1, 1, 1]


async def test_takeover_outlives_the_power_and_all_that_came_before_it_does(tmp_path: Path) -> None:
    """The next one has another epoch, or readers could not tell what either of them wrote apart."""
    async with cut(tmp_path, "take over") as log:
        assert [(await head_of(log, key)).epoch for key in (WRITTEN, TAKEN_OVER)] == [1, 2]
        assert [len(await whole(log, key)) for key in KEYS] == [2, 2, 2, 2]


async def test_takeover_that_did_not_wait_for_the_disk_would_be_seen_to_be_lost(tmp_path: Path) -> None:
    async with cut(tmp_path, "take over without the disk") as log:
        assert [(await head_of(log, key)).epoch for key in KEYS] == [1, 1, 1, 1]
        assert [len(await whole(log, key)) for key in KEYS] == [1, 1, 1, 1]


async def test_cancel_outlives_the_power(tmp_path: Path) -> None:
    async with cut(tmp_path, "cancel") as log:
        assert [(await head_of(log, key)).cancel_requested for key in (WRITTEN, CANCELLED)] == [False, True]
        assert [len(await whole(log, key)) for key in KEYS] == [2, 2, 2, 2]


async def test_end_of_a_stream_outlives_the_power(tmp_path: Path) -> None:
    """Who asked for its cancel was told that it had ended: it is not gone on with, and not paid for again."""
    async with cut(tmp_path, "end") as log:
        assert [(await head_of(log, key)).state for key in (WRITTEN, ENDED)] == ["running", "completed"]
        assert [len(await whole(log, key)) for key in KEYS] == [2, 2, 2, 3]
        assert (await bills(log, ENDED))[0].outcome == "completed"
