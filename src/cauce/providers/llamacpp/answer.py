"""Events of the worker read into deltas and errors."""

from collections.abc import Sequence
from typing import Never, assert_never

from cauce.domain.delta import Delta, Finish, FinishReason, Text, ToolCall
from cauce.domain.errors import ProviderFailure, Unsupported
from cauce.domain.usage import Usage
from cauce.providers.llamacpp.protocol import Absent, Counted, Done, Event, Failed, Loaded, Piece


class Answer:
    """State of one answer being read. `tool`: what comes are the arguments of a call of that tool, `call_id`."""

    def __init__(self, provider: str, tool: str | None = None, call_id: str = "") -> None:
        self.over = False
        """Nothing more will come."""
        self._provider = provider
        self._tool = tool
        self._call_id = call_id
        self._arguments: list[str] = []

    def feed(self, events: Sequence[Event]) -> list[Delta]:
        """Deltas of `events`; the text of neighbours is joined. Raises `ProviderFailure` and `Unsupported`."""
        text: list[str] = []
        done: Done | None = None
        for event in events:
            match event:
                case Piece(_, more):
                    text.append(more)
                case Done():
                    done = event
                case Failed():
                    self.over = True
                    refuse(self._provider, event)
                case Loaded() | Counted() | Absent():
                    continue
                case _:
                    assert_never(event)
        deltas = self._deltas("".join(text))
        if done is not None:
            self.over = True
            deltas.extend(self._end(done))
        return deltas

    def _deltas(self, text: str) -> list[Delta]:
        if not text:
            return []
        if self._tool is None:
            return [Text(text)]
        self._arguments.append(text)
        return [ToolCall(0, self._call_id, self._tool, text)]

    def _end(self, done: Done) -> list[Delta]:
        reason: FinishReason = done.reason
        ended: list[Delta] = []
        if self._tool is not None:
            ended.append(ToolCall(0, self._call_id, self._tool, "".join(self._arguments), "ready"))
            reason = "tool_calls" if reason == "stop" else reason
        # It runs on the machine of whoever asks: there is no price.
        usage = Usage(done.input_tokens, done.output_tokens, cost=0.0, cost_source="priced")
        return [*ended, Finish(reason, usage)]


def refuse(provider: str, failed: Failed) -> Never:
    """Raise the error that `failed` stands for."""
    message = f"{provider}: {failed.message}"
    match failed.kind:
        case "unsupported":
            raise Unsupported(message, field=failed.field)
        case "context":
            raise ProviderFailure(message, failure="bad_request", provider=provider, code="context_length_exceeded")
        case "load":
            raise ProviderFailure(message, failure="transient", provider=provider, should_retry=False)
        case "broken":
            raise ProviderFailure(message, failure="transient", provider=provider)
        case _:
            assert_never(failed.kind)
