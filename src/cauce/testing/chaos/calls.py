"""Calls of tools that prove who made them: their arguments are JSON, and name the attempt, the call, and each their own place.

The arguments of a call are of one length and one shape whoever makes it, so that pieces of two attempts joined are JSON all the same:
only the names in it tell. All attempts use the same ids: that two calls are not one is for the server to tell.
"""

from typing import Any

import msgspec

from cauce.testing.chaos.text import written

TOOL = "look_up"
"""The tool that is called."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Looks something up",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
]
"""What a request says of it."""

_LENGTH = 160


class _Arguments(msgspec.Struct):
    call: int
    by: str
    text: str


def call_id(number: int) -> str:
    """The id that each attempt gives its call `number`, from 0 on."""
    return f"call_{number}"


def arguments(number: int, name: str) -> str:
    """The arguments of call `number` by the attempt that `name` names."""
    return msgspec.json.encode(_Arguments(number, name, written(_LENGTH, name))).decode()


def maker(text: str) -> tuple[int, str] | None:
    """Which call these whole arguments are of, and the name of the attempt that wrote all of it; None: of none."""
    try:
        said = msgspec.json.decode(text, type=_Arguments)
    except msgspec.MsgspecError:
        return None
    return (said.call, said.by) if text == arguments(said.call, said.by) else None
