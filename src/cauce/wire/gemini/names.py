"""The spelling of fields: proto JSON takes camel case and snake case, also mixed in one body. Inside we have camel case."""

import re
from typing import Any, cast

from cauce.domain.extra import Extra

WIRE = "gemini"

_SNAKE = re.compile(r"_([a-z0-9])")

_FREE = frozenset(
    {
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "partMetadata",
        "headers",
        "properties",
    }
)
"""Members that hold the caller's own JSON: their keys are nobody's fields."""


def camel(value: Any) -> Any:
    """`value` with all field names in camel case, but for what is the caller's own."""
    if isinstance(value, list):
        return [camel(item) for item in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    whole: dict[str, Any] = {}
    for key, item in cast(dict[str, Any], value).items():
        name = _SNAKE.sub(lambda match: match[1].upper(), key)
        whole[name] = item if name in _FREE else camel(item)
    return whole


def member(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The object `value` has under `name`; empty where there is none."""
    found = value.get(name)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def items(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; nothing for what is none."""
    if not isinstance(value, list):
        return []
    return [cast(dict[str, Any], item) for item in cast(list[Any], value) if isinstance(item, dict)]


def word(value: Any) -> str:
    """An enum's word; empty for what is none. Some servers send enums as numbers, which we never ask for."""
    return value if isinstance(value, str) else ""


def own(extra: Extra | None) -> dict[str, Any]:
    """What only this wire knows."""
    return extra.data if extra is not None and extra.wire == WIRE else {}
