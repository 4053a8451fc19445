"""Node, the packages the lock names, and a browser. What is absent is skipped with its reason, never silently."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cauce.testing.upstream import Upstream
from tests.clients.browser import Browser, browsing
from tests.clients.front import Fronts
from tests.clients.node import HERE, Node, NodeMissing, find_node
from tests.clients.page import Proof, Proved, write
from tests.clients.workers import Workers

INSTALL_SECONDS = 300
PROOF = "proof"
_proofs: set[Proof] = set()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    # Of the session, so that the browser's fixture may live as long: one loop serves all tests here.
    return "asyncio"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture(scope="session")
def node() -> Node:
    """Node with the locked packages installed in `node_modules`."""
    try:
        found = find_node()
    except NodeMissing as missing:
        pytest.skip(str(missing))
    locked = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    mark = HERE / "node_modules" / ".installed-from"
    if not mark.is_file() or mark.read_text() != locked:
        installed = subprocess.run(
            [*found.npm, "ci", "--ignore-scripts"],
            cwd=HERE,
            env={**os.environ, "PATH": f"{Path(found.node).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        assert installed.returncode == 0, f"npm ci failed:\n{installed.stdout}\n{installed.stderr}"
        mark.write_text(locked)
    return found


@pytest.fixture
def proved(record_property: Callable[[str, object], None]) -> Proved:
    """Say that this test, if it passes, has proved a scenario of a client in front of a kind of provider."""

    def prove(client: str, kind: str, scenario: str) -> None:
        record_property(PROOF, (client, kind, scenario))

    return prove


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _proofs.update(proof for name, proof in report.user_properties if name == PROOF)


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus == 0:
        write(_proofs)


@pytest.fixture(scope="session")
async def workers(node: Node) -> AsyncIterator[Workers]:
    """The client programs, which stay running from test to test."""
    running = Workers(node)
    yield running
    await running.stop()


@pytest.fixture(scope="session")
async def fronts() -> AsyncIterator[Fronts]:
    """Running servers, in front of each kind of provider."""
    running = Fronts()
    yield running
    await running.stop()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium, installed if we may."""
    found = shutil.which("chromium")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
            done = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
            )
            if done.returncode != 0:
                pytest.skip(f"there is no chromium, and {' '.join(command)} failed: {done.stderr.strip()[-300:]}")
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no chromium on PATH: install Debian's package `chromium`")
    return found


@pytest.fixture(scope="session")
async def browser(node: Node, chromium: str) -> AsyncIterator[Browser]:
    async with browsing(node, chromium) as running:
        yield running
