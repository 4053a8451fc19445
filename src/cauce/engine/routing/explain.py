"""A dry run: where a request would go, and why, with what is known of each candidate. Nobody is asked.

The decision is the router's own. What is put beside it are the figures it was made from, and what would become of a prompt that is too
long for a candidate.
"""

from collections.abc import Callable

import msgspec

from cauce.domain.request import Request
from cauce.engine.circuits import State
from cauce.engine.estimator import Estimator
from cauce.engine.health import UNHEARD, Figures
from cauce.engine.routing.conditions import price
from cauce.engine.routing.decision import Absence, Fired, LeftOut, Why
from cauce.engine.routing.route import Order
from cauce.engine.routing.router import Router
from cauce.engine.routing.rules import Traits
from cauce.engine.window import Fit, fit, is_measurable
from cauce.ports.provider import Candidate, Overflow

Limits = Callable[[Candidate], tuple[str, ...]]

RULES: dict[str, str] = {
    "privacy": "nothing leaves this machine: models elsewhere and stores that servers share are left out",
    "task": "task {value}: {first} first",
    "long": "the prompt has about {value:g} tokens, {bound:g} or more: {first} first",
    "complex": "the complexity of the prompt is {value:g}, {bound:g} or more: {first} first",
    "short": "the prompt has about {value:g} tokens, {bound:g} or fewer: {first} first",
    "prefer": "no other rule holds: {first} first",
}
"""What a rule that fired says."""

WHYS: dict[Why, str] = {
    "listed": "as listed",
    "tier": "by its tier {tier}",
    "rule": "put first by the rule",
    "behind": "behind what the rule puts first",
    "balanced": "by weight, chance and load; the next request may be drawn otherwise",
    "cheapest": "by its price",
    "fastest": "by the time to its first words",
    "best_rated": "by what people think of its answers",
    "deployment": "another deployment of the one before",
    "asked": "named by the request as a fallback",
    "resort": "the last resort",
}
"""Why a candidate stands where it does."""

ABSENCES: dict[Absence, str] = {
    "away": "its server is not there now",
    "unlisted": "its models could not be listed, so it is not asked until they are",
    "privacy": "it is not on this machine",
    "prompt": "it cannot go on with such a prompt",
    "window": "the request has about {tokens} tokens, and its window {window}",
    "after": "nobody else is asked when the request is too long",
}
"""Why one is left out."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule that fired, in words too. `first` is `local`, `cloud` or a candidate."""

    rule: str
    first: str
    text: str
    value: str | float | None = None
    bound: float | None = None


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """A candidate. `price` is USD for this request, `latency` seconds to its first words lately, `tokens` of the request for it.

    `fits`: into its `window`, beside the answer; a request that does not is treated as `overflow` says.
    """

    name: str
    level: str
    why: Why
    text: str
    local: bool
    tier: int
    tokens: int
    deployment: str = ""
    price: float | None = None
    latency: float | None = None
    under_way: int = 0
    ailing: bool = False
    circuit: State = "closed"
    resting: float = 0.0
    """Seconds its breaker leaves it alone."""
    rating: float | None = None
    window: int | None = None
    fits: bool | None = None
    limits: tuple[str, ...] = ()


