"""Workers of another ASGI server that have one data folder, each on a port of its own so that one can choose whom to ask."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.e2e.process import clean


class Worker:
    """`uvicorn cauce.asgi:app` in `folder`, which is its home too; ended when the block is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self.stop(signal.SIGKILL)
            assert self._process.stderr is not None
            self._process.stderr.close()

    def start(self, **environment: str) -> None:
        """Returns once it takes requests."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "cauce.asgi:app", "--port", "0", "--no-access-log"],
            cwd=self.folder,
            env=clean(self.folder, **environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        impatience = threading.Timer(40, self._process.kill)
        impatience.start()
        told = ""
        for line in self._process.stderr:
            told += line
            if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                break
        impatience.cancel()
        assert self.port, told

    def stop(self, number: signal.Signals) -> int:
        """Send the signal; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)
