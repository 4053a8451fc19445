"""Custom tools: their input is free text.

To models of other wires such a tool is a function with one string parameter, `input`; its calls are told the same way inside.
"""

from typing import Any, cast

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.message import ToolCallPart
from cauce.domain.tool import Tool
from cauce.wire.openai_chat.extras import WIRE, member

PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
"""What a custom tool is to a model that knows functions only."""

_KEY = "custom"

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


def is_custom(extra: Extra | None) -> bool:
    """Whether a tool or a call with `extra` is a custom one, on whichever wire it came."""
    return extra is not None and _KEY in extra.data


def parse_tool(raw: dict[str, Any]) -> Tool:
    """The tool in `raw`, whose type is custom and which has a name."""
    body = member(raw, "custom")
    description = body.get("description")
    return Tool(
        body["name"], description if isinstance(description, str) else None, PARAMETERS, extra=Extra(WIRE, {_KEY: body})
    )


def render_tool(tool: Tool) -> dict[str, Any]:
    """A custom tool as this wire has it."""
    body: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.extra is not None:
        kept = member(tool.extra.data, _KEY)
        body.update(kept if tool.extra.wire == WIRE else _nested(kept))
    return {"type": "custom", "custom": body}


def _nested(kept: dict[str, Any]) -> dict[str, Any]:
    """The format of a custom tool of the Responses wire, where a grammar's fields stand one level higher."""
    given = member(kept, "format")
    if given.get("type") != "grammar" or "grammar" in given:
        return {"format": given} if given else {}
    grammar = {name: given[name] for name in ("definition", "syntax") if name in given}
    return {"format": {"type": "grammar", "grammar": grammar}}


def parse_call(call_id: str, name: str, text: str, extra: dict[str, Any]) -> ToolCallPart:
    """A call of a custom tool with the input `text`."""
    return ToolCallPart(call_id, name, arguments_of(text), Extra(WIRE, {**extra, _KEY: text}))


def render_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a custom tool as this wire has it."""
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": input_of(arguments)}}


def arguments_of(text: str) -> str:
    """The arguments of the function that a custom tool is to others, called with the input `text`."""
    return _encode({"input": text}).decode()


def escaped(text: str) -> str:
    """`text` as it stands inside a JSON string."""
    return _encode(text).decode()[1:-1]


def input_of(arguments: str) -> str:
    """The input in `arguments`; what a model wrote otherwise is given as it is."""
    try:
        value = _decoder.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    found = cast(dict[str, Any], value).get("input") if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments
