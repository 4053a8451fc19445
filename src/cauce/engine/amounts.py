"""What a call will use, estimated before it is asked: the likely tokens, and the most it may cost."""

from typing import Any

import msgspec

from cauce.domain.errors import BudgetExceeded
from cauce.domain.extra import Extra
from cauce.domain.message import OpaquePart, Part
from cauce.domain.price import Prices, cost
from cauce.domain.request import Request
from cauce.domain.tool import OpaqueTool, Tool
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

_encode = msgspec.json.Encoder().encode
_MARK, _FOR, _FOR_MINUTES = b'"cache_control"', b'"ttl"', b'"ttl":"5m"'
"""As Anthropic's wire says that a cache is to be written, and for how long (its guide "Prompt caching")."""


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
        usage = Usage(read, written * request.sampling.n)
        most = cost(usage, facts.prices)
        for tokens, kept in _written(request, facts.prices, read):
            into = msgspec.structs.replace(usage, cache_write_tokens=tokens, long_cache_write_tokens=kept)
            most = max(most, cost(into, facts.prices))
        return most

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


def _written(request: Request, prices: Prices, read: int) -> tuple[tuple[int, int], ...]:
    """What of `read` tokens may be written to the provider's cache at a price of its own: for minutes and for longer, and of that for longer.

    Where a price for longer is known, whoever asks says for how long (`cache_control`), and nothing is written that nobody asks for. Elsewhere a
    provider may write by itself.
    """
    rates = prices.rates
    if rates.cache_write == rates.input and rates.long_cache_write == rates.input:
        return ()
    if rates.long_cache_write == rates.cache_write:
        return ((read, 0),)
    marks = _cache_marks(request)
    return ((read, 0), (read, read)) if marks.longer else ((read, 0),) if marks.any else ()


class _Marks(msgspec.Struct, frozen=True):
    any: bool
    longer: bool


def _cache_marks(request: Request) -> _Marks:
    """Whether `request` has something cached, and for longer than the usual minutes: in fields that ride along."""
    raw = [request.extra, *[message.extra for message in request.messages], *[_told(tool) for tool in request.tools]]
    raw += [_told(part) for message in request.messages for part in message.parts]
    marked = False
    for one in raw:
        if one is None:
            continue
        told = _encode(one)
        if _MARK in told:
            marked = True
            if told.count(_FOR) > told.count(_FOR_MINUTES):
                return _Marks(any=True, longer=True)
    return _Marks(marked, longer=False)


def _told(one: Part | Tool | OpaqueTool) -> Extra | dict[str, Any] | None:
    """The fields of `one` that ride along."""
    return one.data if isinstance(one, OpaquePart | OpaqueTool) else one.extra
