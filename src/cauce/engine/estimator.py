"""Input tokens estimated per model: what a request weighs, corrected by what providers reported for the last ones.

Two things are learned of a model. Its vocabulary makes more or fewer tokens of a text than the common one: a factor, told by
long requests. And its provider puts something around each request, above all where there are tools: a number of tokens per
kind of request, told by short ones. Both are medians of the last few answers, so that a cached prompt that the request only
names, or a hidden one, moves them once it is the rule and not before.
"""

from collections import deque
from math import ceil
from statistics import median_high, median_low

from cauce.domain.message import TextPart
from cauce.domain.request import Request
from cauce.domain.tokens import PER_MESSAGE, is_text, weigh
from cauce.domain.usage import Usage

MOST_MODELS = 512
"""Models that are known; the one heard of longest ago is forgotten first."""

_LAST = 9
"""Answers per model and kind of request that medians are made of."""

_EAGER = 8
_EVERY = 16
"""The first answers of a model are all learned from, then one in so many: a request is weighed again for it."""

_LONG = 300.0
_LONG_WITH_MORE = 1000.0
"""Weight from which on what is put around a request hardly matters: without tools and schemas, and with them."""

_FARTHEST = 6.0
"""The farthest a factor may be from 1."""

_LEAST_PER_CHARACTER = 0.1
"""Tokens per character, at least: words of ten letters that are one token each."""

Kind = tuple[bool, bool]
"""Whether a request has tools, and whether its answer has a schema: some providers count schemas, some do not."""


class _Model:
    __slots__ = ("answers", "around", "factor", "per_character", "plain", "ratios", "rests")

    def __init__(self) -> None:
        self.answers = 0
        self.per_character = 0.0
        """Tokens per character of plain requests; 0: not known."""
        self.plain: deque[float] = deque(maxlen=_LAST)
        self.factor = 1.0
        self.around: dict[Kind, float] = {}
        self.ratios: deque[float] = deque(maxlen=_LAST)
        self.rests: dict[Kind, deque[tuple[float, int]]] = {}


class Estimator:
    """What is known of models, by their names (`provider/model`). Bounded, in memory, learned anew by each process."""

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._most = most
        self._models: dict[str, _Model] = {}

    def estimate(self, request: Request, model: str) -> int:
        """Input tokens of `request` for `model`. Costs time in proportion to the length of the request."""
        weight = weigh(request)
        known = self._models.get(model)
        if known is None:
            return ceil(weight)
        # What came as tokens is as many in every vocabulary.
        ids = request.prompt.tokens if request.prompt is not None else 0
        return max(1, ceil((weight - ids) * known.factor + ids + known.around.get(_kind(request), 0.0)))

    def guess(self, request: Request, model: str) -> int:
        """As `estimate`, but a request of ASCII texts alone is only measured, where the model has answered such ones: a microsecond
        instead of several. What is in the texts, words or figures, then makes no difference.
        """
        known = self._models.get(model)
        characters = _plain_characters(request) if known is not None and known.per_character else 0
        if not characters or known is None:
            return self.estimate(request, model)
        return ceil(characters * known.per_character + PER_MESSAGE * len(request.messages))

    def due(self, model: str) -> bool:
        """Whether this answer of `model` is one to learn from. Ask once per answer."""
        known = self._models.get(model)
        if known is None:
            return True
        known.answers += 1
        return known.answers <= _EAGER or known.answers % _EVERY == 0

    def learn(self, request: Request, model: str, usage: Usage) -> None:
        """Take in what `request` really was. Does nothing with guesses, and with requests that hold more than text."""
        if usage.estimated or usage.input_tokens <= 0 or not is_text(request):
            return
        weight = weigh(request)
        if weight <= 0:
            return
        known = self._models.pop(model, None) or _Model()
        self._models[model] = known
        if len(self._models) > self._most:
            del self._models[next(iter(self._models))]
        if characters := _plain_characters(request):
            ratio = (usage.input_tokens - PER_MESSAGE * len(request.messages)) / characters
            known.plain.append(min(1.0, max(_LEAST_PER_CHARACTER, ratio)))
            known.per_character = median_high(known.plain)
        kind = _kind(request)
        if weight >= (_LONG_WITH_MORE if any(kind) else _LONG):
            known.ratios.append(max(1 / _FARTHEST, min(_FARTHEST, usage.input_tokens / weight)))
            known.factor = median_low(known.ratios)
        else:
            known.rests.setdefault(kind, deque(maxlen=_LAST)).append((weight, usage.input_tokens))
        for each, rests in known.rests.items():
            known.around[each] = median_low([tokens - known.factor * light for light, tokens in rests])


def _plain_characters(request: Request) -> int:
    """Characters of a request that is made of ASCII texts alone; 0 for any other."""
    if request.tools or request.response_format is not None:
        return 0
    prompt = request.prompt
    if prompt is not None and (prompt.tokens or prompt.suffix):
        return 0
    characters = 0
    for message in request.messages:
        for part in message.parts:
            if type(part) is not TextPart or not part.text.isascii():
                return 0
            characters += len(part.text)
    return characters


def _kind(request: Request) -> Kind:
    return bool(request.tools), request.response_format is not None and request.response_format.schema is not None
