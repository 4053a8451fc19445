"""Answers of this wire read into deltas: events of a stream, or one plain message.

`message_start` and the start of a block are kept back until the block says something: an error right behind them must find
that nobody has seen anything. A stream is complete with `message_stop`, and with nothing else. Usage is that of
`message_start`, overwritten by `message_delta`.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from cauce.domain.delta import Delta, Finish, FinishReason, Text
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.errors import parse_error, to_failure
from cauce.wire.anthropic_messages.reading import Block, Reading
from cauce.wire.anthropic_messages.usage import WIRE, overwritten, parse_usage
from cauce.wire.decoding import Decoding, tokens_in
from cauce.wire.making import CallIds
from cauce.wire.sse import Event
from cauce.wire.template import Field, Template

REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "stop",
}
"""Of a turn the API's own tools paused, clients of this wire are told; no other can have asked for those tools."""

_MESSAGE = frozenset({"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"})
_ENDING = ("stop_reason", "stop_sequence", "stop_details")
_EVENT = frozenset({"type", "delta", "usage"})
_TEXT = Field("text")


class MessagesDecoder(Decoding):
    """State of one answer being read; see `Decoding`."""

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        super().__init__(provider, estimate, request)
        self._reading = Reading(provider, CallIds(request))
        self._blocks: dict[int, Block] = {}
        self._usage: dict[str, Any] | None = None
        self._started = False
        self._ending: dict[str, Any] = {}
        self._about: dict[str, Any] = {}
        self._stopped = False
        self._template = Template()

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        read, count = 0, len(events)
        while read < count and not self.done:
            if texts := self._template.texts(events, read):
                read += len(texts)
                self._reading.characters += len("".join(texts))
                deltas += [Text(text) for text in texts]
            else:
                self._event(events[read], deltas)
                read += 1

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut."""
        deltas: list[Delta] = []
        for event in self._sse.finish():
            if not self.done:
                self._event(event, deltas)
        if self._failure is not None:
            raise self._failure
        if not self._stopped:
            raise self._broken("the stream ended without message_stop: it was cut off", shape=False)
        deltas.append(self._finish())
        return deltas

    def completion(self, body: bytes) -> list[Delta]:
        """Deltas of a plain message, ending with `Finish`. Raises `ProviderFailure`."""
        message = self._object(body)
        if message.get("type") == "error" or "content" not in message:
            raise to_failure(parse_error(message), provider=self._provider)
        content = message["content"]
        if not isinstance(content, list):
            raise self._broken("sent a message whose content is no list")
        deltas: list[Delta] = []
        self._start(message)
        for raw in cast(list[Any], content):
            self._reading.close(self._block(raw), deltas)
        self._ending = {name: message[name] for name in _ENDING if name in message}
        deltas.append(self._finish())
        return deltas

    @property
    def done(self) -> bool:
        """Whether `message_stop` or an error came: nothing after it belongs to this answer."""
        return self._stopped or self._failure is not None

    def _event(self, event: Event, deltas: list[Delta]) -> None:
        value = self._object(event.data)
        kind = value.get("type") or event.event
        if kind == "content_block_delta":
            self._delta(value, event.data, deltas)
            return
        # Which blocks are open changes: what looks like a piece of one may be of another.
        self._template.forget()
        if kind == "content_block_start":
            self._open(value)
        elif kind == "content_block_stop":
            block = self._blocks.pop(_index(value), None)
            if block is not None:
                self._reading.close(block, deltas)
        elif kind == "message_start":
            message = value.get("message")
            if isinstance(message, dict) and not self._started:
                self._start(cast(dict[str, Any], message))
        elif kind == "message_delta":
            self._end(value)
        elif kind == "message_stop":
            self._close_all(deltas)
            self._stopped = True
        elif kind == "error":
            raise to_failure(parse_error(value), provider=self._provider)

    def _delta(self, value: dict[str, Any], data: bytes, deltas: list[Delta]) -> None:
        delta = value.get("delta")
        if type(delta) is not dict:
            raise self._broken("sent a delta of an unknown shape")
        fields = cast(dict[str, Any], delta)
        index = _index(value)
        block = self._blocks.get(index)
        if block is None:
            # Some servers of this wire leave the start out.
            block = self._blocks[index] = Block("thinking" if "thinking" in fields else "text", {})
        text = fields.get("text")
        if block.kind == "text" and type(text) is str and block.begun and fields.get("type") == "text_delta":
            # The line most streams consist of.
            self._reading.characters += len(text)
            deltas.append(Text(text))
            if "type" in value:
                self._template.learn(data, _TEXT, text)
        else:
            self._reading.delta(block, fields, deltas)

    def _open(self, value: dict[str, Any]) -> None:
        self._blocks[_index(value)] = self._block(value.get("content_block"))

    def _block(self, raw: Any) -> Block:
        match raw:
            case {"type": str(kind)}:
                return Block(kind, cast(dict[str, Any], raw))
            case _:
                raise self._broken("sent a block of an unknown shape")

    def _close_all(self, deltas: list[Delta]) -> None:
        for block in self._blocks.values():
            self._reading.close(block, deltas)
        self._blocks.clear()

    def _start(self, message: dict[str, Any]) -> None:
        self._started = True
        unknown = {name: value for name, value in message.items() if name not in _MESSAGE}
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage = cast(dict[str, Any], usage)
            unknown["usage"] = usage
        self._reading.message = unknown

    def _end(self, value: dict[str, Any]) -> None:
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage = overwritten(self._usage or {}, cast(dict[str, Any], usage))
        delta = value.get("delta")
        if isinstance(delta, dict):
            self._ending = {**self._ending, **cast(dict[str, Any], delta)}
        self._about.update({name: item for name, item in value.items() if name not in _EVENT})

    def _finish(self) -> Finish:
        data: dict[str, Any] = {"delta": self._ending}
        if self._about:
            data["event"] = self._about
        if self._reading.message is not None:
            data["message"] = self._reading.message
        reason = self._ending.get("stop_reason")
        usage = self._used(None if self._usage is None else parse_usage(self._usage), self._reading.characters)
        known = REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
        return Finish(known, usage, extra=Extra(WIRE, data))

    def so_far(self) -> Usage:
        """What the answer has used by now, as far as can be told: its beginning reports the input, its end the output."""
        if self._usage is None:
            return self._estimated(self._reading.characters)
        told = self._used(parse_usage(self._usage), self._reading.characters)
        written = max(told.output_tokens, tokens_in(self._reading.characters))
        return msgspec.structs.replace(told, output_tokens=written, estimated=True)


def _index(value: dict[str, Any]) -> int:
    index = value.get("index")
    return index if type(index) is int else 0
