"""Hurting nodes: they are killed, paused for longer than a lease, told to end, and killed again as they take over; their clocks jump.
What they stand on is hurt by `beneath`."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncGenerator, Callable, Sequence

from cauce.testing.chaos.beneath import Beneath
from cauce.testing.chaos.bounds import Outage
from cauce.testing.chaos.faults import Faults, Planned
from cauce.testing.chaos.invariants import Violation
from cauce.testing.chaos.node import Node
from cauce.testing.chaos.plan import Settings

_PAUSE_ALONE = 1.0
_JUMP = 60.0
"""Seconds that a clock jumps."""

_LOOK = 0.05
"""Seconds after which it is looked again whether there was power all the time."""

_KILLED = 0.5
"""How often a node is killed while its disk is full: what it gave to readers must be there all the same."""


class Harm:
    """Does to nodes what is planned. `broken` is set when that went wrong, as when a node does not start: `settle` raises it.

    Nothing is done before the caller sets `read`: what nobody has seen anything of cannot be missed.
    """

    def __init__(self, faults: Faults, settings: Settings, ending: Callable[[], None] | None = None) -> None:
        """`ending` is called just before a node is killed, or told to end."""
        ground = settings.ground
        self.broken = asyncio.Event()
        self.read = asyncio.Event()
        self._outages: list[Outage] = []
        self._found: list[Violation] = []
        self._faults = faults
        self._ending = ending
        self._away = ground.lease if settings.away is None else settings.away
        self._outlasts = self._away >= ground.lease
        self._tick = ground.tick
        self._beneath = Beneath(faults, ground.file(alone=settings.nodes == 1), settings.backing)
        self._busy: dict[str, asyncio.Lock] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def outages(self) -> tuple[Outage, ...]:
        """When nodes did not work."""
        return (*self._outages, *self._beneath.outages)

    @property
    def found(self) -> Sequence[Violation]:
        """What must not have come of it."""
        return (*self._found, *self._beneath.found)

    async def follow(self, planned: Sequence[Planned], nodes: Sequence[Node]) -> None:
        """Do what is planned, from when something is `read`: where machines are slow, that is late."""
        loop = asyncio.get_running_loop()
        await self.read.wait()
        began = loop.time()
        for number, plan in enumerate(planned):
            # Nothing is written without power: a cut that came right after another one would take nothing.
            due = began + plan.at
            while due > loop.time():
                await asyncio.sleep(min(due - loop.time(), _LOOK))
                due = began + plan.at + self._beneath.without()
            chance = self._faults.chance("harm", number)
            task = asyncio.create_task(self._do(plan, nodes, chance))
            task.add_done_callback(self._done)
            self._tasks.append(task)

    def _done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self.broken.set()

    async def settle(self, hurting: "asyncio.Task[None]", nodes: Sequence[Node]) -> None:
        """Plan nothing more, and have all nodes run again. Raises what went wrong."""
        hurting.cancel()
        await asyncio.gather(hurting, return_exceptions=True)
        await asyncio.gather(*self._tasks)
        for node in nodes:
            if not node.runs:
                self._died(node)
                await node.start()

    async def _do(self, plan: Planned, nodes: Sequence[Node], chance: random.Random) -> None:
        node = nodes[plan.node]
        match plan.fault:
            case "lock the file":
                await self._beneath.lock(nodes, chance.uniform(0.3, 2 * self._away))
            case "fill the disk":
                async with self._all(nodes):
                    killed = [node] if chance.random() < _KILLED else []
                    await self._beneath.fill(nodes, chance.uniform(0.5, 2 * self._away), killed)
            case "power loss":
                async with self._all(nodes):
                    await self._beneath.cut_power(nodes)
            case "store away" | "lose the tail":
                await self._beneath.take_away(nodes, chance.uniform(0.3, 1.5), whole=plan.fault == "store away")
            case _:
                await self._hurt(plan, node, nodes, chance)

    async def _hurt(self, plan: Planned, node: Node, nodes: Sequence[Node], chance: random.Random) -> None:
        alone = len(nodes) == 1
        async with self._lock(node):
            match plan.fault:
                case "kill":
                    await self._down(node, signal.SIGKILL, 0.0 if alone else chance.uniform(0, 1.5 * self._away))
                case "terminate":
                    await self._down(node, signal.SIGTERM, 0.0)
                case "stop":
                    await self._pause(node, _PAUSE_ALONE if alone else self._pause_of(chance))
                case "kill at takeover":
                    await self._down(node, signal.SIGKILL, 0.0 if alone else self._away * (1 + chance.random()))
                case _:
                    await self._jump(node, chance.choice((-_JUMP, _JUMP)), chance.uniform(0.5, 2 * self._away))
        if plan.fault == "kill at takeover":
            # Whoever has taken over has begun to go on just now.
            await asyncio.sleep(chance.uniform(0, 0.3))
            heir = node if alone else _other(node, nodes, chance)
            async with self._lock(heir):
                await self._down(heir, signal.SIGKILL, 0.0)

    @contextlib.asynccontextmanager
    async def _all(self, nodes: Sequence[Node]) -> AsyncGenerator[None, None]:
        """Nothing else is done to any of them."""
        async with contextlib.AsyncExitStack() as stack:
            for node in nodes:
                await stack.enter_async_context(self._lock(node))
            yield

    async def _jump(self, node: Node, seconds: float, stays: float) -> None:
        """Move its clock, and back. A node that ended meanwhile would leave leases that are as far off as its clock was."""
        self._faults.count("clock jump")
        begin = asyncio.get_running_loop().time()
        node.move_clock(seconds)
        await asyncio.sleep(stays)
        node.move_clock(0.0)
        await asyncio.sleep(2 * self._tick)
        end = asyncio.get_running_loop().time()
        self._outages.append(Outage(node.name, begin, end, paused=True, beneath=True))

    def _pause_of(self, chance: random.Random) -> float:
        """Seconds that one of several is paused: for longer than a lease, or for less."""
        return (2 * self._away if self._outlasts else 0.0) + chance.uniform(0.5, 1.5) * (
            1 if self._outlasts else self._away
        )

    def _lock(self, node: Node) -> asyncio.Lock:
        """One thing at a time is done to a node."""
        return self._busy.setdefault(node.name, asyncio.Lock())

    async def _down(self, node: Node, number: signal.Signals, away: float) -> None:
        """End `node`, and start it again `away` seconds later."""
        loop = asyncio.get_running_loop()
        if not node.runs:
            self._died(node)
            await node.start()
            return
        self._faults.count("SIGTERM" if number == signal.SIGTERM else "SIGKILL")
        begin = loop.time()
        index = len(self._outages)
        self._outages.append(Outage(node.name, begin, float("inf"), paused=False))
        if self._ending is not None:
            self._ending()
        node.send(number)
        await node.gone()
        if number != signal.SIGKILL:
            # What it held is nobody's from now on; and since it was told it has taken nothing.
            self._outages.append(Outage(node.name, begin, loop.time(), paused=True, beneath=True))
            begin = loop.time()
        await asyncio.sleep(away)
        await node.start()
        self._outages[index] = Outage(node.name, begin, node.ready_at, paused=False)

    def _died(self, node: Node) -> None:
        """Whoever ends a node here starts it again before anything else is done to it."""
        self._found.append(Violation("I11", "", f"{node.name} has ended by itself"))

    async def _pause(self, node: Node, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._faults.count("SIGSTOP")
        begin = loop.time()
        node.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        node.send(signal.SIGCONT)
        self._outages.append(Outage(node.name, begin, loop.time(), paused=True))


def _other(node: Node, nodes: Sequence[Node], chance: random.Random) -> Node:
    return chance.choice([one for one in nodes if one is not node])
