"""Running `cauce` in a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from tests.http import within

PATIENCE = 20.0
"""Seconds that a process gets. It needs under one; a test that would hang fails."""


class Finished(msgspec.Struct):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Running:
    """A command at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._read = b""

    async def until(self, text: str) -> None:
        """Return once `text` has come on stdout."""
        assert self.process.stdout is not None
        while text.encode() not in self._read:
            data = await within(self.process.stdout.read(65536), PATIENCE)
            assert data, f"stdout ended without {text!r}: {self._read!r}"
            self._read += data

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def say_no_more(self) -> None:
        """Close stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def finish(self) -> Finished:
        """Close stdin and wait for the end."""
        self.say_no_more()
        out, err = await within(self.process.communicate(), PATIENCE)
        assert self.process.returncode is not None
        return Finished(self.process.returncode, (self._read + out).decode(), err.decode())


class Home:
    """An empty home that commands run in. `discovery`: whether they look for local servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "cauce.toml"
        self.environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "CAUCE_DISCOVERY__ENABLED": "false",
        }

    def configure(self, toml: str) -> None:
        self.file.write_text(toml)

    async def cauce(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Finished:
        """Run to the end."""
        async with self.running(*arguments, **environment) as command:
            command.type(stdin.decode())
            return await command.finish()

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str, **environment: str) -> AsyncIterator[Running]:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "cauce", *arguments],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=self.folder,
            env={**self.environment, **environment},
            preexec_fn=_interruptible,
        )
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _interruptible() -> None:
    # A shell has its background jobs ignore Ctrl-C, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
