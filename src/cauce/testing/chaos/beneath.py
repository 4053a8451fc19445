"""Hurting what nodes stand on: somebody else holds the lock of their file, their disk is full, the power goes, the server that keeps their
streams is away or has forgotten the newest of them."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cauce.testing.chaos.bounds import Outage
from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.http import Broken, told
from cauce.testing.chaos.invariants import Violation
from cauce.testing.chaos.node import Node

_ROOM = 48 * 1024
"""Bytes that files may have while the disk is full: less than a file of streams has that anything was written to."""

_LOOK = 0.1


class Backing(Protocol):
    """What keeps the streams, in the hands of whoever makes the run."""

    async def down(self, *, whole: bool) -> None:
        """It ends at once; if `whole`, so that nothing that it was told is lost."""
        ...

    async def up(self, *, whole: bool) -> int:
        """It is back: with everything, or only with what was safe. Returns how many bytes are lost."""
        ...


class Beneath:
    """`outages` is what was done, `found` what must not have come of it. One thing at a time is done; each returns when it is over."""

    def __init__(self, faults: Faults, file: Path, backing: Backing | None) -> None:
        """`file` is SQLite's."""
        self.outages: list[Outage] = []
        self.found: list[Violation] = []
        self._faults = faults
        self._file = file
        self._backing = backing
        self._busy = asyncio.Lock()
        self._without = 0.0
        self._cut_at: float | None = None

    async def lock(self, nodes: Sequence[Node], seconds: float) -> None:
        """Have nobody write for a while."""
        async with self._busy:
            begin = asyncio.get_running_loop().time()
            if await asyncio.to_thread(_held, self._file, seconds):
                self._faults.count("locked file")
                self._over(nodes, begin)

    async def fill(self, nodes: Sequence[Node], seconds: float, killed: Sequence[Node] = ()) -> None:
        """Have no file grow for a while. The nodes must live through it, and `/health` tells of it; those of `killed` are killed then."""
        async with self._busy:
            begin = asyncio.get_running_loop().time()
            full = [node for node in nodes if node.limit_files(_ROOM)]
            if not full:
                return
            self._faults.count("full disk")
            if await self._told(full, begin + seconds):
                self._faults.count("full disk, told by /health")
            self.found += [
                Violation("I11", "", f"{node.name} has ended, and its disk was only full")
                for node in full
                if not node.runs
            ]
            for node in killed:
                self._faults.count("SIGKILL")
                await self._again(node)
            for node in full:
                node.limit_files(None)
            self._over(full, begin)

    def without(self) -> float:
        """Seconds without power so far."""
        now = asyncio.get_running_loop().time()
        return self._without + (0.0 if self._cut_at is None else now - self._cut_at)

    async def cut_power(self, nodes: Sequence[Node]) -> None:
        """End all nodes at once, and lose what was not safe."""
        if self._backing is None:
            return
        async with self._busy:
            loop = asyncio.get_running_loop()
            begin = self._cut_at = loop.time()
            for node in nodes:
                node.send(signal.SIGKILL)
            await asyncio.gather(*[node.gone() for node in nodes])
            await self._backing.down(whole=False)
            self._lost("power loss", await self._backing.up(whole=False))
            await asyncio.gather(*[node.start() for node in nodes])
            self._without += loop.time() - begin
            self._cut_at = None
            self.outages += [Outage(node.name, begin, node.ready_at, paused=False) for node in nodes]

    async def take_away(self, nodes: Sequence[Node], seconds: float, *, whole: bool) -> None:
        """Have the store be away for a while, and come back with everything, or without its newest."""
        if self._backing is None:
            return
        async with self._busy:
            begin = asyncio.get_running_loop().time()
            await self._backing.down(whole=whole)
            await asyncio.sleep(seconds)
            self._lost("store away" if whole else "lost tail", await self._backing.up(whole=whole))
            self._over(nodes, begin)

    async def _again(self, node: Node) -> None:
        """Kill it, and start it once more."""
        begin = asyncio.get_running_loop().time()
        node.send(signal.SIGKILL)
        await node.gone()
        await node.start()
        self.outages.append(Outage(node.name, begin, node.ready_at, paused=False))

    async def _told(self, nodes: Sequence[Node], until: float) -> bool:
        """Whether `/health` of any of them says that streams cannot be written, looked at until `until`."""
        loop = asyncio.get_running_loop()
        seen = False
        while loop.time() < until:
            await asyncio.sleep(_LOOK)
            for node in nodes:
                try:
                    _, body = await told(node.port, "GET", "/health", 1.0)
                except Broken:
                    continue
                seen = seen or "(gone)" in body.get("stream_log", "")
        return seen

    def _lost(self, what: str, size: int) -> None:
        self._faults.count(what)
        if size:
            self._faults.count(f"bytes lost by {what}", size)

    def _over(self, nodes: Sequence[Node], begin: float) -> None:
        end = asyncio.get_running_loop().time()
        self.outages += [Outage(node.name, begin, end, paused=True, beneath=True) for node in nodes]


def _held(file: Path, seconds: float) -> bool:
    """Hold the lock of a SQLite file; whether it was to be had."""
    if not file.is_file():
        return False
    database = sqlite3.connect(file, timeout=10, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        database.close()
    return True
