"""Where conversations are kept: where streams are, since whoever reads the one reads the other."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from cauce.bootstrap.keeping import streams_folder
from cauce.config import Config
from cauce.engine.streams.conversing import Conversing
from cauce.engine.streams.streams import Streams
from cauce.ports.clock import Clock
from cauce.ports.conversations import Conversations
from cauce.ports.stream_log import StreamLog
from cauce.stores.inproc.conversations import InprocConversations
from cauce.stores.sqlite.conversations import FILE, SqliteConversations


class Stoppable(Conversations, Protocol):
    """A store with what it needs after its work."""

    async def stop(self) -> None:
        """Let go."""
        ...


class Spoken(msgspec.Struct, frozen=True):
    """`start` is to be awaited once the log of streams has begun, `stop` before it ends and after everything that may still be said."""

    conversations: Conversations
    conversing: Conversing
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


def spoken(config: Config, clock: Clock, log: StreamLog, streams: Streams, *, lasting: bool) -> Spoken:
    """The conversations of `streams`; `lasting`: their log outlives the process. Raises `ConfigError`."""
    store = _store(config, clock) if lasting else InprocConversations(clock, keep_for=config.conversations.keep_for)
    conversing = Conversing(log, store, clock)
    streams.on_said(conversing.hear)

    async def start() -> None:
        conversing.start()

    async def stop() -> None:
        await conversing.stop()
        await store.stop()

    return Spoken(store, conversing, start, stop)


def _store(config: Config, clock: Clock) -> Stoppable:
    keep_for = config.conversations.keep_for
    if config.streams.store == "postgres":
        # Whoever keeps streams there has the driver: it was looked for already.
        from cauce.stores.postgres.conversations import PostgresConversations

        return PostgresConversations(config.postgres, clock, keep_for=keep_for)
    with streams_folder(config) as folder:
        return SqliteConversations(folder / FILE, clock, keep_for=keep_for)
