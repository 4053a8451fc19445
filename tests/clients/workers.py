"""Client programs that stay running: a line of JSON in is a case, a line of JSON out what the client saw."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from tests.clients.node import HERE, Node

ROOT = HERE.parent.parent
CASE_SECONDS = 30


class Given(msgspec.Struct, frozen=True):
    """Where a client is to ask, with which key and for which model; `more` is for its script."""

    base_url: str
    api_key: str = "any"
    model: str = "up/m"
    more: dict[str, Any] = {}
    refused: bool = False
    """Whether the case is expected to fail, and the error is what the client saw."""


class Worker:
    """One running script."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, case: str, given: Given) -> Any:
        """What the client saw. Starts the script if it does not run yet."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=HERE,
                env=clean_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=16 * 1024 * 1024,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        asked = {"case": case, **msgspec.to_builtins(given), **given.more}
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), CASE_SECONDS)
        except TimeoutError:
            await self.stop()
            raise AssertionError(f"{case}: the client did not answer within {CASE_SECONDS} s") from None
        if not line:
            await self.stop()
            raise AssertionError(f"{case}: {' '.join(self._command)} ended; what it said is above")
        answer = json.loads(line)
        if "failed" in answer:
            raise AssertionError(f"{case}: the client failed:\n{answer['failed']}")
        return answer["result"]

    async def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.communicate()


def clean_environment() -> dict[str, str]:
    """What client programs get: no keys, no proxies, nothing they call home about."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.environ.get("HOME", ""),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "LANGSMITH_TRACING": "false",
        "AI_SDK_LOG_WARNINGS": "false",
    }


def python_of(environment: str) -> Path:
    """The interpreter of a locked environment; fails with what to do if it is not installed."""
    interpreter = ROOT / f".venv-{environment}" / "bin" / "python"
    assert interpreter.is_file(), f"there is no {interpreter}: run `make test-clients`, which installs it"
    return interpreter


def python_worker(environment: str, name: str) -> Worker:
    """A script of `py/`."""
    return Worker((str(python_of(environment)), str(HERE / "py" / name)))


def node_worker(node: Node, name: str) -> Worker:
    """A script of `js/`."""
    return Worker((node.node, str(HERE / "js" / name)))


class Workers:
    """The running clients, each started when it is first asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running: dict[tuple[str, str], Worker] = {}

    def of(self, environment: str, script: str) -> Worker:
        """The worker of a script in an environment."""
        found = self._running.get((environment, script))
        if found is None:
            started = node_worker(self._node, script) if environment == "node" else python_worker(environment, script)
            found = self._running[environment, script] = started
        return found

    async def stop(self) -> None:
        """End all of them."""
        for worker in self._running.values():
            await worker.stop()
