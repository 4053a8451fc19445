"""Every stream log keeps the contract, and agrees with a model of ten lines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.stream import Commit, StreamLimits
from cauce.ports.stream_log import StreamLog
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.testing.clock import FakeClock
from cauce.testing.stream_log_contract import LEASE, RETENTION, Logs, StreamLogContract, created


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestInprocStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock) -> Logs:
        # One process only: all nodes are the same.
        made: dict[StreamLimits, InprocStreamLog] = {}

        async def make(limits: StreamLimits = StreamLimits()) -> StreamLog:  # noqa: B008
            return made.setdefault(limits, InprocStreamLog(clock, retention=RETENTION, lease=LEASE, limits=limits))

        return make

    async def test_oldest_ended_streams_go_first_when_memory_is_short(self, clock: FakeClock) -> None:
        log = InprocStreamLog(clock, max_bytes=1024)
        await log.append(
            await log.append(await created(log), Commit((Text("x" * 2000),), "running")),
            Commit((Finish("stop"),), "completed"),
        )
        assert await log.sweep(10) == 1


class TestSqliteStreamLog(StreamLogContract):
    @pytest.fixture
    async def logs(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Logs]:
        made: list[SqliteStreamLog] = []

        async def make(limits: StreamLimits = StreamLimits()) -> StreamLog:  # noqa: B008
            options = StreamLogOptions(RETENTION, lease=LEASE, limits=limits)
            log = SqliteStreamLog(tmp_path / "streams.db", clock, f"node {len(made)}", options)
            await log.start()
            made.append(log)
            return log

        yield make
        for log in made:
            await log.stop()
