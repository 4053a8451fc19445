"""A public model name: whom it stands for, and by what rules they are put in order."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from cauce.ports.provider import Midstream, Overflow, Timeouts
from cauce.ports.resilience import Resilience

Order = Literal["ordered", "tiered", "balanced", "cheapest", "fastest", "best_rated", "hybrid"]
"""How candidates are put in order: as listed; by the tiers of their providers, as `auto` does; by chance and load; by price; by time to the first words; by feedback; by rules."""

Side = Literal["local", "cloud"]
"""Models on this machine, and all others."""

LONG = 4000
"""Tokens from which on a prompt of a hybrid route goes to the cloud, unless the route says otherwise."""

COMPLEX = 0.6
"""Complexity (0 to 1) from which on it does."""


class Route(msgspec.Struct, frozen=True):
    """A public model name: a cascade of candidate names.

    `timeouts` says how long a provider of that name is waited for (None: as long as the provider wants). `weights` are shares under `balanced`, one per candidate (none:
    all alike). The rules, first come first served: `private` leaves out what is not on this machine; `tasks` says per task
    which side, or which candidate, comes first; `long` and `complex` send to the cloud first, `short` to this machine first;
    `prefer` decides where no rule did. `hedge` is seconds after which the next one is asked too; `overflow` is what becomes of
    prompts that are too long.
    """

    name: str
    candidates: tuple[str, ...]
    timeouts: Callable[[str], Timeouts] | None = None
    weights: tuple[float, ...] = ()
    order: Order = "ordered"
    private: bool = False
    tasks: Mapping[str, str] = {}
    short: int | None = None
    long: int | None = None
    complex: float | None = None
    prefer: Side | None = None
    hedge: float | None = None
    overflow: Overflow = "larger"
    midstream: Midstream = "continue"
    resilience: Callable[[str], Resilience] | None = None
    """What it wants the failures of a provider of that name to be met with (None: what the provider wants)."""

    @property
    def ruled(self) -> bool:
        """Whether the order depends on what is asked."""
        given = (self.prefer, self.short, self.long, self.complex)
        return self.order == "hybrid" or bool(self.tasks) or given != (None,) * len(given)
