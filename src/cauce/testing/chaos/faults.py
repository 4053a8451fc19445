"""What goes wrong, and when: everything is drawn from one seed, by names, so that a run can be made again with the same faults.

What a fault meets depends on timing all the same: two runs of one seed inject the same and need not end the same.
"""

import random
from typing import Literal

import msgspec

ProviderFault = Literal[
    "none",
    "refuse 429",
    "refuse 500",
    "reset",
    "end of file",
    "error event",
    "stall",
    "garbage",
    "repeat the end",
    "begin anew",
    "refuse prefill",
]
"""What the oracle does to an answer. The last three are about one that is to be gone on with."""

_PROVIDER: tuple[ProviderFault, ...] = (
    "refuse 429",
    "refuse 500",
    "reset",
    "reset",
    "end of file",
    "error event",
    "stall",
    "garbage",
    "repeat the end",
    "begin anew",
    "refuse prefill",
)

WireFault = Literal["none", "latency", "reset", "cut", "throttle", "half-open"]
_WIRE: tuple[WireFault, ...] = ("latency", "reset", "cut", "throttle", "half-open")

NodeFault = Literal[
    "kill",
    "stop",
    "terminate",
    "kill at takeover",
    "lock the file",
    "fill the disk",
    "move the clock",
    "power loss",
    "store away",
    "lose the tail",
]
"""What is done to a node, or to what all of them stand on. Clocks are moved only where nodes look at `Node.clock`, and the last three
need a `Backing`."""


class Rates(msgspec.Struct, frozen=True):
    """How often: parts of one per answer of the provider, connection to it, connection of a client, and stream."""

    provider: float = 0.35
    upstream: float = 0.05
    client: float = 0.25
    cancel: float = 0.12
    duplicate: float = 0.25
    drop: float = 1.0
    """Drops of the reader that drops, per second."""
    sweep: float = 0.0
    """Streams that are made old once they have ended, while they are read. It takes nodes that sweep often."""


CALM = Rates(0, 0, 0, 0, 0, 0)


class Planned(msgspec.Struct, frozen=True):
    """A fault of a node, `at` seconds after the beginning."""

    at: float
    node: int
    fault: NodeFault


class Wire(msgspec.Struct, frozen=True):
    """What is done to one connection: after `after` bytes towards the client, or `seconds` late."""

    fault: WireFault = "none"
    after: int = 0
    seconds: float = 0.0


class Faults:
    """Draws from the seed. `injected` counts what was really done."""

    def __init__(self, seed: int, rates: Rates) -> None:
        self.seed = seed
        self.rates = rates
        self.injected: dict[str, int] = {}

    def chance(self, *names: object) -> random.Random:
        """A source of its own for what `names` name."""
        return random.Random(repr((self.seed, *names)))  # noqa: S311  (it shall come again)

    def count(self, what: str, amount: int = 1) -> None:
        """It was done."""
        self.injected[what] = self.injected.get(what, 0) + amount

    def provider(self, stream: str, n: int) -> tuple[ProviderFault, float]:
        """What happens to the nth answer of `stream`, and after which part of what is left of it."""
        chance = self.chance("provider", stream, n)
        if chance.random() >= self.rates.provider:
            return "none", 1.0
        return chance.choice(_PROVIDER), chance.random() * 0.7

    def wire(self, side: str, n: int) -> Wire:
        """What happens to the nth connection at `side`."""
        chance = self.chance("wire", side, n)
        rate = self.rates.client if side.startswith("client") else self.rates.upstream
        if chance.random() >= rate:
            return Wire()
        return Wire(chance.choice(_WIRE), chance.randint(100, 30_000), chance.uniform(0.02, 0.3))

    def nodes(self, wanted: dict[NodeFault, int], nodes: int, begin: float, end: float) -> list[Planned]:
        """When which node is hurt, between `begin` and `end`: in turns, with a random part of each turn between two."""
        chance = self.chance("nodes")
        kinds: list[NodeFault] = []
        for fault, count in wanted.items():
            one: list[NodeFault] = [fault]
            kinds += one * count
        chance.shuffle(kinds)
        step = (end - begin) / max(1, len(kinds))
        return [
            Planned(begin + step * (number + 0.6 * chance.random()), chance.randrange(nodes), kind)
            for number, kind in enumerate(kinds)
        ]
