"""The streams of a server, and where their log is: in the data folder, or in memory."""

from collections.abc import Awaitable, Callable

import msgspec

from cauce.config import Config, ConfigError
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.sqlite.schema import SchemaError
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.system.ids import RandomIds


class Streaming(msgspec.Struct, frozen=True):
    """`start` is to be awaited before anything is asked of `streams`, `stop` when nothing writes any more."""

    streams: Streams
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


def streaming(config: Config, turn: Turn, clock: Clock, *, on_disk: bool) -> Streaming:
    """The streams; `on_disk`: the data folder is this process's alone. Raises `ConfigError`."""
    settings = config.streams
    if not (on_disk and settings.durable):
        log = InprocStreamLog(clock, retention=settings.retention, max_bytes=settings.max_bytes)
        return Streaming(Streams(log, turn, clock), _nothing, _nothing)
    # Each start is another node: what an earlier one left open is nobody's.
    node = RandomIds().new("node")
    options = StreamLogOptions(settings.retention, settings.max_disk, synchronous=settings.synchronous)
    try:
        kept = SqliteStreamLog(config.data_dir / FILE, clock, node, options)
    except SchemaError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(
            f"the data folder {config.data_dir} cannot be used: {error.strerror or error}: set another [server] data_dir"
        ) from error
    streams = Streams(kept, turn, clock, node)

    async def start() -> None:
        await kept.start()
        await streams.adopt()

    return Streaming(streams, start, kept.stop)


async def _nothing() -> None:
    return None
