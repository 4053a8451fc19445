"""A streamed answer of the chat wire: deltas in, chunks out."""

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
    Finish,
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
from cauce.wire.openai_chat import custom
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_chat.calls import lay_call, lay_signature
from cauce.wire.openai_chat.citations import render_annotation
from cauce.wire.openai_chat.errors import render_failed
from cauce.wire.openai_chat.extras import WIRE, own
from cauce.wire.openai_chat.logprobs import render_logprobs
from cauce.wire.openai_chat.reasoning import shown
from cauce.wire.openai_chat.shown import overlay, reason_of
from cauce.wire.openai_chat.tools import MODERN, AnswerStyle
from cauce.wire.openai_chat.usage import render_usage
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"
_AFTER_TEXT = b'},"finish_reason":null}]}\n\n'
_AFTER_ARGUMENTS = b'}}]},"finish_reason":null}]}\n\n'
_UNSHOWN = (Finish, Attempt, Status, ToolResult, Restart, Opaque)


class ChatProjector:
    """Deltas in, chunks out: a fold without clock or randomness.

    No chunk has empty `choices` but the usage chunk, which is sent only if `include_usage`: clients index `choices[0]`.
    Citations come in one chunk before the end: assemblers of streams cannot join lists that come in pieces.
    """

    def __init__(self, head: Head, *, include_usage: bool = False, style: AnswerStyle = MODERN) -> None:
        self._head: dict[str, Any] = {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
        }
        self._include_usage = include_usage
        self._style = style
        self._plain_calls = not style.functions and not style.custom
        self._before_text = self._before({}, b'"content":')
        self._shared: Extra | None = None
        self._before_shared = b""
        self._before_thought: tuple[Extra | None, bytes] | None = None
        self._before_arguments: dict[int, tuple[Extra | None, bytes]] = {}
        """Of calls whose opening was sent: a chunk of theirs up to the arguments."""
        self._opened = False
        """Whether the first choice has its first chunk."""
        self._roles: set[int] = set()
        self._calls: set[tuple[int, int]] = set()
        self._named: set[tuple[int, int]] = set()
        self._fields: dict[int, str] = {}
        self._thoughts: dict[int, list[str]] = {}
        self._signed: dict[int, int] = {}
        self._citations: dict[int, list[dict[str, Any]]] = {}
        self._lengths: dict[int, int] = {}
        self._length = 0
        """Characters of text so far: of the first choice, and of each other one in `_lengths`."""
        self._begin: dict[int, int] = {}

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The chunks of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        for delta in deltas:
            # The lines most streams consist of: only a string differs from one to the next.
            if self._opened and not delta.choice:
                if type(delta) is Text:
                    if not (delta.logprobs or delta.begins):
                        extra = delta.extra
                        if extra is None:
                            self._length += len(delta.text)
                            out.append(self._before_text + _encode(delta.text) + _AFTER_TEXT)
                            continue
                        if extra is self._shared or self._share(extra):
                            self._length += len(delta.text)
                            out.append(self._before_shared + _encode(delta.text) + _AFTER_TEXT)
                            continue
                elif type(delta) is ToolCall:
                    known = self._before_arguments.get(delta.index)
                    if known is not None and known[0] is delta.extra and _goes_on(delta):
                        out.append(known[1] + _encode(delta.arguments) + _AFTER_ARGUMENTS)
                        continue
                elif type(delta) is Reasoning:
                    known = self._before_thought
                    if known is not None and known[0] is delta.extra and delta.signature is None and not delta.begins:
                        self._thoughts[0].append(delta.text)
                        out.append(known[1] + _encode(delta.text) + _AFTER_TEXT)
                        continue
            elif delta.choice not in self._roles and not isinstance(delta, _UNSHOWN):
                self._open(delta, out)
            self._render(delta, out)
        return one_line(b"".join(out))

    def _before(self, fields: dict[str, Any], member: bytes) -> bytes:
        """A chunk up to the string in its delta."""
        return b"data: " + _encode({**fields, **self._head})[:-1] + b',"choices":[{"index":0,"delta":{' + member

    def _share(self, extra: Extra) -> bool:
        """Whether chunks with `extra` differ in their text only; prepares them if so."""
        if not _simple(extra):
            return False
        self._shared = extra
        self._before_shared = self._before(extra.data["chunk"], b'"content":')
        return True

    def _open(self, delta: Delta, out: list[bytes]) -> None:
        """The first chunk of a choice. What stands beside the choices there is what assemblers keep."""
        self._roles.add(delta.choice)
        self._opened = 0 in self._roles
        first = {"role": "assistant", "content": "" if isinstance(delta, Text) else None}
        chunk = own(delta.extra).get("chunk")
        out.append(self._chunk(delta.choice, first, Extra(WIRE, {"chunk": chunk}) if chunk else None))

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Text():
                self._text(delta, out)
            case Reasoning():
                self._thought(delta, out)
            case Refusal(text, choice, extra):
                out.append(self._chunk(choice, {"refusal": text}, extra))
            case ToolCall():
                self._tool_call(delta, out)
            case Citation(choice=choice):
                end = self._length if not choice else self._lengths.get(choice, 0)
                annotation = render_annotation(delta, self._begin.get(choice, 0), end)
                if annotation is not None:
                    self._citations.setdefault(choice, []).append(annotation)
            case Finish():
                self._finish(delta, out)
            case ToolResult() | Status() | Attempt() | Restart() | Opaque():
                # No place on this wire.
                pass
            case _:
                assert_never(delta)

    def _text(self, delta: Text, out: list[bytes]) -> None:
        choice, text = delta.choice, delta.text
        before = self._lengths.get(choice, 0) if choice else self._length
        if delta.begins:
            self._begin[choice] = before
        if choice:
            self._lengths[choice] = before + len(text)
        else:
            self._length = before + len(text)
        content = {"content": text} if text or delta.extra is None else {}
        tokens = delta.logprobs if "choice" not in own(delta.extra) else ()
        out.append(self._chunk(choice, content, delta.extra, logprobs=render_logprobs(tokens) if tokens else None))

    def _thought(self, delta: Reasoning, out: list[bytes]) -> None:
        choice, signature = delta.choice, delta.signature
        field = own(delta.extra).get("field") or self._fields.get(choice, "reasoning_content")
        self._fields[choice] = field
        if delta.begins or choice not in self._thoughts:
            self._thoughts[choice] = []
        self._thoughts[choice].append(delta.text)
        content: dict[str, Any] = {field: delta.text} if delta.text else {}
        if signature is not None and signature.wire != WIRE:
            number = self._signed[choice] = self._signed.get(choice, -1) + 1
            content["reasoning_details"] = [shown("".join(self._thoughts[choice]), signature, number)]
            self._thoughts[choice] = []
        if content or delta.extra is not None:
            out.append(self._chunk(choice, content, delta.extra))
        if not choice and signature is None and (delta.extra is None or _simple(delta.extra)):
            fields = own(delta.extra).get("chunk", {})
            self._before_thought = (delta.extra, self._before(fields, b'"' + field.encode() + b'":'))

    def _tool_call(self, delta: ToolCall, out: list[bytes]) -> None:
        if self._style.functions:
            self._function_call(delta, out)
            return
        if custom.is_custom(delta.extra) or delta.name in self._style.custom:
            self._custom_call(delta, out)
            return
        if delta.mark != "piece":
            # It repeats its pieces, or takes them back, for which there is no place here.
            return
        key = (delta.choice, delta.index)
        call = self._call(delta, key)
        lay_call(call, own(delta.extra))
        if delta.signature is not None:
            lay_signature(call, delta.signature)
        out.append(self._chunk(delta.choice, {"tool_calls": [call]}, delta.extra))
        if self._plain_calls and not delta.choice and key in self._named and _repeats(delta.extra):
            fields = own(delta.extra).get("chunk", {})
            opening = b'"tool_calls":[{"index":%d,"function":{"arguments":' % delta.index
            self._before_arguments[delta.index] = (delta.extra, self._before(fields, opening))

    def _call(self, delta: ToolCall, key: tuple[int, int]) -> dict[str, Any]:
        index, name, arguments = delta.index, delta.name, delta.arguments
        if key in self._calls:
            late = {"name": name} if name and key not in self._named else {}
            if name:
                self._named.add(key)
            return {"index": index, "function": {**late, "arguments": arguments}}
        self._calls.add(key)
        if name:
            self._named.add(key)
        function = {"name": name, "arguments": arguments}
        return {"index": index, "id": delta.call_id, "type": "function", "function": function}

    def _custom_call(self, delta: ToolCall, out: list[bytes]) -> None:
        """A custom tool's input: piece by piece from an upstream of this wire, else whole, once all of it can be read."""
        key = (delta.choice, delta.index)
        piece = own(delta.extra).get("custom")
        if delta.mark == "piece" and isinstance(piece, str) and (piece or key not in self._calls):
            text = piece
        elif delta.mark == "ready" and key not in self._calls:
            text = custom.input_of(delta.arguments)
        else:
            return
        call: dict[str, Any] = {"index": delta.index, "custom": {"input": text}}
        if key not in self._calls:
            self._calls.add(key)
            body = {"name": delta.name, "input": text}
            call = {"index": delta.index, "id": delta.call_id, "type": "custom", "custom": body}
        lay_call(call, own(delta.extra))
        out.append(self._chunk(delta.choice, {"tool_calls": [call]}, delta.extra))

    def _function_call(self, delta: ToolCall, out: list[bytes]) -> None:
        """The first call, in the old form. Clients of that form know one only."""
        if delta.mark != "piece" or delta.index:
            return
        key = (delta.choice, delta.index)
        name = {"name": delta.name} if delta.name and key not in self._named else {}
        if name:
            self._named.add(key)
        call = {**name, "arguments": delta.arguments}
        out.append(self._chunk(delta.choice, {"function_call": call}, delta.extra))

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.error is not None:
            out.append(b"data: " + _encode(render_failed(finish.error)) + b"\n\n")
            return
        for choice, reason in enumerate(finish.reasons or (finish.reason,)):
            if choice not in self._roles:
                self._open(Text("", choice, finish.extra), out)
            if annotations := self._citations.get(choice):
                out.append(self._chunk(choice, {"annotations": annotations}))
            word = reason_of(choice, reason, finish.extra, self._style)
            out.append(self._chunk(choice, {}, finish.extra, word))
        if self._include_usage:
            beside = own(finish.extra).get("chunk", {})
            chunk: dict[str, Any] = {**beside, **self._head, "choices": [], "usage": render_usage(finish.usage)}
            out.append(b"data: " + _encode(chunk) + b"\n\n")
        out.append(_DONE)

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        extra: Extra | None = None,
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        body: dict[str, Any] = {"index": choice, "delta": delta, "finish_reason": reason}
        if logprobs is not None:
            body["logprobs"] = logprobs
        chunk = overlay(self._head, body, "delta", (extra,) if extra is not None else ())
        return b"data: " + _encode(chunk) + b"\n\n"


def _simple(extra: Extra) -> bool:
    """Whether `extra` holds nothing but what stands beside the choices, as most of a stream's extras do."""
    return extra.wire == WIRE and extra.data.keys() == {"chunk"}


def _goes_on(call: ToolCall) -> bool:
    return call.mark == "piece" and call.signature is None


def _repeats(extra: Extra | None) -> bool:
    return extra is None or _simple(extra)
