"""Nodes: real server processes on loopback, started, killed, stopped and started again, and what they are configured with."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cauce.testing.chaos.http import Broken, told
from cauce.testing.chaos.settings import NodeSettings, lines

Store = Literal["sqlite", "postgres", "redis", "memory"]

FILLABLE = hasattr(resource, "prlimit")
"""Whether a process can be kept from here from making its files larger: on Linux."""

SERVE: tuple[str, ...] = (sys.executable, "-m", "cauce", "serve")
"""What starts a node; `--config` and `--port` follow."""

_START = 60.0
_LOOK = 0.03
_PATIENCE = 30.0
"""Seconds beyond its drain that a node may take to end."""

_OWN = """\
[providers.exact]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/{name}/v1"
api_key = "chaos"
dialect = "vllm"

[providers.other]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/{name}/v1"
api_key = "chaos"
dialect = "compatible"

[providers.kept]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/{name}/v1"
api_key = "chaos"
dialect = "llamacpp"

[facts."kept/chaos"]
prefill = false

[facts."exact/chaos"]
prefill = true

[facts."other/chaos"]
prefill = false

[breaker]
enabled = false

[discovery]
enabled = false
"""

_CANDIDATES = ("exact/chaos", "other/chaos")
RESTART = "chaos-restart"
"""The model whose answers begin anew where they break."""
KEPT = "chaos-kept"
"""The model whose provider keeps its answers while it says them."""


def model(number: int) -> str:
    """What the model of route `number` is called."""
    return f"chaos-{number}" if number else "chaos"


def goes_by_leases(store: Store, nodes: int) -> bool:
    """Whether leases decide who takes over. A server that comes back to a folder, and is alone there, waits for none."""
    return store in ("postgres", "redis") or (store == "sqlite" and nodes > 1)


class Ground(msgspec.Struct, frozen=True):
    """Where nodes keep their streams, and what they are configured with. `url` is that of a server, `room` the schema or the prefix of
    keys there that is the run's alone, so that nodes of a run and others leave each other's streams alone."""

    store: Store
    folder: Path
    url: str = ""
    room: str = "cauce_chaos"
    settings: NodeSettings = NodeSettings()

    @property
    def lease(self) -> float:
        """Seconds that a node may be silent, where leases decide."""
        return self.settings.streams.lease

    @property
    def tick(self) -> float:
        """Seconds between two looks of a node at what it holds and at what nobody holds, where several share the store."""
        return min(1.5, self.lease / 4)

    def leased(self, nodes: int) -> bool:
        """Whether streams of one of so many nodes wait for the end of its lease when it has gone."""
        return goes_by_leases(self.store, nodes)

    def file(self, *, alone: bool) -> Path:
        """Where SQLite keeps them."""
        return self.folder / ("n0" if alone and not self.settings.streams.folder else "shared") / "streams.db"

    def config(self, name: str, upstream: int, *, several: bool) -> str:
        """The configuration of node `name`, whose provider is behind port `upstream`. `several`: others share the store."""
        sections = self.settings.sections()
        sections["server"]["data_dir"] = str(self.folder / name)
        sections["streams"]["store"] = self.store
        if self.store == "sqlite" and (several or self.settings.streams.folder):
            sections["streams"]["folder"] = str(self.folder / "shared")
        for number, route in enumerate(self.settings.routes):
            sections[f"models.{model(number)}"] = {"candidates": _CANDIDATES, **msgspec.structs.asdict(route)}
        sections[f"models.{RESTART}"] = {"candidates": _CANDIDATES, "midstream": "restart"}
        sections[f"models.{KEPT}"] = {"candidates": ("kept/chaos", *_CANDIDATES)}
        if self.store == "postgres":
            sections["postgres"] = {"url": self.url, "schema": self.room}
        elif self.store == "redis":
            sections["redis"] = {"url": self.url, "prefix": f"{self.room}:"}
        own = _OWN.format(upstream=upstream, name=name)
        return own + "".join([lines(section, values) for section, values in sections.items()])


class Node:
    """One process. Times are the loop's. `drain` are the seconds that it takes to end when it is told to."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, config: str, drain: float = 1.0) -> None:
        self.name = name
        self.port = _free_port()
        self.starts = 0
        self.ready_at = 0.0
        self.slowest_start = 0.0
        """Seconds that it took to start, at most: how much of the machine there is for it."""
        self.most_memory = 0
        """Kilobytes, as far as was looked."""
        self.log = folder / f"{name}.log"
        self.clock = folder / f"{name}.clock"
        """How many seconds its clock is ahead, for nodes that look there."""
        self._command = command
        self._drain = drain
        self._file = folder / f"{name}.toml"
        self._file.write_text(config, "utf-8")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process, which may be paused."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not in time, with what it said."""
        self.starts += 1
        began = asyncio.get_running_loop().time()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--config",
                str(self._file),
                "--port",
                str(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self._file.parent),
            )
        try:
            async with asyncio.timeout(_START):
                while self.runs:
                    with contextlib.suppress(Broken):
                        status, _ = await told(self.port, "GET", "/health/live", 2.0)
                        if status == 200:
                            self.ready_at = asyncio.get_running_loop().time()
                            self.slowest_start = max(self.slowest_start, self.ready_at - began)
                            return
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            pass
        raise RuntimeError(f"node {self.name} did not start: {self._said()}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def gone(self) -> None:
        """Return once the process has ended; one that does not is killed."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(self._drain + _PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End it for good."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        await self.gone()

    def limit_files(self, size: int | None) -> bool:
        """Have none of its files grow beyond `size` bytes (None: as before), as on a full disk; whether that can be done here."""
        if self._process is None or not self.runs or not FILLABLE:
            return False
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
        return True

    def move_clock(self, seconds: float) -> None:
        """Its clock is so many seconds ahead from now on, if it looks at `clock`."""
        # In place: the node has it mapped.
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

    def look(self) -> None:
        """See how much memory it has, where the system tells."""
        if self._process is None:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{self._process.pid}/status").read_text("utf-8")
            self.most_memory = max(self.most_memory, int(status.split("VmRSS:")[1].split()[0]))

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace")[-1500:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the user's own settings in it."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1"}
