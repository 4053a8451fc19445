"""How Gemini models differ, as data."""

from fnmatch import fnmatchcase

import msgspec


class Traits(msgspec.Struct, frozen=True):
    """`levels` are the words for how much to think (empty: a budget in tokens is told); `signed_calls`: calls of earlier turns must
    carry the signature they came with; `preview`: offered by the version v1beta only."""

    levels: tuple[str, ...] = ()
    signed_calls: bool = False
    thinks: bool = True


_ALL = ("minimal", "low", "medium", "high", "xhigh")

# Google, "Thinking" and "Thought signatures": thinkingLevel and mandatory signatures came with Gemini 3, thinkingBudget is
# that of 2.5; models before 2.5 do not think.
_TRAITS: tuple[tuple[str, Traits], ...] = (
    ("gemini-3*", Traits(levels=_ALL, signed_calls=True)),
    ("gemini-2.5*", Traits()),
    ("gemini-2.0*", Traits(thinks=False)),
    ("gemini-1*", Traits(thinks=False)),
    ("gemma*", Traits(thinks=False)),
)


def traits(model: str) -> Traits:
    """Those of `model`; the newest models' for one that is not known."""
    name = model.rpartition("/")[2]
    return next(
        (known for pattern, known in _TRAITS if fnmatchcase(name, pattern)), Traits(levels=_ALL, signed_calls=True)
    )
