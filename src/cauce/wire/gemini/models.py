"""How Gemini models differ, as data."""

from fnmatch import fnmatchcase

import msgspec


class Traits(msgspec.Struct, frozen=True):
    """`levels` are the words for how much to think, least first (empty: a budget in tokens is told, of `least` to `most`; `off`: or
    none at all); `signed_calls`: calls of earlier turns must carry the signature they came with."""

    levels: tuple[str, ...] = ()
    least: int = 1
    most: int = 24_576
    off: bool = True
    signed_calls: bool = False
    thinks: bool = True


_NEWEST = Traits(levels=("low", "medium", "high"), signed_calls=True)
"""What all models since Gemini 3.1 take: a level a model does not know is a 400."""

# Google, "Gemini thinking" (levels and ranges of budgets by model) and "Thought signatures": thinkingLevel and mandatory
# signatures came with Gemini 3, thinkingBudget is that of 2.5; models before 2.5, and those of 2.5 that draw or speak, do not
# think. The first pattern that fits counts.
_TRAITS: tuple[tuple[str, Traits], ...] = (
    ("gemini-3-pro*", Traits(levels=("low", "high"), signed_calls=True)),
    ("gemini-3*-pro*", _NEWEST),
    ("gemini-3*", Traits(levels=("minimal", "low", "medium", "high"), signed_calls=True)),
    ("gemini-2.5-*image*", Traits(thinks=False)),
    ("gemini-2.5-*tts*", Traits(thinks=False)),
    ("gemini-2.5-pro*", Traits(least=128, most=32_768, off=False)),
    ("gemini-2.5-flash-lite*", Traits(least=512)),
    ("gemini-2.5*", Traits()),
    ("gemini-2.0*", Traits(thinks=False)),
    ("gemini-1*", Traits(thinks=False)),
    ("gemma*", Traits(thinks=False)),
)


def traits(model: str) -> Traits:
    """Those of `model`; the newest models' for one that is not known."""
    name = model.rpartition("/")[2]
    return next((known for pattern, known in _TRAITS if fnmatchcase(name, pattern)), _NEWEST)
