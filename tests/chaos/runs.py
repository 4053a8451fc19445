"""The runs of `make chaos` and `make chaos-long`, and the table of the mutants that must be caught."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cauce.testing.chaos import CALM, INVARIANTS, Ground, NodeFault, Rates, Report, Settings, chaos
from cauce.testing.chaos.beneath import Backing
from cauce.testing.chaos.node import FILLABLE
from cauce.testing.chaos.plan import BACKGROUND, CALLS, EARLY_CANCELS, KEPT, KEYED, RESTARTS
from cauce.testing.chaos.reader import WIRES
from cauce.testing.chaos.settings import with_streams
from tests.chaos.forgetting import Forgetting
from tests.chaos.mutants import CATCHABLE, NONE, Mutant
from tests.chaos.power import Disk
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "chaos.md"

_BEGIN, _END = "<!-- mutants -->\n", "<!-- end of mutants -->\n"
_LEASE = 1.0
"""Seconds, of the runs that are aimed at mutants: the shortest that can be configured."""

LONG_STORES = ("sqlite", "postgres", "redis", "sqlite-normal")
"""The last one does not wait for the disk."""

LONG_AT_LEAST = {
    "events": 1_000_000,
    "SIGKILL": 30,
    "SIGSTOP": 30,
    "bytes lost by power loss": 1,
    "readers told of a loss": 1,
}
"""What the long runs on all stores have to come to together: one in which little was hurt proves little."""

SHORT_AT_LEAST = {
    "streams": 60,
    "events": 40_000,
    **dict.fromkeys(("SIGKILL", "SIGSTOP", "SIGTERM", "cancel", "client drop", "provider reset", "provider stall"), 1),
    **dict.fromkeys(("clock jump", "locked file", "sweep"), 1),
    **(dict.fromkeys(("full disk", "full disk, told by /health"), 1) if FILLABLE else {}),
    **dict.fromkeys(("exact", "restarted", "calls ready"), 1),
    **dict.fromkeys(("keyed chat", "keyed messages", "background", "attached again"), 1),
    **dict.fromkeys([name for name in INVARIANTS if name != "I10"], 1),
}
"""What the short run has to come to: streams, events, faults of each kind, seams, and something that each invariant is about. Readers that
take nothing have a run of their own."""


def too_little(found: Report) -> list[str]:
    """What the short run came to too little of: one in which little was hurt proves little."""
    came_to = {"streams": found.streams, "events": found.events, **found.faults, **found.seams, **found.judged}
    return [
        f"{what} ({came_to.get(what, 0):,} of {least:,})"
        for what, least in SHORT_AT_LEAST.items()
        if came_to.get(what, 0) < least
    ]


def _node(mutant: Mutant) -> Sequence[str]:
    return (sys.executable, "-m", "tests.chaos.node", mutant.name)


SHIPPED = _node(NONE)
"""Nodes as they are shipped, but that their clocks can be moved, that they sweep often, and that it is known what they have synced."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """For nodes, as short as paths of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        yield Path(name)


def short(ground: Ground, seed: int = 1) -> Settings:
    """The short run: one node, everything else."""
    return Settings(
        ground,
        streams=60,
        seconds=60.0,
        seed=seed,
        pieces=240,
        length=3000,
        pause=25,
        spread=2.0,
        harm={"kill": 3, "stop": 1, "terminate": 1, "lock the file": 1, "fill the disk": 1, "move the clock": 1},
        rates=Rates(sweep=0.1),
        command=SHIPPED,
        wires=WIRES[1:],
        stalled=5,
        calls=CALLS,
        restarts=RESTARTS,
        keyed=KEYED,
        background=BACKGROUND,
        kept=KEPT,
    )


def shared(ground: Ground, seed: int = 3) -> Settings:
    """A brief run of two nodes that share a store: of each way to begin a stream some, and a kill and a pause among them."""
    return Settings(
        ground,
        streams=12,
        nodes=2,
        seconds=30.0,
        seed=seed,
        pieces=60,
        length=900,
        pause=25,
        spread=0.6,
        harm={"kill": 1, "stop": 1},
        rates=Rates(upstream=0.0, client=0.1, cancel=0.1),
        command=SHIPPED,
        wires=WIRES[1:],
        calls=CALLS,
        keyed=0.3,
        background=0.2,
        early_cancels=0.15,
        kept=0.5,
    )


SHARED_AT_LEAST = ("SIGKILL", "SIGSTOP", "early cancel", "background", "attached again")
"""What that run has to come to."""


_OF_STORES: dict[str, dict[NodeFault, int]] = {
    "sqlite": {"lock the file": 2, "fill the disk": 2, "power loss": 2, "move the clock": 2},
    "postgres": {"move the clock": 3},
    "redis": {"store away": 3, "move the clock": 3},
}


