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

Store = Literal["sqlite", "postgres", "redis"]

FILLABLE = hasattr(resource, "prlimit")
"""Whether a process can be kept from here from making its files larger: on Linux."""

SERVE: tuple[str, ...] = (sys.executable, "-m", "cauce", "serve")
"""What starts a node; `--config` and `--port` follow."""

_START = 60.0
_LOOK = 0.03
_DRAIN = 1

_CONFIG = """\
[server]
data_dir = "{folder}"
drain = {drain}

[streams]
store = "{store}"
{shared}
heartbeat = 1

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

[models.chaos]
candidates = ["exact/chaos", "other/chaos"]

[models.chaos-restart]
candidates = ["exact/chaos", "other/chaos"]
midstream = "restart"

[facts."exact/chaos"]
prefill = true

[facts."other/chaos"]
prefill = false

[timeouts]
connect = 2
first_delta = 4
idle = 2

[retry]
base = 0.05
cap = 0.2

[recovery]
attempts = {attempts}

[breaker]
enabled = false

[discovery]
enabled = false
"""


class Ground(msgspec.Struct, frozen=True):
    """Where nodes keep their streams. `url` is that of a server, `room` the schema or the prefix of keys there that is the run's alone,
    so that nodes of a run and others leave each other's streams alone. `lease` is in seconds."""

    store: Store
    folder: Path
    url: str = ""
    lease: float = 2.0
    room: str = "cauce_chaos"
    attempts: int = 40
    """Recoveries that one answer may have."""
    synchronous: Literal["full", "normal"] = "full"
    """What SQLite does before it acknowledges."""

    @property
    def tick(self) -> float:
        """Seconds between two looks of a node at what it holds and at what nobody holds, where several share the store."""
        return min(1.5, self.lease / 4)

    def file(self, *, alone: bool) -> Path:
        """Where SQLite keeps them."""
        return self.folder / ("n0" if alone else "shared") / "streams.db"

    def config(self, name: str, upstream: int, *, several: bool) -> str:
        """The configuration of node `name`, whose provider is behind port `upstream`. `several`: others share the store."""
        shared = f"lease = {self.lease:g}" if several or self.store != "sqlite" else ""
        if several and self.store == "sqlite":
            shared += f'\nfolder = "{self.folder / "shared"}"'
        text = _CONFIG.format(
            folder=self.folder / name,
            drain=_DRAIN,
            store=self.store,
            shared=shared,
            upstream=upstream,
            name=name,
            attempts=self.attempts,
        )
        if self.synchronous != "full":
            text = text.replace("[streams]\n", f'[streams]\nsynchronous = "{self.synchronous}"\n')
        if self.store == "postgres":
            text += f'\n[postgres]\nurl = "{self.url}"\nschema = "{self.room}"\n'
        elif self.store == "redis":
            text += f'\n[redis]\nurl = "{self.url}"\nprefix = "{self.room}:"\n'
        return text


class Node:
    """One process. Times are the loop's."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, config: str) -> None:
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
            async with asyncio.timeout(30):
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
