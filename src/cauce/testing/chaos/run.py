"""A run of chaos: nodes, provider, proxies and readers are started, hurt as the seed says, and judged by what must hold."""

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec

from cauce.testing.chaos.aging import Aging, gone
from cauce.testing.chaos.beneath import Backing
from cauce.testing.chaos.calls import TOOLS
from cauce.testing.chaos.faults import Faults, NodeFault, Rates
from cauce.testing.chaos.harm import Harm
from cauce.testing.chaos.http import Answer, Broken, told
from cauce.testing.chaos.invariants import Bounds, Violation, judge
from cauce.testing.chaos.node import FILLABLE, SERVE, Ground, Node
from cauce.testing.chaos.oracle import Oracle, question
from cauce.testing.chaos.proxy import Proxy
from cauce.testing.chaos.reader import WIRES, Reader, Wire, lifetimes, stall
from cauce.testing.chaos.report import Nodes, Report, report
from cauce.testing.chaos.story import Cancel, Oddity, Story

_SLACK = 0.7
_LOOK = 0.05
_PAUSE = 25
"""Milliseconds between two pieces of an answer."""

CALLS = 0.3
RESTARTS = 0.25
"""Parts of the streams of a run that hurts everything."""

_MOST_CALLS = 3
_WITHOUT_TEXT = 0.25
"""Part of the answers with calls that say nothing before them."""

_REPLAYS = 6
_REPLAY = 15.0
_REPLAYING = 60.0
"""Seconds that one late replay may take, and all of them together."""

_ASKS = 100
"""How often it is asked how a stream stands, until somebody says it."""


class Settings(msgspec.Struct, frozen=True):
    """`seconds` bounds the run from the first stream on. Each answer has `pieces` pieces, `pause` milliseconds apart, `length` characters.

    `harm` says how often nodes are hurt, and how. `wires` are those of further readers, in turns. `stalled` readers take nothing: they
    are of the streams in turns. `calls` is the part of the streams that call tools, `restarts` that of those that begin anew where they
    break.
    """

    ground: Ground
    streams: int = 60
    nodes: int = 1
    seconds: float = 60.0
    seed: int = 1
    length: int = 3000
    pieces: int = 260
    pause: int = 25
    spread: float = 3.0
    rates: Rates = Rates()
    harm: dict[NodeFault, int] = {}
    window: tuple[float, float] = (0.25, 0.85)
    """Between which parts of the time that answers take nodes are hurt."""
    wires: tuple[Wire, ...] = ()
    steady: tuple[Wire, ...] = ("native",)
    """Of readers of each stream that never leave by themselves."""
    stalled: int = 0
    calls: float = 0.0
    restarts: float = 0.0
    command: Sequence[str] = SERVE
    backing: Backing | None = None
    """What can be done to the store itself."""
    loses: bool = False
    """The store may lose what it acknowledged, and then says so: readers that are told read anew."""
    goes_on: bool = True
    memory: int = 600_000


