"""Answers of this wire written from deltas: the events of a stream, or one plain message."""

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from cauce.domain.citation import Citation
from cauce.domain.completion import Completion
from cauce.domain.delta import (
    Attempt,
    Delta,
    Failed,
    Finish,
    FinishReason,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.extra import Extra
from cauce.domain.message import RefusalPart
from cauce.wire.anthropic_messages.blocks import REDACTED, answer_block, own, render_citation
from cauce.wire.anthropic_messages.decode import REASONS
from cauce.wire.anthropic_messages.errors import render_failed
from cauce.wire.anthropic_messages.events import Blocks, event
from cauce.wire.anthropic_messages.usage import WIRE, render_usage
from cauce.wire.signing import seal
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_AFTER_TEXT = b"}}\n\n"

_WORDS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "cancelled": "end_turn",
    "error": "end_turn",
}
_RESTARTED = Failed("provider_error", "the answer began anew, which cannot be shown here: ask again")
_CANCELLED = Failed("provider_error", "the answer was cancelled")


class MessagesProjector:
    """Deltas in, events out: a fold without clock or randomness.

    `id` and `model` stand in the message. `input_tokens` is shown at its start where the upstream did not tell in this wire's
    words; `thinking` says whether the client wants reasoning of other wires. What goes wrong is an `error` event, and nothing
    follows it.
    """

    def __init__(self, id: str, model: str, *, input_tokens: int = 0, thinking: bool = False) -> None:
        self._head: dict[str, Any] = {"id": id, "type": "message", "role": "assistant", "model": model, "content": []}
        self._input_tokens = input_tokens
        self._thinking = thinking
        self._blocks = Blocks()
        self._started = False
        self._ended = False
        self._own = False
        """The upstream speaks this wire."""
        self._refused = False

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        before_text = self._blocks.before_text
        for delta in deltas:
            if type(delta) is Text and before_text and delta.extra is None and not (delta.begins or delta.choice):
                # The event most streams consist of: only the text differs from one to the next.
                out.append(before_text + _encode(delta.text) + _AFTER_TEXT)
                continue
            if not (self._ended or delta.choice):
                self._render(delta, out)
            before_text = self._blocks.before_text
        return one_line(b"".join(out))

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Text() | Reasoning() | Refusal() | Citation() | Opaque() | ToolCall():
                self._own = self._own or (delta.extra is not None and delta.extra.wire == WIRE)
                if self._shown(delta):
                    self._start(delta.extra, out)
                    self._content(delta, out)
            case Finish():
                self._finish(delta, out)
            case Restart():
                self._fail(_RESTARTED, out)
            case Attempt():
                self._own = False
            case Status() | ToolResult():
                # No place for them on this wire.
                pass
            case _:
                assert_never(delta)

    def _shown(self, delta: Text | Reasoning | Refusal | Citation | Opaque | ToolCall) -> bool:
        """Whether a client of this wire gets to see `delta`."""
        match delta:
            case Reasoning():
                return self._own or self._thinking
            case Text(text):
                return bool(text) or (delta.extra is not None and delta.extra.wire == WIRE)
            case Opaque(wire):
                return wire == WIRE
            case _:
                return True

    def _start(self, extra: Extra | None, out: list[bytes]) -> None:
        """`message_start`, once: with what the upstream said in its own, where it speaks this wire."""
        if self._started:
            return
        self._started = True
        usage = {
            "input_tokens": self._input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 1,
        }
        said = own(extra, "message")
        message = {**self._head, "stop_reason": None, "stop_sequence": None, "usage": usage, **said}
        out.append(event("message_start", message=message))

    def _content(self, delta: Text | Reasoning | Refusal | Citation | Opaque | ToolCall, out: list[bytes]) -> None:
        blocks = self._blocks
        match delta:
            case Text(text, _, extra, begins):
                blocks.text(text, own(extra, "block"), out, begins=begins)
            case Refusal(text):
                self._refused = True
                blocks.text(text, {}, out)
            case Citation():
                blocks.citation(render_citation(delta), out)
            case Reasoning(text, signature, _, extra, begins):
                if signature is not None and signature.id == REDACTED and signature.wire == WIRE:
                    blocks.whole({"type": REDACTED, "data": signature.data, **own(extra, "block")}, out)
                else:
                    sealed = seal(signature, WIRE) if signature is not None else None
                    blocks.thinking(text, sealed, own(extra, "block"), out, begins=begins)
            case ToolCall():
                blocks.call(delta, out)
            case Opaque(_, data):
                blocks.whole(data, out, (delta.extra.data.get("deltas", ()) if delta.extra is not None else ()))
            case _:
                assert_never(delta)
        if not isinstance(delta, Opaque):
            blocks.unknown(delta.extra, out)

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.error is not None or finish.outcome == "cancelled":
            self._fail(finish.error or _CANCELLED, out)
            return
        self._start(finish.extra, out)
        self._blocks.close_all(out)
        ending = _ending(finish.reason, finish.extra, refused=self._refused)
        usage = render_usage(finish.usage)
        out.append(event("message_delta", delta=ending, usage=usage, **own(finish.extra, "event")))
        out.append(event("message_stop"))
        self._ended = True

    def _fail(self, failed: Failed, out: list[bytes]) -> None:
        body = render_failed(failed)
        out.append(event("error", **{name: value for name, value in body.items() if name != "type"}))
        self._blocks.before_text = b""
        self._ended = True


def render_message(completion: Completion, id: str, model: str, *, thinking: bool = False) -> bytes:
    """The plain answer, as JSON. `thinking` says whether the client wants reasoning of other wires."""
    choice = completion.choices[0]
    blocks = [answer_block(part, thinking=thinking) for part in choice.parts]
    refused = any([isinstance(part, RefusalPart) for part in choice.parts])
    said: dict[str, Any] = {}
    for extra in (*choice.extras, *([completion.extra] if completion.extra is not None else [])):
        said.update({name: value for name, value in own(extra, "message").items() if name != "usage"})
    return _encode(
        {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [block for block in blocks if block is not None],
            **said,
            **_ending(choice.finish_reason, completion.extra, refused=refused),
            **own(completion.extra, "event"),
            "usage": render_usage(completion.usage),
        }
    )


def _ending(reason: FinishReason, extra: Extra | None, *, refused: bool) -> dict[str, Any]:
    """How it ended: in the upstream's own words where it spoke this wire, and they say the same as ours."""
    said = own(extra, "delta")
    word = said.get("stop_reason")
    if not (isinstance(word, str) and REASONS.get(word, "stop") == reason):
        word = _WORDS["content_filter" if refused and reason == "stop" else reason]
    return {"stop_sequence": None, **said, "stop_reason": word}
