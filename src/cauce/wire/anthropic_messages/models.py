"""What models take of this wire's parameters, by name. A new model is an entry here, never a branch in code."""

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

_THREE = ("low", "medium", "high")
_FOUR = (*_THREE, "max")
_FIVE = (*_THREE, "xhigh", "max")


class Traits(msgspec.Struct, frozen=True):
    """What a model takes.

    `sampling`: `temperature`, `top_p` and `top_k` all together, but one of the first two, or none of them. `thinking`: by
    budget, adaptive, or not at all; `silence`: it may be told not to think. `efforts` are its words for effort.
    """

    sampling: Literal["all", "one", "none"]
    thinking: Literal["budget", "adaptive", "none"]
    efforts: tuple[str, ...] = ()
    silence: bool = True


# Sources: Anthropic, "Migration guide" (Opus 4.7 and later take no sampling parameters and no thinking budget; 4.1 to 4.6 take
# `temperature` or `top_p`, not both), "Effort" (which model knows which level), "Adaptive thinking" (4.6 and later). A model
# that is not Anthropic's, behind a server that speaks this wire, is taken for one that knows the long-standing parameters.
_TABLE: tuple[tuple[str, Traits], ...] = (
    ("*claude-3-7*", Traits("all", "budget")),
    ("*claude-[23]*", Traits("all", "none")),
    ("*claude-instant*", Traits("all", "none")),
    ("*claude-opus-4-1*", Traits("one", "budget")),
    ("*claude-opus-4-5*", Traits("one", "budget", _THREE)),
    ("*claude-sonnet-4-5*", Traits("one", "budget")),
    ("*claude-haiku-4-5*", Traits("one", "budget")),
    ("*claude-opus-4-6*", Traits("one", "adaptive", _FOUR)),
    ("*claude-sonnet-4-6*", Traits("one", "adaptive", _FOUR)),
    ("*claude-opus-4-[789]*", Traits("none", "adaptive", _FIVE)),
    ("*claude-opus-4*", Traits("all", "budget")),
    ("*claude-sonnet-4*", Traits("all", "budget")),
    ("*claude-opus-5-5*", Traits("none", "adaptive", _FIVE, silence=False)),
    ("*claude-sonnet-5-5*", Traits("none", "adaptive", _FIVE, silence=False)),
    ("*claude-opus-5*", Traits("none", "adaptive", _FIVE)),
    ("*claude-sonnet-5*", Traits("none", "adaptive", _FIVE)),
    ("*claude-haiku-5*", Traits("none", "adaptive", _FIVE)),
    ("*claude-*", Traits("none", "adaptive", _FIVE, silence=False)),
)
_OTHERS = Traits("all", "budget")


def traits(model: str) -> Traits:
    """What `model` takes. The first entry that fits holds; prefixes that resellers put before a name do not matter."""
    name = model.lower()
    for pattern, known in _TABLE:
        if fnmatchcase(name, pattern):
            return known
    return _OTHERS
