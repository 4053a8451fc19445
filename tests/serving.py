"""A whole Cauce in this process, on a free port, in front of whatever a test configures."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cauce.bootstrap import Runtime, runtime
from cauce.bootstrap.streaming import Streaming, streaming
from cauce.config import Config, load
from cauce.ports.chance import Chance
from cauce.server.run import HTTPServer, listen

_QUICK = {"CAUCE_DISCOVERY__ENABLED": "false", "CAUCE_SERVER__DRAIN": "0"}

ONE_TRY = {"CAUCE_RETRY__ATTEMPTS": "1", "CAUCE_QUEUE__LENGTH": "0"}
"""For tests whose script has a failure that is to be seen."""

BREAKS = {"CAUCE_RECOVERY__ATTEMPTS": "2"}
"""For tests whose answers break whatever is asked: that is found out after two pauses, not after ten that grow."""

MESSAGES = [{"role": "user", "content": "Say hello."}]


class Served(msgspec.Struct):
    """A running server."""

    port: int
    runtime: Runtime
    server: HTTPServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"


def configured(toml: str = "", environment: Mapping[str, str] | None = None) -> Config:
    """The configuration that a file holding `toml` gives."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cauce.toml"
        file.write_text(toml)
        return load(file, {**_QUICK, **(environment or {})}, Path(folder))


def upstream_table(name: str, base_url: str, **settings: Any) -> str:
    """The TOML of a provider."""
    lines = [f"[providers.{name}]", 'kind = "openai"', f'base_url = "{base_url}"', 'api_key = "upstream-key"']
    lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in settings.items()]
    return "\n".join([*lines, ""])


@contextlib.asynccontextmanager
async def serving(
    toml: str = "",
    environment: Mapping[str, str] | None = None,
    data: Path | None = None,
    chance: Chance | None = None,
    streams: Callable[..., Streaming] = streaming,
) -> AsyncIterator[Served]:
    """Serve with the configuration `toml`. What is kept is kept in memory, or in the folder `data`. `chance` and
    `streams`: in place of the machine's, and of those that are configured."""
    given = {**(environment or {}), **({"CAUCE_SERVER__DATA_DIR": str(data)} if data is not None else {})}
    config = configured(toml, given)
    built = runtime(config, chance=chance, on_disk=data is not None, streams=streams)
    sockets = listen("127.0.0.1", 0)
    started = asyncio.Event()

    async def ready() -> None:
        started.set()

    server = HTTPServer(built.services, ready)
    # `_serve` is what `serve` runs once it has taken the process's signal handlers, which tests keep.
    task = asyncio.create_task(server._serve(sockets))
    try:
        await started.wait()
        await built.first_scan.wait()
        yield Served(sockets[0].getsockname()[1], built, server)
    finally:
        server.stop()
        await task
