"""Where a request goes and why, as a value: what is routed by is what is explained."""

from typing import Literal

import msgspec

from cauce.engine.routing.route import Order
from cauce.ports.provider import Candidate

Rule = Literal["privacy", "task", "long", "complex", "short", "prefer"]
Absence = Literal["away", "unlisted", "privacy", "prompt", "window", "after"]
"""Why one that is listed is not asked: its server is away; it has no default model and told none; it is not on this machine; it cannot go on with a prompt; the request is
too long for it; or was too long for one before, which ends the matter."""


Why = Literal[
    "listed", "tier", "rule", "behind", "balanced", "cheapest", "fastest", "best_rated", "deployment", "asked", "resort"
]
"""Why a candidate stands where it does: as listed; by its tier; first, or behind, by a rule; by the order of the route; as
another deployment of the one before it; because the request names it; as the last resort."""


class Fired(msgspec.Struct, frozen=True):
    """A rule that decided. `value` is what it saw: the task, tokens, the complexity; `first` is what it put first."""

    rule: Rule
    first: str
    value: str | float | None = None
    bound: float | None = None


class LeftOut(msgspec.Struct, frozen=True):
    """One that is listed and will not be asked."""

    name: str
    reason: Absence
    deployment: str = ""


class Decision(msgspec.Struct, frozen=True):
    """`candidates`, best first; `model` is the name that was asked for, aliases resolved; `order` how it puts its candidates in order."""

    asked: str
    model: str
    order: Order
    private: bool
    candidates: tuple[Candidate, ...]
    whys: tuple[Why, ...]
    """Why each of them stands where it does."""
    rules: tuple[Fired, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
