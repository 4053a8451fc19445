"""A server process, watched through its output."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self


def clean(home: Path, **environment: str) -> dict[str, str]:
    """An environment with nothing of the developer's in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        "CAUCE_DISCOVERY__ENABLED": "false",
        **environment,
    }


class Process:
    """`command` of Python, started on a free port in `folder`, which is its home too; ended when the block is left.

    It has begun once what it prints matches `begun`, whose first group is its port. `apart`: its errors go into a file.
    """

    def __init__(self, folder: Path, command: tuple[str, ...], begun: str, *, apart: bool) -> None:
        self.folder = folder
        self.port = 0
        self.errors = folder / "stderr.log"
        self._command = command
        self._begun = re.compile(begun, re.DOTALL)
        self._apart = apart
        self._process: subprocess.Popen[str] | None = None
        self.files: tuple[int, int] | None = None
        """How many files it may open: the soft limit, and the hard one."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def start(self, *arguments: str, **environment: str) -> str:
        """Start it; returns what it has printed, once it takes requests."""
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command, "--port", "0", *arguments],
                cwd=self.folder,
                env=clean(self.folder, **environment),
                stdout=subprocess.PIPE,
                stderr=errors if self._apart else subprocess.STDOUT,
                text=True,
                preexec_fn=self._limited if self.files is not None else None,
            )
        assert self._process.stdout is not None
        impatience = threading.Timer(40, self._process.kill)
        impatience.start()
        printed, self.port = "", 0
        for line in self._process.stdout:
            printed += line
            if match := self._begun.search(printed):
                self.port = int(match[1])
                break
        impatience.cancel()
        assert self.port, printed + self.errors.read_text("utf-8")
        return printed

    def _limited(self) -> None:
        assert self.files is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, self.files)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait(self) -> int:
        """Return once it has ended: its exit code."""
        assert self._process is not None and self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(30)

    def stop(self, number: signal.Signals) -> int:
        """Send the signal; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)


class Serve(Process):
    """`cauce serve`, begun once its banner is printed whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("cauce", "serve"), r"http://127\.0\.0\.1:(\d+).*\n +curl .*\n", apart=True)


class Worker(Process):
    """One of several workers of another ASGI server that have one data folder, on a port of its own so that one can choose whom to ask."""

    def __init__(self, folder: Path) -> None:
        command = ("uvicorn", "cauce.asgi:app", "--no-access-log")
        super().__init__(folder, command, r"running on http://127\.0\.0\.1:(\d+)", apart=False)
