"""What a call will use, estimated before it is asked: the likely tokens, and the most it may cost."""

import msgspec

from cauce.domain.errors import BudgetExceeded
from cauce.domain.price import cost
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator
from cauce.ports.provider import Candidate

MOST_MODELS = 512
"""Models whose usual answers are remembered; the one heard of longest ago is forgotten first."""

UNKNOWN_OUTPUT = 512.0
"""Tokens an answer of a model is thought to have that has not answered yet."""

_NEWEST = 0.1
"""How much the newest answer of a model says of the next one."""

_DOUBT = 1.5
_MORE_DOUBT = 16
"""An input may be half as large again as its estimate, and a few tokens: a budget is held to by what might be."""


class Amounts:
    """`assumed_output` is what an answer is bound to that nobody else bounds, and that a budget has no more room for. Bounded, learned anew
    by each process."""

    def __init__(self, estimator: Estimator, assumed_output: int) -> None:
        self._estimator = estimator
        self.assumed_output = assumed_output
        self._usual: dict[str, float] = {}
        self._last: tuple[Request | None, str, int] = (None, "", 0)

    def input(self, request: Request, model: str) -> int:
        """Input tokens of `request` for `model`. Costs time in proportion to its length, once in a row for one request."""
        last, name, tokens = self._last
        if last is not request or name != model:
            tokens = self._estimator.guess(request, model)
            self._last = (request, model, tokens)
        return tokens

    def tokens(self, request: Request, model: str) -> float:
        """Tokens `request` will likely use: its input, and as much as it lets a model write, else what that usually writes."""
        sampling = request.sampling
        written = sampling.max_tokens if sampling.max_tokens is not None else self._usual.get(model, UNKNOWN_OUTPUT)
        return self.input(request, model) + written * sampling.n

    def most(self, request: Request, candidate: Candidate) -> int | None:
        """The most tokens that an answer to `request` may have, by its own bound or the model's; None where nobody says."""
        if request.sampling.max_tokens is not None:
            return request.sampling.max_tokens
        return candidate.facts.max_output

    def dollars(self, request: Request, candidate: Candidate, written: int) -> float:
        """The most `request` may cost if an answer has `written` tokens. Raises `BudgetExceeded` where nobody knows the price."""
        facts = candidate.facts
        if facts.prices is None:
            raise BudgetExceeded(
                f"the price of {candidate.name} is not known, so no budget can cover it: set its prices in "
                f'[facts."{candidate.name}"], or ask a model whose price is known'
            )
        read = int(self.input(request, candidate.name) * _DOUBT) + _MORE_DOUBT
        return cost(Usage(read, written * request.sampling.n), facts.prices)

    def asked(self, request: Request, candidate: Candidate) -> Usage:
        """What a call used, as far as can be told, that read `request` and has not answered."""
        usage = Usage(self.input(request, candidate.name), estimated=True)
        prices = candidate.facts.prices
        return usage if prices is None else msgspec.structs.replace(usage, cost=cost(usage, prices))

    def learn(self, model: str, usage: Usage) -> None:
        """Take in how long an answer of `model` was."""
        known = self._usual.pop(model, None)
        written = float(usage.output_tokens)
        self._usual[model] = written if known is None else known + (written - known) * _NEWEST
        if len(self._usual) > MOST_MODELS:
            del self._usual[next(iter(self._usual))]
