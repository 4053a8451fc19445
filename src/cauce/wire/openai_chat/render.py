"""Answers of the chat wire written from deltas: chunks of a stream, or one plain completion."""

from collections.abc import Sequence
from typing import Any, assert_never, cast

import msgspec

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
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
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.errors import render_failed
from cauce.wire.openai_chat.messages import WIRE
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"
_AFTER_TEXT = b'},"finish_reason":null}]}\n\n'

_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "cancelled": "stop",
    "error": "stop",
}


class ChatProjector:
    """Deltas in, chunks out: a fold without clock or randomness.

    `id`, `model` and `created` (UNIX seconds) stand in every chunk. No chunk has empty `choices` but the usage chunk, which
    is sent only if `include_usage`: clients index `choices[0]`.
    """

    def __init__(self, id: str, model: str, created: int, *, include_usage: bool = False) -> None:
        self._head: dict[str, Any] = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._before_text = self._before({})
        self._shared: Extra | None = None
        self._before_shared = b""
        self._include_usage = include_usage
        self._roles: set[int] = set()
        self._calls: set[tuple[int, int]] = set()
        self._named: set[tuple[int, int]] = set()

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The chunks of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        for delta in deltas:
            if delta.choice not in self._roles and not isinstance(delta, Finish | Attempt):
                self._roles.add(delta.choice)
                out.append(self._chunk(delta.choice, {"role": "assistant", "content": ""}))
            if type(delta) is Text and not delta.choice:
                # The line most streams consist of: only the text differs from one to the next.
                extra = delta.extra
                if extra is None:
                    out.append(self._before_text + _encode(delta.text) + _AFTER_TEXT)
                    continue
                if extra is self._shared or self._share(extra):
                    out.append(self._before_shared + _encode(delta.text) + _AFTER_TEXT)
                    continue
            self._render(delta, out)
        return one_line(b"".join(out))

    def _before(self, fields: dict[str, Any]) -> bytes:
        """A chunk of text up to its text."""
        return b"data: " + _encode({**fields, **self._head})[:-1] + b',"choices":[{"index":0,"delta":{"content":'

    def _share(self, extra: Extra) -> bool:
        """Whether chunks with `extra` differ in their text only; prepares them if so."""
        if extra.wire != WIRE or extra.data.keys() != {"chunk"}:
            return False
        self._shared = extra
        self._before_shared = self._before(extra.data["chunk"])
        return True

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Text(text, choice, extra):
                out.append(self._chunk(choice, {"content": text} if text or extra is None else {}, extra))
            case Reasoning(text, _, choice, extra):
                out.append(self._chunk(choice, {"reasoning_content": text}, extra))
            case Refusal(text, choice, extra):
                out.append(self._chunk(choice, {"refusal": text}, extra))
            case ToolCall(index, call_id, name, arguments, "piece", choice, extra):
                call = self._call(choice, index, call_id, name, arguments)
                _lay_call(call, extra)
                out.append(self._chunk(choice, {"tool_calls": [call]}, extra))
            case Finish():
                self._finish(delta, out)
            case ToolCall() | ToolResult() | Citation() | Status() | Attempt() | Restart() | Opaque():
                # `ready` repeats its pieces; the rest has no place on this wire.
                pass
            case _:
                assert_never(delta)

    def _call(self, choice: int, index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
        if (choice, index) in self._calls:
            late = {"name": name} if name and (choice, index) not in self._named else {}
            self._named.add((choice, index))
            return {"index": index, "function": {**late, "arguments": arguments}}
        self._calls.add((choice, index))
        if name:
            self._named.add((choice, index))
        return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.error is not None:
            out.append(b"data: " + _encode(render_failed(finish.error)) + b"\n\n")
            return
        for choice, reason in enumerate(finish.reasons or (finish.reason,)):
            out.append(self._chunk(choice, {}, finish.extra, _reason(choice, reason, finish.extra)))
        if self._include_usage:
            chunk: dict[str, Any] = {**self._head, "choices": [], "usage": render_usage(finish.usage)}
            out.append(b"data: " + _encode(chunk) + b"\n\n")
        out.append(_DONE)

    def _chunk(
        self, choice: int, delta: dict[str, Any], extra: Extra | None = None, reason: str | None = None
    ) -> bytes:
        chunk = _overlay(self._head, choice, "delta", delta, reason, (extra,) if extra is not None else ())
        return b"data: " + _encode(chunk) + b"\n\n"


def render_completion(completion: Completion, id: str, model: str, created: int) -> bytes:
    """The plain answer, as JSON."""
    head: dict[str, Any] = {"id": id, "object": "chat.completion", "created": created, "model": model}
    choices: list[Any] = []
    body = head
    for index, choice in enumerate(completion.choices):
        extras = choice.extras if completion.extra is None else (*choice.extras, completion.extra)
        reason = _reason(index, choice.finish_reason, completion.extra)
        one = _overlay(head, index, "message", _message(choice), reason, extras)
        choices.extend(one["choices"])
        body = {**body, **one}
    body["choices"] = choices
    body["usage"] = render_usage(completion.usage)
    return _encode(body)


def _reason(choice: int, reason: FinishReason, extra: Extra | None) -> str:
    """The finish reason of a choice: the upstream's own word where it spoke this wire."""
    own: dict[str, str] = extra.data.get("finish_reasons", {}) if extra is not None and extra.wire == WIRE else {}
    return own.get(str(choice), _REASONS[reason])


def _lay_call(call: dict[str, Any], extra: Extra | None) -> None:
    """Put the unknown fields of a tool call back where they came from."""
    if extra is not None and extra.wire == WIRE:
        call.update(extra.data.get("call", {}))
        if call.get("type", "function") == "function":
            call["function"].update(extra.data.get("function", {}))
        else:
            # Another kind of call: what it is made of has been put back with its own fields.
            del call["function"]


def _message(choice: Choice) -> dict[str, Any]:
    # A refusal, audio or a call stands in place of text: clients tell by the null.
    instead = bool(choice.tool_calls) or any(["delta" in extra.data for extra in choice.extras])
    message: dict[str, Any] = {"role": "assistant", "content": choice.text if choice.text or not instead else None}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.tool_calls
        ]
        for body, call in zip(message["tool_calls"], choice.tool_calls, strict=True):
            _lay_call(body, call.extra)
    return message


