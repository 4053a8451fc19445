"""The runs of `make chaos` and `make chaos-long`, and the table of the mutants that must be caught."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cauce.testing.chaos import INVARIANTS, Ground, Report, Settings, chaos
from cauce.testing.chaos.reader import WIRES
from tests.chaos.mutants import CATCHABLE, Mutant
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "chaos.md"

_BEGIN, _END = "<!-- mutants -->\n", "<!-- end of mutants -->\n"
_LEASE = 1.0
"""Seconds, of the runs that are aimed at mutants: the shortest that can be configured."""

LONG_STORES = ("sqlite", "postgres", "redis")


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
        harm={"kill": 3, "stop": 1, "terminate": 1, "lock the file": 1},
        wires=WIRES[1:],
        stalled=5,
    )


def long(ground: Ground, seed: int) -> Settings:
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
        harm={"kill": 8, "stop": 10, "terminate": 1, "kill at takeover": 2},
        window=(0.05, 0.95),
        wires=WIRES[1:],
        stalled=20,
    )


async def caught(mutant: Mutant) -> Report:
    """The run that is aimed at `mutant`."""
    command = (sys.executable, "-m", "tests.chaos.node", mutant.name)
    with folder() as there:
        return await chaos(Settings(Ground("sqlite", there, lease=_LEASE), command=command, **mutant.run))


@contextlib.contextmanager
def ground(store: str) -> Iterator[Ground]:
    """A store of its own, with a lease of two seconds."""
    with folder() as there:
        match store:
            case "postgres":
                with running_postgres() as url:
                    yield Ground("postgres", there, url)
            case "redis":
                with running_redis() as server:
                    yield Ground("redis", there, server.url)
            case _:
                yield Ground("sqlite", there)


def told(found: Report) -> str:
    """A run in a few lines."""
    faults = ", ".join([f"{count} {name}" for name, count in found.faults.items()])
    lines = [
        f"{found.streams} streams, {found.events:,} events, {found.connections:,} connections, {found.attempts} requests to the "
        f"provider, {found.seconds:.0f} s: {len(found.violations)} violations",
        f"  ended: {found.outcomes}",
        f"  faults: {faults}",
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
