"""The members of a message, or of a piece of one: which are read, and which are handed on as they are."""

from typing import Any

from cauce.wire.fields import rest
from cauce.wire.openai_chat.citations import parse_annotations

PLAIN_FIELDS = frozenset({"role", "content", "tool_calls", "reasoning_content"})
"""Those that nearly every piece of a stream is made of."""

THOUGHTS = ("reasoning_content", "reasoning")
"""What servers call the text of reasoning."""

_RARE_FIELDS = frozenset({"refusal", "reasoning", "reasoning_details", "annotations", "function_call"})


def carried(delta: dict[str, Any], *, plain: bool) -> dict[str, Any]:
    """The members of `delta` that are handed on raw: those nobody knows, and those that say more than deltas can.

    `plain`: it is a whole message.
    """
    kept = rest(delta, PLAIN_FIELDS)
    for name in _RARE_FIELDS & kept.keys():
        value = kept[name]
        match name:
            case "refusal":
                read = isinstance(value, str)
            case "reasoning":
                read = isinstance(value, str) and not delta.get("reasoning_content")
            case "function_call":
                read = isinstance(value, dict)
            case "annotations":
                read = bool(parse_annotations(value, 0))
            case _:
                read = False
        # An empty list in every piece of a stream says nothing.
        if read or (value == [] and not plain):
            del kept[name]
    return kept
