"""Settings of the server, as the configuration fills them."""

from typing import Annotated, Literal

import msgspec

from cauce.domain.request import Scope

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Period = Annotated[float, msgspec.Meta(gt=0)]


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


class StreamSettings(msgspec.Struct, frozen=True):
    """Seconds a streaming answer's headers are held back for the first delta; between heartbeats; that an ended stream can
    still be read.

    `durable`: streams are written to the data folder before anybody sees them. `synchronous` says whether that outlives a power
    cut (`full`) or only the process (`normal`). `max_disk` bounds the file, `max_bytes` all streams in memory together.
    """

    hold_headers: Seconds = 3.0
    heartbeat: Period = 10.0
    durable: bool = True
    synchronous: Literal["full", "normal"] = "full"
    retention: Seconds = 86_400.0
    max_disk: Annotated[int, msgspec.Meta(ge=16 * 1024 * 1024)] = 4 * 1024 * 1024 * 1024
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 256 * 1024 * 1024


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key: `hash` is `sha256:` and 64 hex digits."""

    name: str
    hash: str
    tenant: str = "default"

    @property
    def scope(self) -> Scope:
        """Who holds it."""
        return Scope(self.tenant, self.name)
