"""Input tokens estimated per model: what a request weighs, times a factor learned from the usage that providers report."""

from math import ceil, exp, log

from cauce.domain.request import Request
from cauce.domain.tokens import is_text, weigh
from cauce.domain.usage import Usage

MOST_MODELS = 512
"""Models whose factor is kept; the one heard of longest ago is forgotten first."""

_EAGER = 8
_EVERY = 16
"""The first answers of a model are all learned from, then one in so many: a request is weighed again for it."""

_SLOWEST = 0.1
"""How much of the difference a later answer takes back."""

_FAR = log(2)
"""The farthest one answer may be from what was learned before; beyond it, it counts as that far. Caches and hidden prompts lie."""

_FARTHEST = log(6)
"""The farthest a factor may be from 1."""

_SMALL = 100.0
"""Below this weight what providers add by themselves is a large part of a request, so it teaches less."""


class _Factor:
    __slots__ = ("answers", "learned", "log")

    def __init__(self) -> None:
        self.log = 0.0
        self.learned = 0.0
        self.answers = 0


class Estimator:
    """Factors per model, by its name (`provider/model`). Bounded, in memory, learned anew by each process."""

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._most = most
        self._factors: dict[str, _Factor] = {}

    def estimate(self, request: Request, model: str) -> int:
        """Input tokens of `request` for `model`. Costs time in proportion to the length of the request."""
        factor = self._factors.get(model)
        return ceil(weigh(request) * exp(factor.log)) if factor is not None else ceil(weigh(request))

    def due(self, model: str) -> bool:
        """Whether this answer of `model` is one to learn from. Ask once per answer."""
        factor = self._factors.get(model)
        if factor is None:
            return True
        factor.answers += 1
        return factor.answers <= _EAGER or factor.answers % _EVERY == 0

    def learn(self, request: Request, model: str, usage: Usage) -> None:
        """Take in what `request` really was. Does nothing with guesses, and with requests that hold more than text."""
        if usage.estimated or usage.input_tokens <= 0 or not is_text(request):
            return
        weight = weigh(request)
        if weight <= 0:
            return
        factor = self._factors.pop(model, None) or _Factor()
        self._factors[model] = factor
        if len(self._factors) > self._most:
            del self._factors[next(iter(self._factors))]
        apart = log(usage.input_tokens / weight) - factor.log
        if factor.learned >= 1:
            apart = max(-_FAR, min(_FAR, apart))
        share = min(1.0, weight / _SMALL)
        factor.learned += share
        factor.log += apart * share * max(_SLOWEST, 1 / max(1.0, factor.learned))
        factor.log = max(-_FARTHEST, min(_FARTHEST, factor.log))