def _overlay(
    head: dict[str, Any], choice: int, part: str, content: dict[str, Any], reason: str | None, extras: tuple[Extra, ...]
) -> dict[str, Any]:
    """A chunk or completion of one choice with its unknown fields laid back where they came from."""
    body: dict[str, Any] = {"index": choice, part: content, "finish_reason": reason}
    whole: dict[str, Any] = {**head, "choices": [body]}
    for extra in extras:
        if extra.wire == WIRE:
            whole = {**extra.data.get("chunk", {}), **whole}
            _lay(body, extra.data.get("choice", {}))
            _lay(content, extra.data.get("delta", {}))
    return whole


def _lay(target: dict[str, Any], extra: dict[str, Any]) -> None:
    """Put unknown fields into `target`. Where pieces of a stream are put together, lists (log probabilities) are joined."""
    for name, value in extra.items():
        there = target.get(name)
        if isinstance(there, list) and isinstance(value, list):
            target[name] = [*cast(list[Any], there), *cast(list[Any], value)]
        elif isinstance(there, dict) and isinstance(value, dict):
            joined = dict(cast(dict[str, Any], there))
            _lay(joined, cast(dict[str, Any], value))
            target[name] = joined
        elif name == "refusal" and isinstance(there, str) and isinstance(value, str):
            target[name] = there + value
        else:
            target[name] = value


def render_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this wire shows it: the provider's own object where it spoke this wire, with our figures on top."""
    own: dict[str, Any] = usage.extra.data if usage.extra is not None and usage.extra.wire == WIRE else {}
    return {
        **own,
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            **_details(own, "prompt_tokens_details"),
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {
            **_details(own, "completion_tokens_details"),
            "reasoning_tokens": usage.reasoning_tokens,
        },
    }


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    return cast(dict[str, Any], details) if isinstance(details, dict) else {}
