"""How null is said: as a type among others, or as a keyword beside the only type."""

from collections.abc import Mapping
from typing import Any, cast

from cauce.wire.schema.keywords import listed, types
from cauce.wire.schema.references import Schema

NULL: Schema = {"type": "null"}

_ABOUT = ("title", "description")


def takes_null(schema: Schema, definitions: Mapping[str, Schema | None]) -> bool:
    """Whether null is an instance of a cleaned schema, as far as its definitions are there already."""
    if "$ref" in schema:
        target = definitions.get(schema["$ref"].removeprefix("#/$defs/"))
        return target is not None and takes_null(target, definitions)
    if "anyOf" in schema and not any([takes_null(branch, definitions) for branch in schema["anyOf"]]):
        return False
    values = listed(schema)
    return "null" in (types(schema) or ["null"]) and (values is None or None in values)


def or_null(schema: Schema) -> Schema:
    """A cleaned schema that takes no null, made to take it."""
    about = {name: schema[name] for name in _ABOUT if name in schema}
    inside = {name: value for name, value in schema.items() if name not in about}
    if inside.keys() == {"anyOf"}:
        return {**about, "anyOf": [*inside["anyOf"], dict(NULL)]}
    if "type" in inside and inside.keys().isdisjoint({"enum", "const", "anyOf"}):
        return {**schema, "type": [*types(schema), "null"]}
    return {**about, "anyOf": [inside, dict(NULL)]}


def with_null_apart(out: Schema, kinds: list[str]) -> Schema:
    """`out`, of types `kinds`, with null as a keyword. Of the types other than null there is one at most."""
    apart = [name for name in kinds if name != "null"]
    if len(apart) < len(kinds):
        out["nullable"] = True
    if kinds:
        # Null alone cannot be said: it becomes a string that may be null.
        out["type"] = apart[0] if apart else "string"
    return out


def only_null(schema: Any) -> bool:
    """Whether a schema says null and nothing else."""
    return isinstance(schema, dict) and types(cast(Schema, schema)) == ["null"]
