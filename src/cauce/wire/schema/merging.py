"""Several schemas that must all hold, as one; and whether of several only one can hold."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from cauce.wire.schema.references import Schema

Lose = Callable[[str], None]
"""Told the keyword of a constraint that could not be kept."""

_HIGHEST = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"})
_LOWEST = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"})
_UNIONS = frozenset({"patternProperties", "$defs", "definitions"})
_PROPERTIES = frozenset({"properties", "additionalProperties"})
_FIRST = frozenset({"title", "description", "default", "examples", "$comment", "$schema", "$id", "deprecated"})


def merged(first: Schema, second: Schema, lose: Lose) -> Schema | None:
    """A schema that holds where both hold; None if that is nowhere. What cannot be said so is `lose`d: the first one's stays."""
    whole = dict(first)
    for name, value in second.items():
        if name in _PROPERTIES:
            continue
        if name not in whole or whole[name] == value:
            whole[name] = value
            continue
        there = whole[name]
        if name in _UNIONS:
            whole[name] = _united(there, value)
        elif name == "required":
            whole[name] = list(dict.fromkeys([*there, *value]))
        elif name == "type":
            types = _shared_types(there, value)
            if not types:
                return None
            whole[name] = types[0] if len(types) == 1 else types
        elif name == "enum":
            whole[name] = [one for one in there if one in value]
            if not whole[name]:
                return None
        elif name in _HIGHEST and _numbers(there, value):
            whole[name] = max(there, value)
        elif name in _LOWEST and _numbers(there, value):
            whole[name] = min(there, value)
        elif name == "items":
            whole[name] = _both(there, value)
        elif name == "const":
            return None
        elif name not in _FIRST:
            lose(name)
    if not second.keys().isdisjoint(_PROPERTIES):
        _unite_properties(whole, first, second)
    return whole


def exclusive(branches: Sequence[Schema]) -> bool:
    """Whether a value can be an instance of one of `branches` at most, as far as one look tells."""
    kinds = [_kind(branch) for branch in branches]
    if None not in kinds and len(set(kinds)) == len(kinds):
        return True
    names = set(branches[0].get("required", ())) if branches else set[str]()
    return any([_tells_apart(name, branches) for name in names])


def _kind(branch: Schema) -> str | None:
    """The one type of a branch. Integers are numbers."""
    kind = branch.get("type")
    return {"integer": "number"}.get(kind, kind) if isinstance(kind, str) else None


def _tells_apart(name: str, branches: Sequence[Schema]) -> bool:
    """Whether each branch requires property `name` to have values that no other allows."""
    seen: list[Any] = []
    for branch in branches:
        described = branch.get("properties", {}).get(name)
        if name not in branch.get("required", ()) or not isinstance(described, dict):
            return False
        schema = cast(Schema, described)
        values: list[Any] = [schema["const"]] if "const" in schema else schema.get("enum", [])
        if not values or any([value in seen for value in values]):
            return False
        seen.extend(values)
    return True


def _unite_properties(whole: Schema, first: Schema, second: Schema) -> None:
    """Properties of both; what one describes and the other does not must be what the other allows of further ones."""
    ours, theirs = first.get("properties", {}), second.get("properties", {})
    properties: Schema = {}
    for name in dict.fromkeys([*ours, *theirs]):
        one = ours.get(name, first.get("additionalProperties", True))
        properties[name] = _both(one, theirs.get(name, second.get("additionalProperties", True)))
    if properties:
        whole["properties"] = properties
    if "additionalProperties" in first or "additionalProperties" in second:
        both = _both(first.get("additionalProperties", True), second.get("additionalProperties", True))
        whole["additionalProperties"] = both


def _united(first: Schema, second: Schema) -> Schema:
    """Schemas by name of both; where both have one, both must hold."""
    whole = dict(first)
    for name, schema in second.items():
        whole[name] = _both(whole[name], schema) if name in whole else schema
    return whole


def _both(first: Any, second: Any) -> Any:
    if first is False or second is False:
        return False
    if first is True or first == second:
        return second
    return first if second is True else {"allOf": [first, second]}


def _shared_types(first: str | list[str], second: str | list[str]) -> list[str]:
    one = [first] if isinstance(first, str) else first
    other = [second] if isinstance(second, str) else second
    shared = [kind for kind in one if kind in other]
    if "integer" not in shared and (
        ("integer" in one and "number" in other) or ("number" in one and "integer" in other)
    ):
        shared.append("integer")
    return shared


def _numbers(first: Any, second: Any) -> bool:
    return isinstance(first, int | float) and isinstance(second, int | float)
