"""The keywords of one schema that concern no other schema: types, listed values, bounds, formats, patterns."""

import re
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from cauce.wire.schema.profile import Profile
from cauce.wire.schema.references import Schema

ANNOTATIONS = frozenset({"title", "description", "default"})
"""Keywords that constrain nothing and that models make use of."""

CONSTRAINTS = frozenset(
    {"format", "pattern", "minLength", "maxLength", "multipleOf"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains"}
    | {"minProperties", "maxProperties", "patternProperties", "propertyNames"}
    | {"dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"}
    | {"not", "if", "then", "else", "$dynamicRef", "$recursiveRef"}
)
"""Keywords that are told to the model where they cannot be said. All others but those of the structure constrain nothing."""

_OF_OBJECTS = frozenset({"properties", "required", "additionalProperties", "patternProperties", "propertyNames"})
_OF_ARRAYS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"})
_OF_STRINGS = frozenset({"pattern", "minLength", "maxLength"})
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

_LONGEST_TOLD = 200
"""Characters a value may have that is told in a description."""


def types(schema: Schema) -> list[str]:
    """The types a schema allows, as far as it says so itself or its keywords make sense for one only; empty: any."""
    given = schema.get("type")
    if given is None:
        return _implied(schema)
    return [given] if isinstance(given, str) else list(dict.fromkeys(cast(list[str], given)))


def _implied(schema: Schema) -> list[str]:
    if "enum" in schema or "const" in schema or "anyOf" in schema or "oneOf" in schema:
        return []
    if not schema.keys().isdisjoint(_OF_OBJECTS):
        return ["object"]
    if not schema.keys().isdisjoint(_OF_ARRAYS):
        return ["array"]
    if not schema.keys().isdisjoint(_OF_STRINGS):
        return ["string"]
    return ["number"] if not schema.keys().isdisjoint({*_BOUNDS, "multipleOf"}) else []


def kind(value: Any) -> str:
    """The JSON type of a value; integers are numbers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
        case _:
            return "array"


def listed(schema: Schema) -> list[Any] | None:
    """The values a schema lists, as `enum`, `const` or both; None: it lists none."""
    values: list[Any] | None = schema.get("enum")
    if "const" in schema:
        const = schema["const"]
        return [const] if values is None or const in values else []
    return values


def simple(schema: Schema, profile: Profile, kinds: list[str]) -> tuple[Schema, list[str]]:
    """The keywords of `schema` that `profile` takes as they are or nearly so, and the names of those it is not held to."""
    kept: Schema = {}
    weaker: Schema = {}
    left: list[str] = []
    for name, value in schema.items():
        if name in ANNOTATIONS:
            if name in profile.keywords:
                kept[name] = value
        elif name in CONSTRAINTS:
            if name in profile.keywords and _takes(profile, name, value, kinds):
                kept[name] = value
            else:
                instead = _weaker(profile, name, value, kinds, schema)
                weaker.update(instead)
                if not instead or name in instead:
                    left.append(name)
    return {**kept, **weaker}, left


def _takes(profile: Profile, name: str, value: Any, kinds: list[str]) -> bool:
    match name:
        case "format":
            return profile.formats is None or value in profile.formats
        case "pattern":
            if profile.anchored and not (value.startswith("^") and value.endswith("$")):
                return False
            return profile.pattern_without is None or re.search(profile.pattern_without, value) is None
        case "minItems":
            return profile.min_items is None or value in profile.min_items
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            # In the oldest drafts an exclusive bound is a flag.
            return not isinstance(value, bool) and (not profile.integer_bounds or "number" not in kinds)
        case _:
            return True


def _weaker(profile: Profile, name: str, value: Any, kinds: list[str], schema: Schema) -> Schema:
    """What can be said in place of a keyword: as much as it says under another name, or less under the same."""
    if name == "minItems" and profile.min_items is not None:
        return {"minItems": max([bound for bound in profile.min_items if bound <= value], default=0)}
    if "integer" not in kinds or "number" in kinds or type(value) is not int:
        return {}
    if name == "exclusiveMinimum" and "minimum" in profile.keywords:
        return {"minimum": max(value + 1, schema.get("minimum", value + 1))}
    if name == "exclusiveMaximum" and "maximum" in profile.keywords:
        return {"maximum": min(value - 1, schema.get("maximum", value - 1))}
    return {}


def told(description: str | None, schema: Schema, names: Iterable[str]) -> str | None:
    """`description` with the constraints `names` in words, so that a model may follow what it is not held to."""
    said: list[str] = []
    for name in names:
        text = msgspec.json.encode(schema[name]).decode()
        if len(text) <= _LONGEST_TOLD:
            said.append(f"{name}: {text}")
    if not said:
        return description
    constraints = f"({', '.join(said)})"
    return f"{description} {constraints}" if description else constraints
