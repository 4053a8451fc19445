"""What this wire is called, its extras, and the ids of items that we made ourselves."""

import re
from typing import Any

from cauce.domain.extra import Extra

WIRE = "openai_responses"

_OURS = re.compile(r"[a-z]+_cauce_")
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def own(extra: Extra | None) -> dict[str, Any]:
    """What `extra` says on this wire; empty if it is another's."""
    return extra.data if extra is not None and extra.wire == WIRE else {}


def carried(data: dict[str, Any]) -> Extra | None:
    """`data` as an extra of this wire, None if there is none."""
    return Extra(WIRE, data) if data else None


def made_id(kind: str, response_id: str, place: int | str) -> str:
    """The id of an item of `kind` that its upstream gave none. It is always the same for the same place."""
    return f"{_PREFIXES.get(kind, 'item')}_cauce_{response_id.rpartition('_')[2]}_{place}"


def is_made(identifier: Any) -> bool:
    """Whether `identifier` is an id that we made."""
    return isinstance(identifier, str) and _OURS.match(identifier) is not None


def sendable(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` of an item without an id that we made: no upstream knows it."""
    if is_made(fields.get("id")):
        return {name: value for name, value in fields.items() if name != "id"}
    return fields
