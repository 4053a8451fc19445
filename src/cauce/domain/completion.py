"""A whole answer: what is left when a stream of deltas has been collected."""

import msgspec

from cauce.domain.delta import FinishReason, Outcome, TokenLogprob
from cauce.domain.extra import Extra
from cauce.domain.message import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.usage import Usage


class Choice(msgspec.Struct, frozen=True):
    """One of the answers: its parts in the order they came. `extras` are its deltas' unknown fields, in order."""

    parts: tuple[Part, ...] = ()
    finish_reason: FinishReason = "stop"
    extras: tuple[Extra, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The text parts joined."""
        return "".join([part.text for part in self.parts if isinstance(part, TextPart)])

    @property
    def reasoning(self) -> str:
        """The reasoning parts joined."""
        return "".join([part.text for part in self.parts if isinstance(part, ReasoningPart)])

    @property
    def refusal(self) -> str:
        """The refusal, empty if there is none."""
        return "".join([part.text for part in self.parts if isinstance(part, RefusalPart)])

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls the model made."""
        return tuple([part for part in self.parts if isinstance(part, ToolCallPart)])


class Completion(msgspec.Struct, frozen=True):
    """All answers to one request (one, unless several were asked for) and what they used."""

    choices: tuple[Choice, ...]
    usage: Usage
    outcome: Outcome = "completed"
    extra: Extra | None = None
    """Unknown fields of the finish."""
