"""A `cauce serve` process, watched through its output."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path


def clean(home: Path, **environment: str) -> dict[str, str]:
    """An environment with nothing of the developer's in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        "CAUCE_DISCOVERY__ENABLED": "false",
        **environment,
    }


class Serve:
    """Started on a free port in `folder`; ended when the block is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.errors = folder / "stderr.log"
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Serve":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def start(self, *arguments: str, **environment: str) -> str:
        """Start it; returns its banner, once it is printed whole."""
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cauce", "serve", "--port", "0", *arguments],
                cwd=self.folder,
                env=clean(self.folder, **environment),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        impatience = threading.Timer(20, self._process.kill)
        impatience.start()
        banner = ""
        for line in self._process.stdout:
            banner += line
            if line.strip().startswith("curl "):
                break
        impatience.cancel()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", banner)
        assert match is not None, banner + self.errors.read_text("utf-8")
        self.port = int(match[1])
        return banner

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
