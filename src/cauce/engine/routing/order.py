"""Putting candidates in order: by tier, by chance and load, by price, by time, by feedback. Whoever is not well comes last."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from cauce.ports.chance import Chance

T = TypeVar("T")

BETTER = 1.5
"""How many times as loaded the one drawn first must be for the other to be taken: below that, weights decide alone."""

NOISE = 0.05
"""Seconds below which times are alike: what is shorter tells of connections more than of models."""

FADES = 15.0
"""Seconds in which half of what makes one slower than the others is forgotten."""


class Standing(msgspec.Struct, Generic[T]):
    """One to be put in order. `latency` is seconds to its first delta, `tier` its place in `auto`, `price` USD for this call, `rating` 0 to 1."""

    item: T
    weight: float = 1.0
    latency: float | None = None
    age: float = 0.0
    """Seconds since the latency was measured."""
    under_way: int = 0
    ailing: bool = False
    open: bool = False
    """Its breaker is open."""
    tier: tuple[int, int] = (0, 0)
    price: float | None = None
    rating: float | None = None

    @property
    def illness(self) -> int:
        """0: well, 1: it failed a moment ago, 2: it is left alone for now."""
        return 2 if self.open else 1 if self.ailing else 0


def balanced(standings: Sequence[Standing[T]], chance: Chance) -> list[T]:
    """Two are drawn by weight, and the first one leads unless the other has clearly less to do (the power of two choices).

    The others follow, the least loaded first. What has to be done is measured in seconds: the time to a first delta, times the
    calls that are in front of one more (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
    """
    if len(standings) == 1:
        return [standings[0].item]
    usual = _usual_latency(standings)
    share = sum([one.weight for one in standings]) / len(standings)

    def load(one: Standing[T]) -> float:
        # Whoever was slow is not asked, and so not measured: what is held against it fades.
        excess = 0.0 if one.latency is None else (max(one.latency, NOISE) - usual) * 0.5 ** (one.age / FADES)
        return (usual + excess) * (1.0 + one.under_way * share / one.weight)

    health = min([one.illness for one in standings])
    drawable = [one for one in standings if one.illness == health]
    leader = _drawn(drawable, chance)
    if len(drawable) > 1:
        other = _drawn([one for one in drawable if one is not leader], chance)
        if load(leader) > BETTER * load(other):
            leader = other
    rest = sorted([one for one in standings if one is not leader], key=lambda one: (one.illness, load(one)))
    return [leader.item, *[one.item for one in rest]]


def tiered(standings: Sequence[Standing[T]]) -> list[T]:
    """The lowest tier first; those of one tier in the order they are listed."""
    return _by(standings, lambda one: one.tier)


def cheapest(standings: Sequence[Standing[T]]) -> list[T]:
    """The lowest price first; those without a price last, in the order they are listed."""
    return _by(standings, lambda one: (one.price is None, one.price or 0.0))


def fastest(standings: Sequence[Standing[T]]) -> list[T]:
    """The lowest latency first. One that nobody has measured lately leads, if nobody is just about to; else it comes last."""
    return _by(
        standings,
        lambda one: (0 if one.under_way == 0 else 2, 0.0) if one.latency is None else (1, one.latency),
    )


def best_rated(standings: Sequence[Standing[T]]) -> list[T]:
    """The best rating first; those without one last, in the order they are listed."""
    return _by(standings, lambda one: (one.rating is None, -(one.rating or 0.0)))


def _by(standings: Sequence[Standing[T]], key: Callable[[Standing[T]], tuple[float, float]]) -> list[T]:
    return [one.item for one in sorted(standings, key=lambda one: (one.illness, *key(one)))]


def _drawn(standings: Sequence[Standing[T]], chance: Chance) -> Standing[T]:
    """One of `standings`, by weight."""
    if len(standings) == 1:
        return standings[0]
    point = chance.random() * sum([one.weight for one in standings])
    for one in standings:
        point -= one.weight
        if point < 0:
            return one
    return standings[-1]


def _usual_latency(standings: Sequence[Standing[T]]) -> float:
    """What stands for a latency that nobody has measured: the lowest one known, so that it will be."""
    known = [one.latency for one in standings if one.latency is not None]
    return max(NOISE, min(known)) if known else 1.0
