"""A whole answer: what is left when a stream of deltas has been collected."""

import msgspec

from cauce.domain.delta import FinishReason, Outcome
from cauce.domain.extra import Extra
from cauce.domain.message import ToolCallPart
from cauce.domain.usage import Usage


class Choice(msgspec.Struct, frozen=True):
    """One of the answers. `extras` are its deltas' unknown fields, in order."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()
    finish_reason: FinishReason = "stop"
    extras: tuple[Extra, ...] = ()


class Completion(msgspec.Struct, frozen=True):
    """All answers to one request (one, unless several were asked for) and what they used."""

    choices: tuple[Choice, ...]
    usage: Usage
    outcome: Outcome = "completed"
    extra: Extra | None = None
    """Unknown fields of the finish."""
