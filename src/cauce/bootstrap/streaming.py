"""The streams of a server, and where their log is: in a folder, in PostgreSQL or Redis, or in memory."""

import asyncio
import fcntl
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import msgspec

from cauce.bootstrap.conversing import Spoken, spoken
from cauce.bootstrap.keeping import streams_folder
from cauce.config import Config, ConfigError
from cauce.engine.streams.bills import Bills
from cauce.engine.streams.settings import Life
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.ports.stream_log import LogUnavailable, Startable
from cauce.stores.batches import PATIENCE
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.parted_log import PartedStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.system.clock import SystemClock
from cauce.system.ids import RandomIds

LOCK = "streams.lock"
"""The file that tells, in a folder several servers may name, whether anybody else is there."""

logger = logging.getLogger("cauce.bootstrap")


class Standing(msgspec.Struct, frozen=True):
    """Where streams are kept, and whether that answers."""

    store: str
    up: bool


class Streaming(msgspec.Struct, frozen=True):
    """`start` is to be awaited before anything is asked of `streams`, `stop` when nothing writes any more."""

    streams: Streams
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]
    standing: Callable[[], Standing]
    spoken: Spoken
    """What is said in conversations: begun and ended with the streams."""


class Opened(msgspec.Struct, frozen=True):
    """A log that outlives the process. `lease` None: it is this process's alone. `stop` is awaited after the log's own."""

    log: Startable
    lease: float | None
    up: Callable[[], bool]
    start: Callable[[], Awaitable[None]] | None = None
    stop: Callable[[], Awaitable[None]] | None = None


def streaming(config: Config, turn: Turn, clock: Clock, *, on_disk: bool, bills: Bills | None = None) -> Streaming:
    """The streams; `on_disk`: the data folder is this process's alone. Raises `ConfigError`."""
    settings = config.streams
    cost = settings.unattended_max_cost
    if not on_disk or settings.store == "memory":
        log = _in_memory(config, clock)
        life = Life(recovery=config.recovery, unattended_max_cost=cost)
        streams = Streams(log, turn, clock, life=life, bills=bills)
        said = spoken(config, clock, log, streams, lasting=False)
        return Streaming(streams, said.start, said.stop, lambda: Standing("memory", up=True), said)
    # Each start is another node: what an earlier one left open is nobody's.
    node = RandomIds().new("node")
    opened = open_log(config, clock, node)
    log = opened.log
    parted = settings.store in ("postgres", "redis")
    if parted:
        log = PartedStreamLog(_in_memory(config, clock), opened.log)
    life = Life(
        lasting=True,
        lease=opened.lease,
        recovery=config.recovery,
        unattended_max_cost=cost,
        private_here=parted,
    )
    streams = Streams(log, turn, clock, node, life, bills)
    said = spoken(config, clock, log, streams, lasting=True)

    async def start() -> None:
        try:
            await log.start()
            if opened.start is not None:
                await opened.start()
        except LogUnavailable as error:
            logger.error("%s: streams are refused until their log (%s) answers", error.message, settings.store)
        await said.start()

    async def stop() -> None:
        await said.stop()
        await log.stop()
        if opened.stop is not None:
            await opened.stop()

    return Streaming(streams, start, stop, lambda: Standing(settings.store, opened.up()), said)


def shared_streaming(
    config: Config, turn: Turn, clock: Clock, *, on_disk: bool, bills: Bills | None = None
) -> Streaming:
    """The same for a process that has no data folder, where the log is one that several share. Raises `ConfigError`."""
    return streaming(config, turn, clock, on_disk=True, bills=bills)


def open_log(config: Config, clock: Clock, node: str) -> Opened:
    """The log that `config` names, which is not the one in memory. Raises `ConfigError`."""
    match config.streams.store:
        case "postgres":
            return _in_postgres(config, clock, node)
        case "redis":
            return _in_redis(config, clock, node)
        case _:
            return _on_disk(config, clock, node)


async def trouble(config: Config) -> str:
    """Why the log that `config` names does not answer, for people; empty if it does, or is a matter of the data folder."""
    if config.streams.store not in ("postgres", "redis"):
        return ""
    opened = open_log(config, SystemClock(), "check")
    try:
        await opened.log.start()
        if opened.start is not None:
            await opened.start()
        await opened.log.orphans(1)
    except LogUnavailable as error:
        return error.message
    finally:
        await opened.log.stop()
        if opened.stop is not None:
            await opened.stop()
    return ""


def _in_memory(config: Config, clock: Clock) -> InprocStreamLog:
    settings = config.streams
    return InprocStreamLog(clock, retention=settings.retention, max_bytes=settings.max_bytes, limits=settings.limits)


def _on_disk(config: Config, clock: Clock, node: str) -> Opened:
    settings = config.streams
    lease = settings.lease if settings.folder else None
    patience = PATIENCE if lease is None else min(PATIENCE, lease)
    options = StreamLogOptions(
        settings.retention, settings.max_disk, lease, settings.synchronous, patience, settings.limits
    )
    with streams_folder(config) as folder:
        held = _lock_of(folder) if settings.folder else None
        log = SqliteStreamLog(folder / FILE, clock, node, options)
    if held is None:
        return Opened(log, None, lambda: log.up)
    lock = held

    async def start() -> None:
        if _alone(lock):
            # Whoever held streams here is gone: nobody needs to wait for their leases.
            await log.free_all()
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_SH)

    async def stop() -> None:
        lock.close()

    return Opened(log, lease, lambda: log.up, start, stop)


def _lock_of(folder: Path) -> IO[str]:
    """The file that says whether anybody is in a folder that several servers may name. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return (folder / LOCK).open("w")


def _alone(lock: IO[str]) -> bool:
    """Whether nobody else is in the folder; then nobody comes in until the lock is shared."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_postgres(config: Config, clock: Clock, node: str) -> Opened:
    try:
        from cauce.stores.postgres.connections import is_address
        from cauce.stores.postgres.stream_log import PostgresStreamLog
    except ImportError as error:
        raise ConfigError('streams.store "postgres" needs the extra postgres: pip install "cauce[postgres]"') from error
    if not is_address(config.postgres.url):
        raise ConfigError("postgres.url: must be an address such as postgresql://user@127.0.0.1:5432/cauce")
    log = PostgresStreamLog(config.postgres, clock, node, _shared(config))
    return Opened(log, config.streams.lease, lambda: log.up)


def _in_redis(config: Config, clock: Clock, node: str) -> Opened:
    try:
        from cauce.stores.redis.connection import RedisConnection
        from cauce.stores.redis.stream_log import RedisStreamLog
    except ImportError as error:
        raise ConfigError('streams.store "redis" needs the extra redis: pip install "cauce[redis]"') from error
    connection = RedisConnection(config.redis, clock, "streams are refused")
    log = RedisStreamLog(connection, clock, node, _shared(config))

    async def start() -> None:
        await connection.start()
        if not connection.up:
            raise LogUnavailable("Redis does not answer")

    return Opened(log, config.streams.lease, lambda: connection.up, start, connection.aclose)


def _shared(config: Config) -> SharedLogOptions:
    settings = config.streams
    patience = min(PATIENCE, settings.lease)
    return SharedLogOptions(settings.retention, settings.lease, patience, settings.limits, settings.max_disk)
