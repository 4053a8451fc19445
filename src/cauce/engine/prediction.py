"""The use case: what a request would cost, before anything is sent."""

from typing import Literal

import msgspec

from cauce.domain.histogram import percentiles
from cauce.domain.model import ModelFacts
from cauce.domain.price import FREE, Prices, cost
from cauce.domain.usage import Usage as Used
from cauce.engine.estimator import Estimator
from cauce.ports.provider import Call, Candidate
from cauce.ports.tokenizer import Tokenizer
from cauce.ports.usage import Query, Usage

LOOK_BACK = 14 * 86400.0
"""Seconds whose answers say how long answers are."""

_ENOUGH = 5
"""Completed answers of a model that tell how long its answers are."""

_USUAL = (16, 400, 2000)
"""Tokens of a short, a common and a long answer, where nothing is known."""


class Range(msgspec.Struct, frozen=True):
    """From the least to the most that is likely."""

    low: float
    expected: float
    high: float


class Predicted(msgspec.Struct, frozen=True):
    """What one candidate would take. `cost` is USD, None where no price is known; `exact`: the input was counted."""

    candidate: Candidate
    input_tokens: int
    exact: bool
    output_tokens: Range
    cost: Range | None

    @property
    def cost_source(self) -> Literal["priced", "estimated", "unpriced"]:
        """As of an answer: what costs nothing is no estimate."""
        if self.cost is None:
            return "unpriced"
        return "priced" if self.candidate.facts.prices is FREE else "estimated"


class Prediction:
    """Tells what a call would cost at each of its candidates."""

    def __init__(self, estimator: Estimator, tokenizer: Tokenizer | None, usage: Usage) -> None:
        self._estimator = estimator
        self._tokenizer = tokenizer
        self._usage = usage

    async def predict(self, call: Call, now: float) -> tuple[Predicted, ...]:
        """By candidate, in the order in which they would be asked. `now` is a UNIX time."""
        told = await self._usage.report(Query(call.scope.tenant, now - LOOK_BACK, now, ("model",)))
        answers = {group.by[0]: group.spread.output for group in told.groups}
        return tuple(
            [await self._one(call, candidate, answers.get(candidate.name, {})) for candidate in call.candidates]
        )

    async def _one(self, call: Call, candidate: Candidate, answers: dict[int, int]) -> Predicted:
        request, facts = call.request, candidate.facts
        counted = await self._tokenizer.count(request, candidate.model) if self._tokenizer is not None else None
        given = counted if counted is not None else self._estimator.estimate(request, candidate.name)
        made = _made(answers, _most(call, facts, given), request.sampling.n)
        prices = facts.prices
        dollars = None
        if prices is not None:
            dollars = Range(*[_dollars(prices, given, tokens) for tokens in (made.low, made.expected, made.high)])
        return Predicted(candidate, given, counted is not None, made, dollars)


def _made(answers: dict[int, int], most: int | None, times: int) -> Range:
    """The tokens of an answer: what nine in ten answers of the model are, within what it may be at most."""
    if sum(answers.values()) >= _ENOUGH:
        low, expected, high = [round(value or 0) for value in percentiles(answers, (0.05, 0.5, 0.95))]
    else:
        low, expected, high = _USUAL
        high = high if most is None else most
    bound = high if most is None else most
    return Range(min(low, bound) * times, min(expected, bound) * times, min(high, bound) * times)


def _most(call: Call, facts: ModelFacts, given: int) -> int | None:
    """The most tokens that the answer may have; None where nobody says."""
    room = None if facts.context_window is None else max(1, facts.context_window - given)
    bounds = [most for most in (call.request.sampling.max_tokens, facts.max_output, room) if most is not None]
    return min(bounds) if bounds else None


def _dollars(prices: Prices, given: int, made: float) -> float:
    return cost(Used(given, round(made)), prices)