def lasting(ground: Ground, seconds: float, streams: int, nodes: int, seed: int) -> Settings:
    """A run that hurts everything for about so many seconds."""
    life = max(2.0, 0.6 * seconds)
    often = max(1, round(seconds / 12))
    harm: dict[NodeFault, int] = {"kill": often, "stop": often, "terminate": 1}
    if nodes > 1:
        harm["kill at takeover"] = max(1, often // 3)
    if ground.store == "sqlite":
        harm["lock the file"] = often
        if FILLABLE:
            harm["fill the disk"] = max(1, often // 2)
    pieces = int(life * 1000 / _PAUSE)
    return Settings(
        ground,
        streams,
        nodes,
        seconds=2 * seconds + 30,
        seed=seed,
        length=12 * pieces,
        pieces=pieces,
        pause=_PAUSE,
        spread=0.2 * seconds,
        harm=harm,
        wires=WIRES[1:],
        stalled=min(10, streams),
        calls=CALLS,
        restarts=RESTARTS,
    )


async def chaos(settings: Settings) -> Report:
    """Run. Raises RuntimeError when a node does not start."""
    faults = Faults(settings.seed, settings.rates)
    run = _Run(settings, faults)
    began = time.monotonic()
    async with run.standing():
        await run.live()
    stories = run.stories
    for story in stories:
        story.attempts = run.oracle.of(story.stream)
    bounds = run.bounds()
    found = [violation for story in stories for violation in judge(story, bounds)]
    found += [Violation("I3", noted.stream, noted.message) for noted in run.oracle.noted]
    for node in run.nodes:
        if node.most_memory > bounds.memory:
            found.append(Violation("I10", "", f"node {node.name} had {node.most_memory} kB"))
    found += run.found
    nodes = Nodes({node.name: node.most_memory for node in run.nodes}, bounds.outages)
    return report(_told(settings), faults.injected, stories, found, nodes, time.monotonic() - began)


def _told(settings: Settings) -> dict[str, Any]:
    """The parameters, for the report: no folder, no address."""
    told: dict[str, Any] = {name: getattr(settings, name) for name in settings.__struct_fields__}
    told["rates"] = msgspec.to_builtins(settings.rates)
    told["store"] = told.pop("ground").store
    del told["command"], told["backing"]
    return told


class _Run:
    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings = settings
        self.oracle = Oracle(faults)
        self.nodes: list[Node] = []
        self.stories: list[Story] = []
        self._faults = faults
        # Streams of an earlier run may still be in the store.
        self._name = f"chaos-{settings.seed}-{secrets.token_hex(4)}"
        self._clients: list[Proxy] = []
        self._harm = Harm(faults, settings.ground, settings.backing, alone=settings.nodes == 1)
        self._aging = Aging(faults, settings.ground, alone=settings.nodes == 1)
        self._lag = 0.0
        self._turns = itertools.cycle(self.nodes)
        self._stalled: list[Answer] = []

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncGenerator[None, None]:
        """Provider, proxies and nodes, up."""
        settings = self.settings
        folder = settings.ground.folder
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.oracle)
            for number in range(settings.nodes):
                name = f"n{number}"
                up = await stack.enter_async_context(Proxy(f"upstream {name}", lambda: self.oracle.port, self._faults))
                config = settings.ground.config(name, up.port, several=settings.nodes > 1)
                node = Node(name, settings.command, folder, config)
                stack.push_async_callback(node.stop)
                self.nodes.append(node)
                client = Proxy(f"client {name}", _port_of(node), self._faults)
                self._clients.append(await stack.enter_async_context(client))
            await asyncio.gather(*[node.start() for node in self.nodes])
            watching = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def live(self) -> None:
        """Everything that happens."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        began = loop.time()
        lives = [asyncio.create_task(self._live(number, began)) for number in range(settings.streams)]
        last = settings.spread + settings.pieces * settings.pause / 1000
        begin, end = settings.window
        planned = self._faults.nodes(settings.harm, settings.nodes, begin * last, end * last)
        hurting = asyncio.create_task(self._harm.follow(planned, self.nodes))
        over = asyncio.gather(*lives, return_exceptions=True)
        broken = asyncio.create_task(self._harm.broken.wait())
        await asyncio.wait({over, broken}, timeout=settings.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (*lives, broken):
            task.cancel()
        await asyncio.gather(over, broken, return_exceptions=True)
        await self._harm.settle(hurting, self.nodes)
        for answer in self._stalled:
            await answer.close(rudely=True)
        if settings.loses:
            await self._look_again()
        await self._replay()
        for task in lives:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @property
    def found(self) -> Sequence[Violation]:
        """What is wrong with nodes."""
        return self._harm.found

    def bounds(self) -> Bounds:
        """What this run has to keep, on this machine."""
        settings = self.settings
        alone = settings.nodes == 1
        # Taking over all that a node left is work, as starting is: where that is slow, this is.
        taking = max(1.0, *[2 * node.slowest_start for node in self.nodes])
        return Bounds(
            slack=_SLACK + 2 * self._lag,
            renewal=3.0 if alone else settings.ground.tick,
            takeover=taking + (0.0 if alone else settings.ground.lease + 2 * settings.ground.tick),
            alone=alone,
            memory=settings.memory,
            budget=settings.ground.attempts,
            goes_on=settings.goes_on,
            outages=self._harm.outages,
        )

    async def _live(self, number: int, began: float) -> None:
        """One stream: its readers, its repeated requests, its cancel."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        stream = f"{self._name}-{number}"
        chance = self._faults.chance("life", number)
        await asyncio.sleep(max(0.0, began + settings.spread * chance.random() - loop.time()))
        length, calls, restarts = self._kind(number)
        said = question(stream, length, settings.pieces, settings.pause, calls)
        body: dict[str, Any] = {"model": "chaos", "messages": [{"role": "user", "content": said}]}
        if calls:
            body["tools"] = TOOLS
        if restarts:
            body["model"] = "chaos-restart"
        story = Story(stream, length, loop.time(), calls, restarts)
        self.stories.append(story)
        dropping = Reader(stream, "dropping reader", self._somewhere(chance, hurt=True), replaces=restarts)
        dropping.reads_anew = settings.loses
        story.readers.append(dropping)
        following = [asyncio.create_task(dropping.follow(lifetimes(self._faults, number, settings.rates.drop), body))]
        further = settings.wires[number % max(1, len(settings.wires)) :][:1]
        wires: tuple[Wire, ...] = (*settings.steady, *further)
        for index, wire in enumerate(wires):
            reader = Reader(stream, f"steady {wire} reader {index}", self._somewhere(chance, hurt=False), wire)
            reader.reads_anew = settings.loses
            story.readers.append(reader)
            following.append(asyncio.create_task(reader.follow(lambda: None)))
        life = settings.pieces * settings.pause / 1000
        aside: list[asyncio.Task[None]] = []
        if chance.random() < settings.rates.cancel:
            aside.append(asyncio.create_task(self._cancel(story, life * 1.1 * chance.random(), chance)))
        if chance.random() < settings.rates.duplicate:
            aside.append(asyncio.create_task(self._repeat(story, body, life * chance.random(), chance)))
        for _ in range(number, settings.stalled, settings.streams):
            if (held := await stall(stream, self._somewhere(chance, hurt=False))) is not None:
                self._stalled.append(held)
        try:
            await asyncio.gather(*following)
        finally:
            for task in (*following, *aside):
                task.cancel()
            await asyncio.gather(*following, *aside, return_exceptions=True)
        swept = self._faults.chance("sweep", number).random() < settings.rates.sweep and story.ended is not None
        # What could not be replayed now, since nodes were away, is replayed in the end.
        if swept and await self._late(story):
            await self._aging.outlive(story, self._somewhere(self._faults.chance("late", number), hurt=False))

    def _kind(self, number: int) -> tuple[int, int, bool]:
        """How much text the answer of a stream has, how many calls of tools, and whether it begins anew where it breaks."""
        chance, settings = self._faults.chance("kind", number), self.settings
        calls = chance.randint(1, _MOST_CALLS) if chance.random() < settings.calls else 0
        length = 0 if calls and chance.random() < _WITHOUT_TEXT else settings.length
        return length, calls, chance.random() < settings.restarts

    async def _cancel(self, story: Story, after: float, chance: random.Random) -> None:
        await asyncio.sleep(after)
        loop = asyncio.get_running_loop()
        for _ in range(20):
            node = chance.choice(self.nodes)
            sent = loop.time()
            with contextlib.suppress(Broken):
                status, body = await told(node.port, "DELETE", f"/chat/stream/{story.stream}", 5.0)
                if status == 200:
                    self._faults.count("cancel")
                    story.cancels.append(Cancel(sent, loop.time(), node.name, body["state"], body["tail"]))
                    return
                if status not in (404, 503):
                    story.odd.append(Oddity("I6", f"a cancel was answered with {status}"))
                    return
            await asyncio.sleep(0.1)

    async def _repeat(self, story: Story, body: object, after: float, chance: random.Random) -> None:
        """Send the request that made the stream once more, and read a while."""
        await asyncio.sleep(after)
        again = Reader(story.stream, "repeated request", self._somewhere(chance, hurt=False), replaces=story.restarts)
        again.reads_anew = self.settings.loses
        story.readers.append(again)
        self._faults.count("repeated request")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5 + 2 * chance.random()):
                await again.follow(lambda: None, body)

    def _somewhere(self, chance: random.Random, *, hurt: bool) -> Callable[[], int]:
        """A port to connect to, another one each time."""
        if hurt:
            return lambda: chance.choice(self._clients).port
        return lambda: chance.choice(self.nodes).port

    async def _replay(self) -> None:
        """Read every stream once more from the beginning, at all nodes in turns, on each wire that somebody read."""
        slots = asyncio.Semaphore(_REPLAYS)

        async def one(story: Story) -> None:
            async with slots:
                await (gone(story, self.nodes) if story.swept else self._late(story))

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPLAYING):
                await asyncio.gather(*[one(story) for story in self.stories])

    async def _late(self, story: Story) -> bool:
        """Read it from the beginning on each wire, and hear how it stands; whether that was all of it."""
        read = {reader.wire for reader in story.readers}
        wires: list[Wire] = [wire for wire in WIRES if wire in read]
        story.odd += [odd for replay in story.replays for odd in replay.odd]
        story.replays.clear()
        for wire in wires:
            reader = Reader(story.stream, f"late {wire} replay", lambda: next(self._turns).port, wire)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPLAY if story.ended is not None else 2):
                    await reader.follow(lambda: None)
            story.replays.append(reader)
        for _ in range(_ASKS):
            # A node may be away just now: streams that are swept are replayed while the run goes on.
            with contextlib.suppress(Broken):
                status, body = await told(next(self._turns).port, "GET", f"/chat/stream/{story.stream}", 2.0)
                if status == 200:
                    story.state, story.tail = body["state"], body["tail"]
                    return all([reader.ended_at is not None for reader in story.replays])
                if status == 404:
                    return False
            await asyncio.sleep(_LOOK)
        return False

    async def _look_again(self) -> None:
        """Have every reader ask whether what it has still fits. Streams that nobody has anything of any more are forgotten."""
        readers = [reader for story in self.stories for reader in story.readers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPLAY):
                await asyncio.gather(*[reader.look_again() for reader in readers])
        if losses := sum([reader.losses for reader in readers]):
            self._faults.count("readers told of a loss", losses)
        forgotten = [story for story in self.stories if not any([reader.frames for reader in story.readers])]
        if forgotten:
            self._faults.count("forgotten streams", len(forgotten))
            self.stories = [story for story in self.stories if story not in forgotten]

    async def _watch(self) -> None:
        """How late this process itself is, how large the nodes are, and whether anything has been read."""
        loop = asyncio.get_running_loop()
        turn = 0
        while True:
            due = loop.time() + _LOOK
            await asyncio.sleep(_LOOK)
            self._lag = max(self._lag, loop.time() - due)
            if any([reader.frames for story in self.stories for reader in story.readers]):
                self._harm.read.set()
            turn += 1
            if turn % 10 == 0:
                for node in self.nodes:
                    node.look()


def _port_of(node: Node) -> Callable[[], int]:
    return lambda: node.port
