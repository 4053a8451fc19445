"""What a run does: how many streams at how many nodes, for how long, and what is done to them."""

from collections.abc import Sequence

import msgspec

from cauce.testing.chaos.beneath import Backing
from cauce.testing.chaos.faults import NodeFault, Rates
from cauce.testing.chaos.node import FILLABLE, SERVE, Ground, Store, goes_by_leases
from cauce.testing.chaos.reader import WIRES, Wire

_PAUSE = 25
"""Milliseconds between two pieces of an answer."""

CALLS = 0.3
RESTARTS = 0.25
KEYED = 0.2
BACKGROUND = 0.1
EARLY_CANCELS = 0.05
KEPT = 0.15
"""Parts of the streams of a run that hurts everything."""

_LEASES = 5
"""Leases that a run takes in which one node is silent for longer than one, while another goes on with answers that last."""

_TAKES = {"sqlite": 150, "memory": 500}
"""Bytes that a piece of an answer takes at most in the store, with answers that are begun anew."""


class Settings(msgspec.Struct, frozen=True):
    """`seconds` bounds the run from the first stream on. Each answer has `pieces` pieces, `pause` milliseconds apart, `length` characters.

    `harm` says how often nodes are hurt, and how. `wires` are those of further readers, in turns. `stalled` readers take nothing: they
    are of the streams in turns. `calls` is the part of the streams that call tools, `restarts` that of those that begin anew where they
    break. Of the others `keyed` are begun by calls with a key, `background` as responses in the background, and `early_cancels` are
    cancelled before they are begun; `kept` ask a provider that keeps what it says.
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
    keyed: float = 0.0
    background: float = 0.0
    early_cancels: float = 0.0
    kept: float = 0.0
    command: Sequence[str] = SERVE
    backing: Backing | None = None
    """What can be done to the store itself."""
    loses: bool = False
    """The store may lose what it acknowledged, and then says so: readers that are told read anew."""
    tight: bool = False
    """The store may not have room, or keep them for long enough: streams that have ended may be gone when they are read once more."""
    away: float | None = None
    """Seconds that what is done to a node lasts, roughly (None: a lease). With less than a lease nobody takes over from who is paused."""
    memory: int = 600_000

    @property
    def keeps(self) -> bool:
        """Whether streams outlive their server."""
        return self.ground.store != "memory"


def shortest(store: Store, nodes: int, lease: float) -> float:
    """Seconds that a run has to take for takeovers to be judged: they wait for leases (0: for none)."""
    return _LEASES * lease if goes_by_leases(store, nodes) else 0.0


def lasting(ground: Ground, seconds: float, streams: int, nodes: int, seed: int) -> Settings:
    """A run that hurts everything for about so many seconds.

    Where that is less than the `shortest`, no node is killed, nor paused for as long as a lease. Nodes that keep their streams in memory
    share nothing, so that there is one.
    """
    nodes = 1 if ground.store == "memory" else nodes
    leased, judged = ground.leased(nodes), seconds >= shortest(ground.store, nodes, ground.lease)
    keeps = ground.store != "memory"
    # What goes with its server has to come anew after that.
    life, spread = max(2.0, (0.6 if keeps else 0.2) * seconds), (0.2 if keeps else 0.6) * seconds
    often = max(1, round(seconds / 12))
    harm: dict[NodeFault, int] = {"kill": often, "stop": often, "terminate": 1}
    if nodes > 1:
        harm["kill at takeover"] = max(1, often // 3)
    if not judged:
        harm = {"stop": often, "terminate": 1}
    if ground.store == "sqlite":
        harm["lock the file"] = often
        if FILLABLE and judged:
            harm["fill the disk"] = max(1, often // 2)
    settings = ground.settings
    bound = 2 * seconds + 30 + settings.drain + (3 * ground.lease if leased else 0.0)
    pieces = int(life * 1000 / _PAUSE)
    takes = streams * pieces * _TAKES.get(ground.store, 0)
    plain = all([route.midstream == "continue" for route in settings.routes])
    return Settings(
        ground,
        streams,
        nodes,
        seconds=bound,
        seed=seed,
        length=12 * pieces,
        pieces=pieces,
        pause=_PAUSE,
        spread=spread,
        harm=harm,
        away=ground.lease if leased and judged else min(2.0, max(0.5, seconds / 10)),
        wires=WIRES[1:],
        stalled=min(10, streams),
        calls=CALLS,
        restarts=RESTARTS if plain else 0.0,
        keyed=KEYED,
        background=BACKGROUND,
        early_cancels=EARLY_CANCELS if keeps else 0.0,
        kept=KEPT if plain else 0.0,
        tight=takes > _room(ground) / 2 or min(settings.streams.retention, settings.streams.retention_api) < bound,
    )


def _room(ground: Ground) -> int:
    """Bytes that streams may take all together."""
    streams = ground.settings.streams
    return streams.max_bytes if ground.store == "memory" else streams.max_disk
