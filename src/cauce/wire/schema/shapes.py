"""Whether the keywords of a schema have values of the right kind: what clients send is not a schema until it was looked at."""

from typing import Any, cast

from cauce.domain.errors import InvalidRequest
from cauce.wire.schema.references import Schema

_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_NUMBERS = frozenset(
    {
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    }
)
_WORDS = frozenset({"format", "pattern", "title", "description"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS_BY_NAME = frozenset({"properties", "$defs", "definitions"})


def check_shape(schema: Any, path: str, field: str) -> None:
    """Raises `InvalidRequest` naming the keyword whose value is of the wrong kind."""
    if not isinstance(schema, dict):
        raise InvalidRequest(
            f"{field}: at {path} there is no schema: a schema is an object, true or false", field=field
        )
    for name, value in cast(Schema, schema).items():
        if not _right(name, value):
            raise InvalidRequest(f"{field}: at {path} the value of {name!r} is of the wrong kind", field=field)


def _right(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name in _WORDS:
        return isinstance(value, str)
    if name in _LISTS_OF_SCHEMAS:
        return isinstance(value, list) and bool(cast(list[Any], value))
    if name in _SCHEMAS_BY_NAME:
        return isinstance(value, dict)
    match name:
        case "type":
            kinds = cast(list[Any], value) if isinstance(value, list) else [value]
            return bool(kinds) and all([isinstance(one, str) and one in _TYPES for one in kinds])
        case "required":
            return isinstance(value, list) and all([isinstance(one, str) for one in cast(list[Any], value)])
        case "enum":
            return isinstance(value, list)
        case "additionalProperties":
            return isinstance(value, bool | dict)
        case "items":
            return isinstance(value, bool | dict | list)
        case "exclusiveMinimum" | "exclusiveMaximum":
            return isinstance(value, int | float)
        case _:
            return True
