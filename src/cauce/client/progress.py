"""Where a stream stands, in words a user interface can show."""

from typing import Any, Literal

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Refusal, Status, Text, ToolCall

Phase = Literal["connecting", "open", "waiting", "thinking", "calling", "answering", "retrying", "reconnecting", "done"]


class Progress(msgspec.Struct, frozen=True):
    """`phase` says what goes on.

    `waiting`: in a queue, at `place`. `retrying`: a model failed for `reason`, the next is asked, `attempt` counts. `calling`: a
    tool call is written. `reconnecting`: the connection was lost for `reason`; the try number `attempt` follows in `wait` seconds.
    `done`: with the stream's `outcome`.
    """

    phase: Phase
    place: int | None = None
    attempt: int = 0
    wait: float = 0.0
    reason: str = ""
    outcome: str = ""


_THINKING = Progress("thinking")
_CALLING = Progress("calling")
_ANSWERING = Progress("answering")


def progress_of(delta: Delta, told: dict[str, Any]) -> Progress | None:
    """What `delta` says of where its stream stands; None if nothing. `told` is its frame."""
    match delta:
        case Text() | Refusal():
            return _ANSWERING
        case Reasoning():
            return _THINKING
        case ToolCall():
            return _CALLING
        case Status("waiting", facts=facts):
            return Progress("waiting", place=facts.get("place"))
        case Attempt(reason=str() as reason):
            return Progress("retrying", attempt=told.get("retry_count", 1), reason=reason)
        case Finish(outcome=outcome):
            return Progress("done", outcome=outcome)
        case _:
            return None
