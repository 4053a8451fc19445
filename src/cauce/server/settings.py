"""Settings of the server, as the configuration fills them."""

from typing import Annotated, Literal

import msgspec

from cauce.domain.request import Scope
from cauce.domain.stream import StreamLimits
from cauce.engine.streams.settings import UNATTENDED_MAX_COST

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Period = Annotated[float, msgspec.Meta(gt=0)]
Beat = Annotated[float, msgspec.Meta(gt=0, le=20)]
"""Seconds. Our clients take 30 without a byte for a dead connection, proxies and load balancers 50 or 60 (Heroku 55, AWS and nginx 60)."""


class ServerSettings(msgspec.Struct, frozen=True):
    """`max_body` is in bytes, `drain` (time open streams get at shutdown) in seconds. `hosts` are further names this server
    is called by, `cors_origins` further origins that pages may call it from (`null`: pages opened from a file). `warm`: connections to
    configured providers are made at the start, and kept."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    data_dir: str = "~/.local/share/cauce"
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body: Annotated[int, msgspec.Meta(ge=1024)] = 20 * 1024 * 1024
    drain: Seconds = 20.0
    warm: bool = True


Kept = Annotated[float, msgspec.Meta(ge=600)]
"""Seconds. Less than ten minutes would take answers from clients that are still on their way back."""


class StreamSettings(msgspec.Struct, frozen=True):
    """Seconds a streaming answer's headers are held back for the first delta; between heartbeats; that a reader of a logged stream
    may take nothing of what there is for it, until its connection is broken (0: for ever).

    `store` is where streams are written before anybody sees them. `folder` is that of the file, in place of the data folder: servers
    of one machine that name the same one take over from each other. `lease` is the seconds after which that happens where several
    share a store. `synchronous` says whether all that is in the file outlives a power cut (`full`), or the newest of open streams only the process (`normal`).
    `retention` is the seconds that an ended stream can still be read, `retention_api` the same on wires that are not ours. What becomes
    of streams of those that nobody reads any more is `on_disconnect`, after `grace` seconds. `unattended_max_cost` (USD, 0: any)
    ends a stream that goes on unread. `max_disk` bounds what all streams take together, in the file, or of all servers in PostgreSQL or
    Redis; `max_bytes` bounds those in memory. `max_stream` (bytes) and `max_records` bound each stream by itself.
    """

    hold_headers: Seconds = 3.0
    heartbeat: Beat = 10.0
    stalled: Seconds = 60.0
    store: Literal["sqlite", "postgres", "redis", "memory"] = "sqlite"
    folder: str = ""
    lease: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    synchronous: Literal["full", "normal"] = "full"
    retention: Kept = 86_400.0
    retention_api: Kept = 3600.0
    on_disconnect: Literal["continue", "grace", "cancel"] = "grace"
    grace: Seconds = 30.0
    unattended_max_cost: Annotated[float, msgspec.Meta(ge=0)] = UNATTENDED_MAX_COST
    max_disk: Annotated[int, msgspec.Meta(ge=16 * 1024 * 1024)] = 4 * 1024 * 1024 * 1024
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 256 * 1024 * 1024
    max_stream: Annotated[int, msgspec.Meta(ge=64 * 1024)] = StreamLimits().bytes
    max_records: Annotated[int, msgspec.Meta(ge=1000)] = StreamLimits().records

    @property
    def shared(self) -> bool:
        """Whether several processes may keep their streams there."""
        return self.store in ("postgres", "redis") or bool(self.folder)

    @property
    def limits(self) -> StreamLimits:
        """What one stream may hold."""
        return StreamLimits(self.max_stream, self.max_records)


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key: `hash` is `sha256:` and 64 hex digits."""

    name: str
    hash: str
    tenant: str = "default"

    @property
    def scope(self) -> Scope:
        """Who holds it."""
        return Scope(self.tenant, self.name)