class Absent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One that is not asked."""

    name: str
    reason: Absence
    text: str
    deployment: str = ""
    tokens: int | None = None
    window: int | None = None


class Explanation(msgspec.Struct, frozen=True):
    """`candidates` are asked in that order; without one, the request is refused. `model` is what the name that was asked stands for; `complexity` is 0 to 1."""

    asked: str
    model: str
    route: Order
    private: bool
    tokens: int
    complexity: float
    task: str
    overflow: Overflow
    hedge: float | None
    rules: tuple[Told, ...]
    candidates: tuple[Place, ...]
    left_out: tuple[Absent, ...]


class Explainer:
    """`limits` says which limits of ours hold for a candidate, in words."""

    def __init__(self, router: Router, estimator: Estimator, limits: Limits) -> None:
        self._router = router
        self._estimator = estimator
        self._limits = limits

    def explain(self, request: Request, tokens: int | None = None) -> Explanation:
        """Where `request` would go now. `tokens`: to be taken for its length. Raises what `Router.candidates` raises."""
        decision = self._router.decide(request, tokens)
        traits = Traits(request, tokens)
        absent = [_absent(one) for one in decision.left_out]
        places: list[Place] = []
        too_long = refused = False
        for candidate, why in zip(decision.candidates, decision.whys, strict=True):
            stands = self._fit(candidate, request, tokens)
            if refused or (too_long and not places and candidate.level == "offline"):
                absent.append(_absent(LeftOut(candidate.name, "after", candidate.deployment)))
            elif _is_refused(candidate, request, stands):
                too_long = True
                refused = candidate.overflow == "error"
                absent.append(_absent(LeftOut(candidate.name, "window", candidate.deployment), stands))
            else:
                places.append(self._place(candidate, why, request, stands))
        return Explanation(
            decision.asked,
            decision.model,
            decision.order,
            decision.private,
            traits.tokens,
            traits.complexity,
            traits.task,
            decision.candidates[0].overflow,
            decision.candidates[0].hedge,
            tuple([_told(fired) for fired in decision.rules]),
            tuple(places),
            tuple(absent),
        )

    def _fit(self, candidate: Candidate, request: Request, tokens: int | None) -> Fit | int:
        """How `request` stands to the window of `candidate`; its tokens alone where that has none that is known."""
        estimated = self._estimator.estimate(request, candidate.name) if tokens is None else tokens
        window = candidate.facts.context_window
        return estimated if window is None else fit(request, estimated, window)

    def _place(self, candidate: Candidate, why: Why, request: Request, stands: Fit | int) -> Place:
        tokens, window, fits = (
            (stands, None, None) if isinstance(stands, int) else (stands.tokens, stands.window, stands.fits)
        )
        source = self._router.source(candidate.provider.name)
        tier = source.tier if source is not None else 0
        local = self._router.is_here(candidate)
        figures, circuit, resting, rating = self._figures(candidate, request)
        return Place(
            candidate.name,
            candidate.level,
            why,
            WHYS[why].format(tier=tier),
            local,
            tier,
            tokens,
            candidate.deployment,
            price(candidate, tokens, request.sampling.max_tokens),
            figures.latency,
            figures.under_way,
            figures.ailing,
            circuit,
            round(resting, 3),
            rating,
            window,
            fits,
            self._limits(candidate),
        )

    def _figures(self, candidate: Candidate, request: Request) -> tuple[Figures, State, float, float | None]:
        """Health, circuit, seconds it is left alone, rating."""
        conditions = self._router.conditions
        if conditions is None:
            return UNHEARD, "closed", 0.0, None
        completes = request.prompt is not None
        health, breakers = conditions.health, conditions.breakers
        figures = UNHEARD if health is None else health.figures(candidate, streamed=request.stream)
        circuit = "closed" if breakers is None else breakers.state(candidate, "completions" if completes else "chat")
        return figures, circuit, conditions.resting(candidate, completes=completes), conditions.rating(candidate)


def _is_refused(candidate: Candidate, request: Request, stands: Fit | int) -> bool:
    """Whether `request` would not be sent to `candidate`, since it is too long: see `engine.policies.overflow`."""
    if isinstance(stands, int) or candidate.overflow not in ("larger", "error"):
        return False
    return stands.is_hopeless and is_measurable(request)


def _told(fired: Fired) -> Told:
    text = RULES[fired.rule].format(value=fired.value, bound=fired.bound, first=fired.first)
    return Told(fired.rule, fired.first, text, fired.value, fired.bound)


def _absent(one: LeftOut, stands: Fit | int | None = None) -> Absent:
    tokens, window = (stands.tokens, stands.window) if isinstance(stands, Fit) else (None, None)
    text = ABSENCES[one.reason].format(tokens=tokens, window=window)
    return Absent(one.name, one.reason, text, one.deployment, tokens, window)
