"""Installing peers on demand, each into a folder of its own under `.bench/`, with the ordinary package clients.

A folder carries a stamp with what was asked for; the same request later is answered without installing.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.systems.system import Unavailable

ROOT = Path(__file__).resolve().parents[2] / ".bench"
_SECONDS = 900.0
_STAMP = "installed"


def run_installer(command: list[str], what: str, folder: Path | None = None) -> None:
    """Runs a package client to its end. Raises Unavailable with its last line when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{what} needs `{command[0]}`, which is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"installing {what} took longer than {_SECONDS:.0f} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["(no output)"]
        raise Unavailable(f"installing {what} failed: {lines[-1][:300]}")


def is_installed(folder: Path, request: str) -> bool:
    """Whether `folder` was filled by exactly this request."""
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == request


def begin(folder: Path) -> None:
    """An empty folder in place of whatever was there, an interrupted installation perhaps."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def finish(folder: Path, request: str) -> None:
    (folder / _STAMP).write_text(request)


def python_environment(name: str, requirement: str) -> Path:
    """A virtual environment of its own with one requirement in it; the folder of its commands."""
    folder = ROOT / name
    if not is_installed(folder, requirement):
        begin(folder)
        run_installer([sys.executable, "-m", "venv", str(folder)], f"an environment for {name}")
        python = str(folder / "bin" / "python")
        run_installer([python, "-m", "pip", "install", "--quiet", requirement], requirement)
        finish(folder, requirement)
    return folder / "bin"
