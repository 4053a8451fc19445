"""Events of a logged stream of this wire: what its clients can resume, and cannot be shown what is taken back.

It differs from a stream without a log in this. `message_start` comes with record 1. A `tool_use` block comes whole. An answer that broke
for good ends with `max_tokens`, and beside it that it is incomplete.
"""

from collections.abc import Sequence
from typing import Any

from cauce.domain.delta import Delta, Finish, Restart, Status, ToolCall
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.events import event
from cauce.wire.anthropic_messages.render import MessagesProjector
from cauce.wire.anthropic_messages.usage import render_usage
from cauce.wire.whole_calls import WholeCalls

INCOMPLETE: dict[str, Any] = {"cauce": {"incomplete": True}}
"""What stands beside an end that is none."""

_UNKNOWN = Usage(estimated=True)


class LoggedMessagesProjector(MessagesProjector):
    """Deltas in, events out: a fold without clock or randomness."""

    def __init__(self, id: str, model: str, *, input_tokens: int = 0, thinking: bool = False) -> None:
        super().__init__(id, model, input_tokens=input_tokens, thinking=thinking)
        self._whole = WholeCalls()

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        return b"".join([self._events(delta) for delta in deltas if not self._ended])

    def _events(self, delta: Delta) -> bytes:
        match delta:
            case Status("accepted"):
                out: list[bytes] = []
                self._start(None, out)
                return b"".join(out)
            case ToolCall():
                return super().feed(self._whole.of(delta))
            case Restart():
                return self._cut(_UNKNOWN)
            case Finish(outcome="incomplete", usage=usage):
                return self._cut(usage)
            case _:
                return super().feed((delta,))

    def _cut(self, usage: Usage) -> bytes:
        """The end of an answer of which there is a part."""
        out: list[bytes] = []
        self._start(None, out)
        self._blocks.close_all(out)
        ending = {"stop_reason": "max_tokens", "stop_sequence": None}
        out.append(event("message_delta", delta=ending, usage=render_usage(usage), **INCOMPLETE))
        out.append(event("message_stop"))
        self._ended = True
        return b"".join(out)
