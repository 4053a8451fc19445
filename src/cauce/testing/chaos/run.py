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

from cauce.testing.chaos.aging import Aging, gone, unknown
from cauce.testing.chaos.bounds import Bounds
from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.harm import Harm
from cauce.testing.chaos.http import Answer, Broken, told
from cauce.testing.chaos.invariants import Violation, judge
from cauce.testing.chaos.judged import judged
from cauce.testing.chaos.kinds import kind_of
from cauce.testing.chaos.ledgers import Billed, ledgers
from cauce.testing.chaos.node import KEPT, RESTART, Node, model
from cauce.testing.chaos.oracle import Oracle, question
from cauce.testing.chaos.plan import Settings
from cauce.testing.chaos.proxy import Proxy
from cauce.testing.chaos.reader import WIRES, Reader, Wire, lifetimes, stall
from cauce.testing.chaos.report import Nodes, Report, report
from cauce.testing.chaos.story import Cancel, Oddity, Story
from cauce.testing.chaos.ways import Asked, asked, standing

_SLACK = 0.7
_LOOK = 0.05
_REPLAYS = 6
_REPLAY = 15.0
_REPLAYING = 60.0
"""Seconds that one late replay may take, and all of them together."""

_ANSWER = 5.0
"""Seconds in which a cancel is answered."""

_ABSENT = 1.0
"""Seconds that a reader stays away for at most, where what it has read may be lost meanwhile."""

_ASKS = 100
"""How often it is asked how a stream stands, until somebody says it."""


async def chaos(settings: Settings) -> Report:
    """Run. Raises RuntimeError when a node does not start."""
    faults = Faults(settings.seed, settings.rates)
    run = _Run(settings, faults)
    began = time.monotonic()
    async with run.standing():
        await run.live()
    stories = run.stories
    for story in stories:
        story.attempts = run.oracle.of(story.name)
    bounds = run.bounds()
    found = [violation for story in stories for violation in judge(story, bounds)]
    found += [Violation("I3", noted.stream, noted.message) for noted in run.oracle.noted]
    for node in run.nodes:
        if node.most_memory > bounds.memory:
            found.append(Violation("I10", "", f"node {node.name} had {node.most_memory} kB"))
    found += run.found
    memory = {node.name: node.most_memory for node in run.nodes}
    nodes = Nodes(memory, bounds, judged(stories, bounds, settings))
    return report(_told(settings), faults.injected, stories, found, nodes, time.monotonic() - began)


