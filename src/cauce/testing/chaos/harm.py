"""Hurting nodes: they are killed, paused for longer than a lease, told to end, and killed again as they take over; somebody else holds
the lock of their file."""

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from cauce.testing.chaos.faults import Faults, Planned
from cauce.testing.chaos.invariants import Outage
from cauce.testing.chaos.node import Ground, Node

_PAUSE_ALONE = 1.0


class Harm:
    """`outages` is what was done."""

    def __init__(self, faults: Faults, ground: Ground, *, alone: bool) -> None:
        self.outages: list[Outage] = []
        self._faults = faults
        self._lease = ground.lease
        self._file = ground.file(alone=alone)
        self._busy: dict[str, asyncio.Lock] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, planned: Sequence[Planned], nodes: Sequence[Node], began: float) -> None:
        """Do what is planned, from `began` on."""
        loop = asyncio.get_running_loop()
        for number, plan in enumerate(planned):
            await asyncio.sleep(max(0.0, began + plan.at - loop.time()))
            chance = self._faults.chance("harm", number)
            self._tasks.append(asyncio.create_task(self._do(plan, nodes, chance)))

    async def settle(self, hurting: "asyncio.Task[None]", nodes: Sequence[Node]) -> None:
        """Plan nothing more, and have all nodes run again. Raises what went wrong."""
        hurting.cancel()
        await asyncio.gather(hurting, return_exceptions=True)
        await asyncio.gather(*self._tasks)
        for node in nodes:
            if not node.runs:
                await node.start()

    async def _do(self, plan: Planned, nodes: Sequence[Node], chance: random.Random) -> None:
        node = nodes[plan.node]
        alone = len(nodes) == 1
        if plan.fault == "lock the file":
            await self._hold(nodes, chance.uniform(0.3, 2 * self._lease))
            return
        async with self._lock(node):
            match plan.fault:
                case "kill":
                    await self._down(node, signal.SIGKILL, 0.0 if alone else chance.uniform(0, 1.5 * self._lease))
                case "terminate":
                    await self._down(node, signal.SIGTERM, 0.0)
                case "stop":
                    await self._pause(node, _PAUSE_ALONE if alone else 2 * self._lease + chance.uniform(0.5, 1.5))
                case "kill at takeover":
                    await self._down(node, signal.SIGKILL, 0.0 if alone else self._lease * (1 + chance.random()))
        if plan.fault == "kill at takeover":
            # Whoever has taken over has begun to go on just now.
            await asyncio.sleep(chance.uniform(0, 0.3))
            heir = node if alone else _other(node, nodes, chance)
            async with self._lock(heir):
                await self._down(heir, signal.SIGKILL, 0.0)

    async def _hold(self, nodes: Sequence[Node], seconds: float) -> None:
        """Have nobody write for a while."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        if await asyncio.to_thread(_held, self._file, seconds):
            self._faults.count("locked file")
            self.outages += [Outage(node.name, begin, loop.time(), paused=True) for node in nodes]

    def _lock(self, node: Node) -> asyncio.Lock:
        """One thing at a time is done to a node."""
        return self._busy.setdefault(node.name, asyncio.Lock())

    async def _down(self, node: Node, number: signal.Signals, away: float) -> None:
        """End `node`, and start it again `away` seconds later."""
        if not node.runs:
            return
        loop = asyncio.get_running_loop()
        self._faults.count("SIGTERM" if number == signal.SIGTERM else "SIGKILL")
        begin = loop.time()
        index = len(self.outages)
        self.outages.append(Outage(node.name, begin, float("inf"), paused=False))
        node.send(number)
        await node.gone()
        # What it held is nobody's from now on.
        begin = begin if number == signal.SIGKILL else loop.time()
        await asyncio.sleep(away)
        await node.start()
        self.outages[index] = Outage(node.name, begin, node.ready_at, paused=False)

    async def _pause(self, node: Node, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._faults.count("SIGSTOP")
        begin = loop.time()
        node.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        node.send(signal.SIGCONT)
        self.outages.append(Outage(node.name, begin, loop.time(), paused=True))


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


def _other(node: Node, nodes: Sequence[Node], chance: random.Random) -> Node:
    return chance.choice([one for one in nodes if one is not node])
