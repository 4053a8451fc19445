"""`python -m bench.streams`: what the durable log costs each delta of a stream, beside no log and the log in memory.

Paced streams are produced into a log and read from it, in one process without HTTP: the delay of a delta is the time from the moment
its upstream gives it until a reader that follows has it. CPU is that of the whole process, its paced upstreams and its readers
included, so the figure to look at is the difference between two rows. Then ever more is offered, until less than 95 % of it is
achieved. The file is in a folder that is deleted at the end (`--folder` chooses where: a disk, not memory). `--redis URL` and
`--postgres URL` measure the logs in a server too. About 70 seconds for the files, a minute more for each server. The table at the end is
for docs/reference/benchmarks.md.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import msgspec
import uvloop

from cauce.domain.delta import Delta, Finish, Text
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Hold, NewStream, StreamKey
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.tail import follow
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import StreamLog
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.system.clock import SystemClock

WIDTH = 24
"""Characters of a delta."""

REQUEST = Request("m", (Message("user", (TextPart("How are you?"),)),), stream=True)
CALL = Call(REQUEST, Scope(), ())

STEPS = (800, 1200, 1600, 2000, 2400, 2800, 3200)
"""Streams of ten deltas a second that are tried one after the other."""

ENOUGH = 0.95
"""What must be achieved of what is offered."""


class Load(msgspec.Struct, frozen=True):
    """So many streams, each giving so many deltas per second for so many seconds."""

    streams: int
    rate: float
    seconds: float

    @property
    def offered(self) -> float:
        """Deltas per second of all."""
        return self.streams * self.rate

    @property
    def apart(self) -> float:
        """Seconds between the first stream's beginning and the last one's: no two come in step."""
        return (self.streams - 1) / self.streams / self.rate

    @property
    def deltas(self) -> int:
        """Of one stream."""
        return int(self.rate * self.seconds)


class Figures(msgspec.Struct, frozen=True):
    """Of one run. Delays in milliseconds, CPU in microseconds per delta."""

    achieved: float
    p50: float
    p99: float
    cpu: float
    commits: float


class Paced:
    """Stands for a turn: its answer comes at its pace, and it notes when each delta came."""

    def __init__(self, load: Load, number: int, begins: float) -> None:
        self._load = load
        self._begins = begins
        self._number = number
        self.given: list[float] = []

    async def open(self, call: Call) -> Deltas:
        return Deltas(self._batches())

    async def _batches(self) -> AsyncGenerator[Sequence[Delta], None]:
        each = 1 / self._load.rate
        at = self._begins + each * self._number / self._load.streams
        for number in range(self._load.deltas):
            at += each
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            self.given.append(time.perf_counter())
            yield (Text(f"{number:{WIDTH}}"),)
        yield (Finish("stop"),)


class Delays:
    """Of the deltas of one stream, in seconds. Adjacent ones may come as one text."""

    def __init__(self, paced: Paced, delays: list[float]) -> None:
        self._paced = paced
        self._delays = delays
        self._characters = self._delivered = 0

    def read(self, deltas: Sequence[Delta]) -> None:
        """These have reached the reader now."""
        now = time.perf_counter()
        self._characters += sum([len(delta.text) for delta in deltas if isinstance(delta, Text)])
        while self._delivered < self._characters // WIDTH:
            self._delays.append(now - self._paced.given[self._delivered])
            self._delivered += 1


async def logged(log: StreamLog, hold: Hold, paced: Paced, delays: Delays) -> None:
    """One stream through the log."""
    turn: Any = paced
    producing = asyncio.create_task(Producer(log, turn, SystemClock(), hold).run(CALL))
    async with aclosing(follow(log, hold.key, 0)) as batches:
        async for batch in batches:
            delays.read([record.delta for record in batch])
    await producing


async def unlogged(paced: Paced, delays: Delays) -> None:
    """One stream straight to its reader."""
    async with aclosing(await paced.open(CALL)) as deltas:
        while batch := await deltas.read():
            delays.read(batch)


class Counts(Protocol):
    """What counts its transactions."""

    @property
    def commits(self) -> int: ...


async def run(log: StreamLog | None, load: Load, counts: Counts | None = None) -> Figures:
    """The figures of `load` on `log`; None: without one. `counts` counts its transactions."""
    delays: list[float] = []
    name = f"{load.streams}-{load.rate:g}-{time.time_ns()}"
    keys = [StreamKey("bench/key", f"{name}-{number}") for number in range(load.streams)]
    holds = [] if log is None else await asyncio.gather(*[created(log, key) for key in keys])
    before = 0 if counts is None else counts.commits
    cpu, began = time.process_time(), time.perf_counter()
    paced = [Paced(load, number, began) for number in range(load.streams)]
    if log is None:
        await asyncio.gather(*[unlogged(one, Delays(one, delays)) for one in paced])
    else:
        both = zip(holds, paced, strict=True)
        await asyncio.gather(*[logged(log, hold, one, Delays(one, delays)) for hold, one in both])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began - load.apart
    made = 0 if counts is None else counts.commits - before
    cuts = statistics.quantiles(delays, n=100)
    return Figures(len(delays) / wall, cuts[49] * 1e3, cuts[98] * 1e3, cpu / len(delays) * 1e6, made / wall)


async def created(log: StreamLog, key: StreamKey) -> Hold:
    hold = (await log.create(NewStream(key, REQUEST, b"digest", time.time()))).hold
    assert hold is not None
    return hold


class Report:
    """Runs, told as they end, and all of them as a table."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.rows = [
            "| log | streams x deltas/s | offered/s | achieved/s | added delay p50 / p99, ms | CPU µs per delta | commits/s |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]

    async def measure(self, name: str, log: StreamLog | None, counts: Counts | None = None, *, steps: bool) -> None:
        """The loads everybody gets; with `steps` also ever more of it."""
        await run(log, Load(20, 50, 1))
        for load in (Load(100, 50, self._seconds), Load(500, 10, self._seconds)):
            await self._row(name, log, counts, load)
        if steps:
            await self._saturate(name, log, counts)

    async def _row(self, name: str, log: StreamLog | None, counts: Counts | None, load: Load) -> Figures:
        figures = await run(log, load, counts)
        row = (
            f"| {name} | {load.streams} x {load.rate:g} | {load.offered:,.0f} | {figures.achieved:,.0f} | "
            f"{figures.p50:.1f} / {figures.p99:.1f} | {figures.cpu:.0f} | {figures.commits:,.0f} |"
        )
        self.rows.append(row)
        print(row, flush=True)
        return figures

    async def _saturate(self, name: str, log: StreamLog | None, counts: Counts | None) -> None:
        """Offer ever more, until it is not taken."""
        most = 0.0
        for streams in STEPS:
            load = Load(streams, 10, self._seconds)
            figures = await self._row(name, log, counts, load)
            if figures.achieved < ENOUGH * load.offered:
                print(f"{name}: takes {most:,.0f} deltas/s; offered {load.offered:,.0f}, {figures.achieved:,.0f}")
                return
            most = load.offered
        print(f"{name}: takes {most:,.0f} deltas/s, the most that was offered")


