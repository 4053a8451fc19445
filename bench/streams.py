"""`python -m bench.streams`: what the durable log costs each delta of a stream, beside the log in memory.

Paced streams are produced into a log and read from it, in one process without HTTP: the delay of a delta is the time from the moment
its upstream gives it until a reader that follows has it. CPU is that of the whole process, its paced upstreams and its readers
included, so the figure to look at is the difference between two logs. The file is in a folder that is deleted at the end
(`--folder` chooses where: a disk, not memory). `--redis URL` and `--postgres URL` measure the logs in a server too.
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
from typing import Any

import msgspec
import uvloop

from cauce.domain.delta import Delta, Finish, Text
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import NewStream, StreamKey
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.tail import follow
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import StreamLog
from cauce.stores.followed import SharedLogOptions
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.system.clock import SystemClock

WIDTH = 24
"""Characters of a delta."""

REQUEST = Request("m", (Message("user", (TextPart("How are you?"),)),), stream=True)


class Load(msgspec.Struct, frozen=True):
    """So many streams, each giving so many deltas per second for so many seconds."""

    streams: int
    rate: float
    seconds: float

    @property
    def offered(self) -> float:
        """Deltas per second of all."""
        return self.streams * self.rate


class Figures(msgspec.Struct, frozen=True):
    """Of one run. Delays in milliseconds, CPU in microseconds per delta."""

    achieved: float
    p50: float
    p99: float
    cpu: float
    commits: float


class Paced:
    """Stands for a turn: its answer comes at its pace, and it notes when each delta came."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._number = number
        self.given: list[float] = []

    async def open(self, call: Call) -> Deltas:
        return Deltas(self._batches())

    async def _batches(self) -> AsyncGenerator[Sequence[Delta], None]:
        each = 1 / self._load.rate
        at = time.perf_counter() + each * self._number / self._load.streams
        for number in range(int(self._load.rate * self._load.seconds)):
            at += each
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            self.given.append(time.perf_counter())
            yield (Text(f"{number:{WIDTH}}"),)
        yield (Finish("stop"),)


async def one_stream(log: StreamLog, load: Load, number: int, delays: list[float]) -> None:
    key = StreamKey("bench/key", f"{load.streams}-{load.rate}-{number}")
    hold = (await log.create(NewStream(key, REQUEST, b"digest", time.time()))).hold
    assert hold is not None
    paced = Paced(load, number)
    turn: Any = paced
    call: Any = Call(REQUEST, Scope(), ())
    producing = asyncio.create_task(Producer(log, turn, SystemClock(), hold).run(call))
    characters = delivered = 0
    async with aclosing(follow(log, key, 0)) as batches:
        async for batch in batches:
            now = time.perf_counter()
            for record in batch:
                if isinstance(record.delta, Text):
                    characters += len(record.delta.text)
            while delivered < characters // WIDTH:
                delays.append(now - paced.given[delivered])
                delivered += 1
    await producing


def commits_of(log: StreamLog) -> int:
    """Transactions so far, where they are counted."""
    match log:
        case SqliteStreamLog():
            return log.writer.commits
        case PostgresStreamLog():
            return log.appends.commits
        case _:
            return 0


async def run(log: StreamLog, load: Load) -> Figures:
    """The figures of `load` on `log`."""
    delays: list[float] = []
    commits = commits_of(log)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[one_stream(log, load, number, delays) for number in range(load.streams)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    commits = commits_of(log) - commits
    cuts = statistics.quantiles(delays, n=100)
    return Figures(len(delays) / wall, cuts[49] * 1e3, cuts[98] * 1e3, cpu / len(delays) * 1e6, commits / wall)


def show(name: str, load: Load, figures: Figures) -> None:
    print(
        f"{name:8} {load.streams:5} x {load.rate:4.0f} = {load.offered:7,.0f}/s: {figures.achieved:7,.0f}/s, "
        f"delay p50 {figures.p50:7.2f} ms, p99 {figures.p99:7.2f} ms, CPU {figures.cpu:6.1f} µs per delta, "
        f"{figures.commits:5.0f} commits/s",
        flush=True,
    )


async def measure(folder: Path, arguments: argparse.Namespace) -> None:
    clock = SystemClock()
    base = Load(100, 50, arguments.seconds)
    wide = Load(500, 10, arguments.seconds)
    memory = InprocStreamLog(clock)
    await run(memory, Load(20, 50, 1))
    for load in (base, wide):
        show("memory", load, await run(memory, load))
    for synchronous in ("normal", "full"):
        options = StreamLogOptions(synchronous=synchronous)
        log = SqliteStreamLog(folder / f"{synchronous}.db", clock, "bench", options)
        await log.start()
        await run(log, Load(20, 50, 1))
        for load in (base, wide):
            show(synchronous, load, await run(log, load))
        if synchronous == "full":
            await saturate(synchronous, log, arguments.seconds)
        await log.stop()
    await servers(arguments)


async def servers(arguments: argparse.Namespace) -> None:
    """The logs in servers, where there are any."""
    clock = SystemClock()
    if arguments.postgres:
        log = PostgresStreamLog(PostgresSettings(arguments.postgres, f"bench_{os.getpid()}"), clock, "bench")
        await log.start()
        await saturate("postgres", log, arguments.seconds, 125, 500)
        await log.stop()
    if arguments.redis:
        connection = RedisConnection(RedisSettings(arguments.redis, prefix=f"bench{os.getpid()}:"), clock)
        await connection.start()
        shared = RedisStreamLog(connection, clock, "bench", SharedLogOptions(retention=1))
        await saturate("redis", shared, arguments.seconds, 125, 500)
        await shared.stop()
        await connection.aclose()


async def saturate(name: str, log: StreamLog, seconds: float, *counts: int) -> None:
    """Offer ever more, until it is not taken."""
    for streams in counts or (200, 500, 1000, 1500):
        load = Load(streams, 40, seconds)
        figures = await run(log, load)
        show(name, load, figures)
        if figures.achieved < 0.85 * load.offered:
            print(f"saturated: {figures.achieved:,.0f} deltas/s")
            return


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