def _told(settings: Settings) -> dict[str, Any]:
    """The parameters, for the report: no folder, no address."""
    told: dict[str, Any] = {name: getattr(settings, name) for name in settings.__struct_fields__}
    told["rates"] = msgspec.to_builtins(settings.rates)
    ground = told.pop("ground")
    told["store"] = ground.store
    told |= ground.settings.facts()
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
        ending = None if settings.keeps else self._forget
        self._harm = Harm(faults, settings, ending)
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
                node = Node(name, settings.command, folder, config, settings.ground.settings.drain)
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
        bills = await ledgers([node.port for node in self.nodes], time.time())
        for story in self.stories:
            story.billed = bills.get(story.name, Billed())
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
        alone, leased = settings.nodes == 1, settings.ground.leased(settings.nodes)
        # Taking over all that a node left is work, as starting is: where that is slow, this is.
        taking = max(1.0, *[2 * node.slowest_start for node in self.nodes])
        return Bounds(
            slack=_SLACK + 2 * self._lag,
            renewal=3.0 if alone else settings.ground.tick,
            takeover=taking + (settings.ground.lease + 2 * settings.ground.tick if leased else 0.0),
            alone=alone,
            lease=settings.ground.lease if leased else 0.0,
            memory=settings.memory,
            settings=settings.ground.settings,
            keeps=settings.keeps,
            outages=self._harm.outages,
            loses=settings.loses,
        )

    async def _live(self, number: int, began: float) -> None:
        """One stream: its readers, its repeated requests, its cancel."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        name = f"{self._name}-{number}"
        chance = self._faults.chance("life", number)
        await asyncio.sleep(max(0.0, began + settings.spread * chance.random() - loop.time()))
        kind = kind_of(self._faults, settings, number)
        routes = settings.ground.settings.routes
        place = self._faults.chance("route", number).randrange(len(routes))
        midstream = "restart" if kind.restarts else routes[place].midstream
        wanted = RESTART if kind.restarts else KEPT if kind.kept else model(place)
        restarts = midstream == "restart"
        said = question(name, kind.length, settings.pieces, settings.pause, kind.calls)
        leaves = wanted == model(place) and routes[place].leaves
        way = "stream" if restarts else kind.way
        ours = asked(way, name, wanted, said, calls=bool(kind.calls), stays=not leaves)
        story = Story(ours.stream, kind.length, loop.time(), kind.calls, restarts, midstream, leaves, name=name)
        # A response in the background is read on a wire that can take text back.
        story.may_restart = way == "background" and midstream == "continue"
        self.stories.append(story)
        if way != "stream":
            self._faults.count(way)
        if kind.early:
            await self._cancel_early(story, ours, chance)
        dropping = self._reader(story, "dropping reader", self._somewhere(chance, hurt=True), ours.wire, asks=True)
        if settings.loses:
            # What it has read may be lost, and written anew and as long, before it is back.
            absences = self._faults.chance("absences", number)
            dropping.away = lambda: absences.uniform(0, _ABSENT)
        following = [
            asyncio.create_task(dropping.follow(lifetimes(self._faults, number, settings.rates.drop), ours.begun))
        ]
        further = settings.wires[number % max(1, len(settings.wires)) :][:1]
        wires: tuple[Wire, ...] = (*settings.steady, *further)
        for index, wire in enumerate(wires):
            reader = self._reader(
                story, f"steady {wire} reader {index}", self._somewhere(chance, hurt=False), wire, asks=False
            )
            following.append(asyncio.create_task(reader.follow(lambda: None)))
        life = settings.pieces * settings.pause / 1000
        aside: list[asyncio.Task[None]] = []
        if chance.random() < settings.rates.cancel:
            aside.append(asyncio.create_task(self._cancel(story, ours, life * 1.1 * chance.random(), chance)))
        if chance.random() < settings.rates.duplicate:
            aside.append(asyncio.create_task(self._repeat(story, ours, life * chance.random(), chance)))
        for _ in range(number, settings.stalled, settings.streams):
            held = await stall(story.stream, self._somewhere(chance, hurt=False), lambda: story.forgotten is None)
            if held is not None:
                self._stalled.append(held)
        try:
            await asyncio.gather(*following)
            if story.cancelling and aside:
                # Its readers may know of it before who has sent it.
                await asyncio.wait(aside, timeout=_ANSWER)
        finally:
            for task in (*following, *aside):
                task.cancel()
            await asyncio.gather(*following, *aside, return_exceptions=True)
        swept = self._faults.chance("sweep", number).random() < settings.rates.sweep and story.ended is not None
        # What could not be replayed now, since nodes were away, is replayed in the end.
        if swept and await self._late(story):
            await self._aging.outlive(story, self._somewhere(self._faults.chance("late", number), hurt=False))

    async def _cancel_early(self, story: Story, ours: Asked, chance: random.Random) -> None:
        """Have some node told that the stream, which is not there yet, is cancelled."""
        loop = asyncio.get_running_loop()
        story.cancelling = True
        while True:
            node, sent = chance.choice(self.nodes), loop.time()
            with contextlib.suppress(Broken):
                status, _ = await told(node.port, *ours.cancelled_by, _ANSWER)
                if status == 404:
                    self._faults.count("early cancel")
                    # Nothing but its beginning is written.
                    story.cancels.append(Cancel(sent, loop.time(), node.name, "", 1))
                    return
            await asyncio.sleep(0.1)

    async def _cancel(self, story: Story, ours: Asked, after: float, chance: random.Random) -> None:
        await asyncio.sleep(after)
        loop = asyncio.get_running_loop()
        story.cancelling = True
        for _ in range(20):
            node = chance.choice(self.nodes)
            sent = loop.time()
            with contextlib.suppress(Broken):
                status, body = await told(node.port, *ours.cancelled_by, _ANSWER)
                if status == 200:
                    self._faults.count("cancel")
                    story.cancels.append(Cancel(sent, loop.time(), node.name, *standing(body)))
                    return
                if status not in (404, 503):
                    story.odd.append(Oddity("I6", f"a cancel was answered with {status}"))
                    return
            await asyncio.sleep(0.1)

    async def _repeat(self, story: Story, ours: Asked, after: float, chance: random.Random) -> None:
        """Send the request that made the stream once more, and read a while."""
        await asyncio.sleep(after)
        again = self._reader(story, "repeated request", self._somewhere(chance, hurt=False), ours.wire, asks=True)
        self._faults.count("repeated request")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5 + 2 * chance.random()):
                await again.follow(lambda: None, ours.begun)

    def _reader(self, story: Story, name: str, port: Callable[[], int], wire: Wire = "native", *, asks: bool) -> Reader:
        """One more reader of the stream, who `asks` for it or only follows it."""
        reader = self._mild(Reader(story.stream, name, port, wire, replaces=asks and story.restarts))
        reader.over = lambda: story.ended is not None
        reader.reads_anew, reader.forgotten = self.settings.loses, story.forgotten is not None
        story.readers.append(reader)
        return reader

    def _mild(self, reader: Reader) -> Reader:
        """What the settings make of any reader."""
        reader.expects_end = self.settings.tight
        reader.silence = max(reader.silence, 1.5 * self.settings.ground.settings.streams.heartbeat)
        return reader

    def _forget(self) -> None:
        """The node ends, and all it has with it."""
        now = asyncio.get_running_loop().time()
        for story in self.stories:
            story.forgotten = now if story.forgotten is None else story.forgotten
            for reader in story.readers:
                reader.forgotten = True

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
                if story.forgotten is not None:
                    await unknown(story, self.nodes)
                elif story.swept:
                    await gone(story, self.nodes)
                else:
                    await self._late(story)

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
            reader = self._mild(Reader(story.stream, f"late {wire} replay", lambda: next(self._turns).port, wire))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPLAY if story.ended is not None else 2):
                    await reader.follow(lambda: None)
            if reader.sent_away and reader.expects_end:
                # There was no room for it.
                story.forgotten = asyncio.get_running_loop().time()
                story.replays.clear()
                return False
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
