"""What a chunk and a plain answer are made of, once their unknown fields are laid back where they came from."""

from collections.abc import Sequence
from typing import Any, cast

from cauce.domain.delta import FinishReason
from cauce.domain.extra import Extra
from cauce.wire.openai_chat.extras import WIRE, own
from cauce.wire.openai_chat.tools import AnswerStyle

_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "cancelled": "stop",
    "error": "stop",
}


def reason_of(choice: int, reason: FinishReason, extra: Extra | None, style: AnswerStyle) -> str:
    """The finish reason of a choice: the upstream's own word where it spoke this wire."""
    words: dict[str, str] = own(extra).get("finish_reasons", {})
    word = words.get(str(choice), _REASONS[reason])
    return "function_call" if style.functions and word == "tool_calls" else word


def overlay(head: dict[str, Any], choice: dict[str, Any], part: str, extras: Sequence[Extra]) -> dict[str, Any]:
    """A body of one choice, whose content is its member `part`, with the unknown fields of `extras`. Changes `choice`."""
    whole: dict[str, Any] = {**head, "choices": [choice]}
    for extra in extras:
        if extra.wire == WIRE:
            whole = {**extra.data.get("chunk", {}), **whole}
            lay(choice, extra.data.get("choice", {}))
            lay(choice[part], extra.data.get("delta", {}))
    return whole


def lay(target: dict[str, Any], fields: dict[str, Any]) -> None:
    """Put unknown fields into `target`. Where pieces of a stream are put together, lists (log probabilities) are joined."""
    for name, value in fields.items():
        there = target.get(name)
        if isinstance(there, list) and isinstance(value, list):
            target[name] = [*cast(list[Any], there), *cast(list[Any], value)]
        elif isinstance(there, dict) and isinstance(value, dict):
            joined = dict(cast(dict[str, Any], there))
            lay(joined, cast(dict[str, Any], value))
            target[name] = joined
        else:
            target[name] = value
