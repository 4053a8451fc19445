"""How candidates stand at this moment: what orders that are not as listed look at."""

from collections.abc import Sequence

import msgspec

from cauce.domain.price import cost
from cauce.domain.usage import Usage
from cauce.engine.health import Health
from cauce.engine.policies.breaker import Breakers
from cauce.engine.routing.names import Group, Option
from cauce.engine.routing.order import Standing, balanced, best_rated, cheapest, fastest, tiered
from cauce.engine.routing.route import Order
from cauce.engine.routing.rules import Traits
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.ports.provider import Candidate
from cauce.ports.usage import Feedback

ANSWER = 500
"""Tokens that an answer is taken to have when prices are compared, where the request allows as many."""


class Look(msgspec.Struct, frozen=True):
    """One request, as those see it who look at conditions. `completes`: it is a prompt, sent to another endpoint."""

    traits: Traits
    streamed: bool = False
    completes: bool = False


class Conditions:
    """Health, circuits, ratings and chance. Without one of them, all candidates are alike in it."""

    def __init__(
        self,
        clock: Clock,
        chance: Chance,
        health: Health | None = None,
        breakers: Breakers | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self.health = health
        self.breakers = breakers
        self.feedback = feedback

    def resting(self, candidate: Candidate, *, completes: bool = False) -> float:
        """Seconds that the breaker of `candidate` still leaves it alone; 0 when it may be asked, as a probe perhaps."""
        breakers = self.breakers
        endpoint = "completions" if completes else "chat"
        if breakers is None or breakers.state(candidate, endpoint) == "closed":
            return 0.0
        circuit = breakers.of(candidate, endpoint).circuit
        until = circuit.probing_until if circuit.state == "half_open" else circuit.until
        return max(0.0, until - self._clock.monotonic())

    def price(self, option: Option, look: Look) -> float | None:
        """USD that the request is thought to cost there."""
        return price(option.first, look.traits.tokens, look.traits.answer)

    def rating(self, candidate: Candidate) -> float | None:
        """What people think of its answers, 0 to 1."""
        votes = self.feedback.approval(candidate.name) if self.feedback is not None else None
        if votes is None:
            return None
        if votes.up + votes.down:
            return votes.up / (votes.up + votes.down)
        return votes.mean_score

    def deployments(self, group: Group, look: Look) -> tuple[Option, ...]:
        """The options of `group`, best first."""
        if len(group.options) == 1:
            return group.options
        return tuple(balanced([self._option(option, look) for option in group.options], self._chance))

    def arranged(self, groups: Sequence[Group], order: Order, look: Look) -> list[Group]:
        """`groups` in the order of a route that is not as listed."""
        standings = [self._group(group, order, look) for group in groups]
        match order:
            case "balanced":
                return balanced(standings, self._chance)
            case "tiered":
                return tiered(standings)
            case "cheapest":
                return cheapest(standings)
            case "fastest":
                return fastest(standings)
            case "best_rated":
                return best_rated(standings)
            case "ordered" | "hybrid":
                return list(groups)

    def _option(self, option: Option, look: Look) -> Standing[Option]:
        candidate = option.first
        standing = Standing(option, option.weight, open=self.resting(candidate, completes=look.completes) > 0)
        if self.health is not None:
            figures = self.health.figures(candidate, streamed=look.streamed)
            standing.latency, standing.age = figures.latency, figures.age
            standing.under_way, standing.ailing = figures.under_way, figures.ailing
        return standing

    def _group(self, group: Group, order: Order, look: Look) -> Standing[Group]:
        """How a whole entry stands: as its deployments together."""
        each = [self._option(option, look) for option in group.options]
        standing = Standing(group, group.weight, tier=group.tier)
        if len(each) == 1:
            [only] = each
            standing.latency, standing.age, standing.under_way = only.latency, only.age, only.under_way
            standing.ailing, standing.open = only.ailing, only.open
        else:
            known = [(one.latency, one.age) for one in each if one.latency is not None]
            standing.latency, standing.age = min(known, default=(None, 0.0))
            standing.under_way = sum([one.under_way for one in each])
            standing.ailing = all([one.ailing or one.open for one in each])
            standing.open = all([one.open for one in each])
        if order == "cheapest":
            standing.price = self.price(group.options[0], look)
        elif order == "best_rated":
            standing.rating = self.rating(group.options[0].first)
        return standing


def price(candidate: Candidate, tokens: int, max_tokens: int | None) -> float | None:
    """USD that a request of `tokens` is thought to cost; None where no price is known."""
    prices = candidate.facts.prices
    if prices is None:
        return None
    return cost(Usage(tokens, min(max_tokens or ANSWER, ANSWER)), prices)