async def measure(folder: Path, arguments: argparse.Namespace) -> None:
    clock = SystemClock()
    report = Report(arguments.seconds)
    await report.measure("none", None, steps=False)
    await report.measure("memory", InprocStreamLog(clock), steps=False)
    for synchronous in ("normal", "full"):
        options = StreamLogOptions(synchronous=synchronous)
        log = SqliteStreamLog(folder / f"{synchronous}.db", clock, "bench", options)
        await log.start()
        await report.measure(f"SQLite, {synchronous}", log, log.writer, steps=synchronous == "full")
        await log.stop()
    await servers(arguments, report)
    print("\n" + "\n".join(report.rows))


async def servers(arguments: argparse.Namespace, report: Report) -> None:
    """The logs in servers, where there are any. What they need is in extras, which the rest of the bench does without."""
    clock = SystemClock()
    if arguments.postgres:
        from cauce.stores.postgres.settings import PostgresSettings
        from cauce.stores.postgres.stream_log import PostgresStreamLog

        log = PostgresStreamLog(PostgresSettings(arguments.postgres, f"bench_{os.getpid()}"), clock, "bench")
        await log.start()
        await report.measure("PostgreSQL", log, log.appends, steps=True)
        await log.stop()
    if arguments.redis:
        from cauce.stores.redis.connection import RedisConnection
        from cauce.stores.redis.settings import RedisSettings
        from cauce.stores.redis.stream_log import RedisStreamLog

        connection = RedisConnection(RedisSettings(arguments.redis, prefix=f"bench{os.getpid()}:"), clock)
        await connection.start()
        shared = RedisStreamLog(connection, clock, "bench", SharedLogOptions(retention=1))
        await report.measure("Redis", shared, steps=True)
        await shared.stop()
        await connection.aclose()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="of each run (default: 5)")
    parser.add_argument("--folder", type=Path, help="where the file is made (default: the working folder)")
    parser.add_argument(
        "--redis", metavar="URL", help="of a server to measure too: it keeps keys that begin with bench for a week"
    )
    parser.add_argument("--postgres", metavar="URL", help="of a database to measure too, in a schema of its own")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=".bench-streams-", dir=arguments.folder or Path.cwd()))
    try:
        uvloop.run(measure(folder, arguments))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
