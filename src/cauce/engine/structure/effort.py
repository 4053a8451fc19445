"""How much work it can be to check a value against a schema: schemas come from clients, and some multiply without end.

A schema can look at one value many times, through `anyOf` and its like, and each time at all that is inside it. Two references
to the same place, level by level, make a check that no machine ends. The bound counted here is on the schemas that are asked
along one way from the root of a value to one of its leaves.
"""

from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote

Schema = dict[str, Any]

MOST = 100_000
"""Schemas that may be asked along one way. The checker asks some 20 of them in a microsecond."""

_SAME_VALUE = ("anyOf", "oneOf", "allOf")
_SAME_VALUE_ONCE = ("not", "if", "then", "else")
_INSIDE_BY_NAME = ("properties", "patternProperties")
_INSIDE = ("additionalProperties", "items", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_UNTOLD = frozenset({"$dynamicRef", "$recursiveRef"})
"""Where these lead depends on the way that was taken."""


def effort(root: Schema, levels: int) -> int:
    """Schemas asked for a value that is nested `levels` deep; `MOST` + 1 if there are more, or nobody can tell."""
    try:
        return _Effort(root).of(root, levels)
    except RecursionError:
        return MOST + 1


class _Effort:
    """The count of each target of a reference for values of each depth, once it is known."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._known: dict[tuple[str, int], int] = {}
        self._looks = 0

    def of(self, schema: Any, levels: int) -> int:
        self._looks += 1
        if self._looks > MOST:
            return MOST + 1
        if not isinstance(schema, dict):
            return 1
        keywords = cast(Schema, schema)
        if not _UNTOLD.isdisjoint(keywords) or ("$id" in keywords and keywords is not self._root):
            return MOST + 1
        here = 1 + sum([self.of(one, levels) for one in _on_the_same_value(keywords)])
        reference = keywords.get("$ref")
        if isinstance(reference, str):
            here += self._referred(reference, levels)
        if levels:
            here += self._inside(keywords, levels - 1)
        return min(here, MOST + 1)

    def _inside(self, keywords: Schema, levels: int) -> int:
        named = [
            max([self.of(one, levels) for one in cast(Schema, keywords[name]).values()], default=0)
            for name in _INSIDE_BY_NAME
            if isinstance(keywords.get(name), dict)
        ]
        heads = keywords.get("prefixItems")
        if isinstance(heads, list):
            named.append(max([self.of(one, levels) for one in cast(list[Any], heads)], default=0))
        return sum(named) + sum([self.of(keywords[name], levels) for name in _INSIDE if name in keywords])

    def _referred(self, reference: str, levels: int) -> int:
        if reference != "#" and not reference.startswith("#/"):
            return MOST + 1
        known = self._known.get((reference, levels))
        if known is None:
            # Counted as one while it is on its way: a reference that leads to itself on the same value is followed once.
            self._known[reference, levels] = 1
            known = self._known[reference, levels] = self.of(self._target(reference), levels)
        return known

    def _target(self, reference: str) -> Any:
        """What a reference leads to; nothing where it leads nowhere, which the checker will tell."""
        value: Any = self._root
        for raw in unquote(reference).split("/")[1:]:
            step = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = cast(Schema, value).get(step)
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(cast(list[Any], value)):
                value = cast(list[Any], value)[int(step)]
            else:
                return None
        return value


def _on_the_same_value(keywords: Schema) -> Iterable[Any]:
    for name in _SAME_VALUE:
        if isinstance(keywords.get(name), list):
            yield from keywords[name]
    for name in _SAME_VALUE_ONCE:
        if name in keywords:
            yield keywords[name]
    dependent = keywords.get("dependentSchemas")
    if isinstance(dependent, dict):
        yield from cast(Schema, dependent).values()


def depth(value: Any, most: int) -> int:
    """How deep `value` is nested, `most` + 1 if it is deeper than that."""
    level: list[Any] = [value]
    for levels in range(most + 1):
        level = [child for one in level for child in _children(one)]
        if not level:
            return levels
    return most + 1


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast(Schema, value).values()
    return cast(list[Any], value) if isinstance(value, list) else ()
