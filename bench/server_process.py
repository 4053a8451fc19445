"""Starting a server pinned to a core, waiting for its first right answer, and stopping it again.

It runs in a session of its own with a small environment, its output goes to a file, and only it and its
descendants are ever signalled, by id.
"""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bench import process_tree, traffic
from bench.load import Target
from bench.systems.system import Launch, Unavailable

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""All a measured system inherits. Left out on purpose: provider keys (nobody may find a real upstream) and
PYTHONDONTWRITEBYTECODE (it doubles import times and made one gateway 60 % dearer per request)."""

_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.01


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pinned(core: int | None) -> Generator[None, None, None]:
    """Children started inside inherit the core; None leaves placement to the kernel."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def ask(target: Target, model: str, stream: bool, timeout: float) -> tuple[int, bytes]:
    """One request over a connection of its own: status and whole body. Raises OSError or HTTPException."""
    head, _, body = target.request(model, stream).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[2:]
    headers = dict(line.split(": ", 1) for line in lines)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=timeout)
    try:
        connection.request("POST", target.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class ServerProcess:
    """A started server. `target` is complete once `wait_for_answer` has returned."""

    def __init__(self, launch: Launch, folder: Path, core: int | None) -> None:
        self.target = launch.target
        self._launch = launch
        self._log = folder / "output.log"
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"HOME": str(folder), "PYTHONUNBUFFERED": "1", **launch.environment}
        self._started = time.perf_counter()
        with self._log.open("wb") as log, pinned(core):
            self._process = subprocess.Popen(
                launch.command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_answer(self, patience: float) -> float:
        """Polls the chat path until a plain answer is right; seconds from the start to that answer.

        Raises Unavailable, with the last thing it said, when the server ends or time runs out.
        """
        said = "no connection"
        while time.perf_counter() - self._started < patience:
            if self._process.poll() is not None:
                raise Unavailable(f"ended with code {self._process.returncode}: {self.last_line()}")
            if self._find_address():
                try:
                    status, body = ask(self.target, traffic.PLAIN, stream=False, timeout=patience)
                except (OSError, http.client.HTTPException) as error:
                    said = f"{type(error).__name__}: {error}"
                else:
                    if status == 200:
                        if fault := traffic.fault_in_plain(body):
                            raise Unavailable(f"its first answer was wrong: {fault}")
                        return time.perf_counter() - self._started
                    said = f"status {status}: {body[:200].decode(errors='replace')}"
            time.sleep(_POLL_SECONDS)
        raise Unavailable(f"no right answer within {patience:.0f} s; last: {said}; it printed: {self.last_line()}")

    def _find_address(self) -> bool:
        file = self._launch.port_file
        if file is None or self.target.port:
            return True
        text = file.read_text().strip() if file.exists() else ""
        if text:
            translated = self.target.translated
            if translated is not None:
                translated = replace(translated, port=int(text))
            self.target = replace(self.target, port=int(text), translated=translated)
        return bool(text)

    def last_line(self) -> str:
        """The last line the server printed, shortened."""
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "(nothing)")

    def stop(self) -> None:
        """Ends the server and whatever else is left of its tree; waits until they are gone."""
        known = process_tree.members(self.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)
        known |= process_tree.members(self.pid)
        for pid in process_tree.survivors(known):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
