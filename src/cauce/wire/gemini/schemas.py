"""Google's own kind of schema, which clients may send, as JSON Schema."""

from typing import Any, cast

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
"""Proto JSON writes them as text."""

_LEFT_OUT = frozenset({"nullable", "propertyOrdering", "property_ordering"})
_NESTED = {"items": "items", "anyOf": "anyOf", "any_of": "anyOf", "prefixItems": "prefixItems"}


def json_schema(schema: Any) -> Any:
    """A schema of the restricted kind (types in capitals, `nullable`, `propertyOrdering`) as JSON Schema."""
    if isinstance(schema, list):
        return [json_schema(item) for item in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast(dict[str, Any], schema)
    whole: dict[str, Any] = {}
    for name, value in given.items():
        if name == "type" and isinstance(value, str):
            if value != "TYPE_UNSPECIFIED":
                whole["type"] = value.lower()
        elif name == "properties" and isinstance(value, dict):
            whole[name] = _properties(cast(dict[str, Any], value), given)
        elif name in _NESTED:
            whole[_NESTED[name]] = json_schema(value)
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            whole[name] = int(value)
        elif name not in _LEFT_OUT:
            whole[name] = value
    if given.get("nullable") is True and isinstance(whole.get("type"), str):
        whole["type"] = [whole["type"], "null"]
    return whole


def _properties(properties: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The properties, in the order they are to be written in."""
    wanted: Any = schema.get("propertyOrdering") or schema.get("property_ordering") or []
    listed = cast(list[Any], wanted) if isinstance(wanted, list) else []
    first = [name for name in listed if isinstance(name, str) and name in properties]
    return {name: json_schema(properties[name]) for name in dict.fromkeys([*first, *properties])}