def long(ground: Ground, seed: int, backing: Backing | None = None) -> Settings:
    """The long run: two hundred streams at two nodes that take over from each other."""
    return Settings(
        ground,
        streams=200,
        nodes=2,
        seconds=400.0,
        seed=seed,
        pieces=700,
        length=9000,
        pause=130,
        spread=20.0,
        harm={"kill": 8, "stop": 11, "terminate": 1, "kill at takeover": 2, **_OF_STORES[ground.store]},
        rates=Rates(sweep=0.05),
        command=SHIPPED,
        backing=backing,
        window=(0.05, 0.95),
        wires=WIRES[1:],
        stalled=20,
        calls=CALLS,
        restarts=RESTARTS,
        keyed=KEYED,
        background=BACKGROUND,
        kept=KEPT,
        # By the clock of a node that is a minute ahead, such a cancel is forgotten.
        early_cancels=EARLY_CANCELS if ground.store != "sqlite" else 0.0,
    )


def long_losing(ground: Ground, seed: int, backing: Backing | None = None) -> Settings:
    """The long run of a store that may lose its newest when the power goes: what a run makes old would be young again, so nothing is. Only our own
    wire says which epoch a reader has read."""
    return msgspec.structs.replace(
        long(ground, seed, backing),
        streams=120,
        seconds=200.0,
        pieces=400,
        length=5200,
        spread=12.0,
        harm={"kill": 3, "stop": 3, "kill at takeover": 1, "lock the file": 1, "power loss": 4},
        rates=Rates(),
        wires=(),
        keyed=0.0,
        background=0.0,
        loses=True,
    )


def away(ground: Ground, backing: Backing) -> Settings:
    """A server of streams that dies, and comes back with everything."""
    return Settings(
        ground,
        streams=12,
        nodes=2,
        seconds=25.0,
        length=1000,
        pieces=60,
        pause=40,
        spread=0.7,
        rates=msgspec.structs.replace(CALM, drop=1.0),
        harm={"store away": 2},
        wires=WIRES[1:],
        backing=backing,
    )


def losing(ground: Ground, backing: Backing) -> Settings:
    """A server of streams that dies, and has forgotten the newest of them. Only our own wire says which epoch a reader has read."""
    run = msgspec.structs.replace(away(ground, backing), harm={"lose the tail": 1}, wires=(), loses=True)
    return msgspec.structs.replace(run, window=(0.3, 0.6))


async def caught(mutant: Mutant) -> Report:
    """The run that is aimed at `mutant`."""
    command = _node(mutant)
    with folder() as name:
        streams = msgspec.structs.replace(mutant.settings.streams, lease=_LEASE)
        there = Ground("sqlite", name, settings=msgspec.structs.replace(mutant.settings, streams=streams))
        disk = Disk(there.file(alone=mutant.run.get("nodes", 1) == 1))
        return await chaos(Settings(there, command=command, backing=disk, **mutant.run))


@contextlib.contextmanager
def standing(store: str, lease: float = 2.0) -> Iterator[tuple[Ground, Backing | None]]:
    """A store of its own, for several nodes, and what can be done to it."""
    settings = with_streams(lease=lease)
    with folder() as there:
        match store:
            case "postgres":
                with running_postgres() as url:
                    yield Ground("postgres", there, url, settings=settings), None
            case "redis":
                with running_redis(there) as server:
                    yield Ground("redis", there, server.url, settings=settings), Forgetting(server, there)
            case _:
                settings = with_streams(lease=lease, synchronous="normal" if store == "sqlite-normal" else "full")
                ground = Ground("sqlite", there, settings=settings)
                yield ground, Disk(ground.file(alone=False))


@contextlib.contextmanager
def alone() -> Iterator[Ground]:
    """For one node, a file of its own."""
    with folder() as there:
        yield Ground("sqlite", there)


def told(found: Report) -> str:
    """A run in a few lines."""
    faults = ", ".join([f"{count} {name}" for name, count in found.faults.items()])
    lines = [
        f"{found.streams} streams, {found.events:,} events, {found.connections:,} connections, {found.attempts} requests to the "
        f"provider, {found.seconds:.0f} s: {len(found.violations)} violations",
        f"  ended: {found.outcomes}",
        f"  faults: {faults}",
        f"  went on: {found.seams}",
        f"  kept readers waiting: {found.delays}",
        f"  judged: {found.judged}",
    ]
    lines += [f"  {one.invariant} {one.stream}: {one.message}" for one in found.violations[:20]]
    return "\n".join(lines)


def table() -> str:
    """Which mutant breaks what, in Markdown."""
    rows = [f"| {mutant.name} | {mutant.rule} | {', '.join(mutant.caught)} |\n" for mutant in CATCHABLE]
    return "| the mutant | the rule it breaks | caught by |\n|---|---|---|\n" + "".join(rows)


def invariants() -> str:
    """What must hold, in Markdown."""
    rows = [f"| {name} | {meaning} |\n" for name, meaning in INVARIANTS.items()]
    return "| | what must hold |\n|---|---|\n" + "".join(rows)


def reference(text: str) -> str:
    """`text` of the reference with both tables as they are now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{invariants()}\n{table()}{_END}{after}"
