"""A whole Cauce in a process of its own, started as people start it, and a proxy that can break its connections."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from cauce.testing.listening import Listening
from tests.serving import upstream_table

_COMMON = """
[server]
data_dir = "{folder}/data"
drain = 0
{server}
[discovery]
enabled = false
"""
_STARTED = re.compile(r"listens on http://\S+:(\d+)")
_START_SECONDS = 30
_STOP_SECONDS = 10


class Cauce(msgspec.Struct):
    """A running server process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"


ONCE = "[retry]\nattempts = 1\n[recovery]\nattempts = 0\n[breaker]\nenabled = false\n[limits]\nadaptive = false\n"
"""TOML with which a provider's failure is seen by the client, not mended on its way."""


def in_front_of(base_url: str, *, name: str = "up") -> str:
    """The TOML of one provider, whose model `up/m` is what `auto` and `tu-modelo` ask first."""
    return upstream_table(name, base_url, default_model="m")


@contextlib.asynccontextmanager
async def cauce(folder: Path, toml: str = "", *, server: str = "") -> AsyncIterator[Cauce]:
    """Run `cauce serve` on a free port with `toml`; `server` are further keys of `[server]`. Only this process is stopped.

    Leaving fails if the server's log tells of an unexpected error.
    """
    file = folder / "cauce.toml"
    file.write_text(_COMMON.format(folder=folder, server=server) + toml)
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cauce", "serve", "--config", str(file), "--port", "0"),
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            port = await asyncio.wait_for(_port(process), _START_SECONDS)
            assert port is not None, f"the server did not start:\n{log.read_text()}"
            yield Cauce(port, process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                # What it still prints is read too: a full pipe would keep it from ending.
                await asyncio.wait_for(process.communicate(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise AssertionError(f"the server did not stop within {_STOP_SECONDS} s") from None
    told = log.read_text()
    assert "Traceback" not in told and "ERROR" not in told, told


async def _port(process: asyncio.subprocess.Process) -> int | None:
    """The port its banner names; None if it ended before it printed one."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if found := _STARTED.search(line.decode()):
            return int(found[1])
    return None


class Proxy(Listening):
    """A TCP proxy on loopback in front of `target`: what networks between a client and its server do to connections."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._grown = asyncio.Event()
        self._carried = b""
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aexit__(self, *left: object) -> None:
        self.cut()
        await super().__aexit__(*left)

    def aim(self, target: int) -> None:
        """From now on connections go to this port."""
        self._target = target

    def cut(self) -> None:
        """Break every connection there is; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    def swallow(self) -> None:
        """From now on nothing that the server sends arrives, and nobody is told: as when a phone loses its network."""
        self._flowing.clear()

    def flow(self) -> None:
        """End `swallow` for connections made from now on; what was swallowed is lost, and its connections stay silent."""
        self._flowing.set()

    async def carried(self, text: bytes) -> None:
        """Wait until the server has sent `text` through here."""
        while text not in self._carried:
            self._grown.clear()
            await self._grown.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, there_writer}
            ways = [
                asyncio.create_task(self._carry(reader, there_writer, answer=False)),
                asyncio.create_task(self._carry(there_reader, writer, answer=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                for end in (writer, there_writer):
                    self._writers.discard(end)
                    end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
        silent = False
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if answer:
                    self._carried += data
                    self._grown.set()
                    silent = silent or not self._flowing.is_set()
                if not silent:
                    writer.write(data)
                    await writer.drain()
