"""Streamed answers of the Responses wire, written from deltas: numbered, named events."""

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
from cauce.domain.message import ToolCallPart
from cauce.domain.signature import Signature
from cauce.wire.openai_responses.blocks import Call, Message, Thought
from cauce.wire.openai_responses.content import render_annotation, render_logprobs
from cauce.wire.openai_responses.errors import render_failure
from cauce.wire.openai_responses.names import WIRE, made_id, own
from cauce.wire.openai_responses.response import (
    Head,
    call_item,
    corrected,
    ended,
    is_custom,
    proof_item,
    response_object,
)
from cauce.wire.openai_responses.tools import as_input
from cauce.wire.openai_responses.usage import render_usage
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_TEXT = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
_AFTER_TEXT = b',"logprobs":[]}\n\n'


class ResponsesProjector:
    """Deltas in, events out: a fold without clock or randomness. Sequence numbers are dense from 0.

    Items of the same wire keep their ids; others get ones made of the response's id and their place. A message or a piece of
    reasoning ends when something else begins.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._number = 0
        self._output: list[dict[str, Any]] = []
        """Items by output index, as they are so far."""
        self._message: Message | None = None
        self._thought: Thought | None = None
        self._calls: dict[int, Call] = {}
        self._theirs: dict[int, int] = {}
        """From the upstream's output index of an item only this wire knows to ours."""
        self._texts: list[str] | None = None
        """Pieces of the text part that is open, if one is."""
        self._before_text = b""
        self._refused = False
        self.response: dict[str, Any] | None = None
        """The whole response, once it has ended."""

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        if not self._number:
            self._begin(out)
        for delta in deltas:
            if type(delta) is Text and self._texts is not None:
                # The line most streams consist of: only the text and the number differ from one to the next.
                extra = delta.extra
                if (extra is None or extra.wire != WIRE) and not (delta.begins or delta.logprobs or delta.choice):
                    text = delta.text
                    if text:
                        self._texts.append(text)
                        out.append(_TEXT + b"%d" % self._number + self._before_text + _encode(text) + _AFTER_TEXT)
                        self._number += 1
                    continue
            if not delta.choice:
                self._render(delta, out)
        return one_line(b"".join(out))

    def _begin(self, out: list[bytes]) -> None:
        begun = response_object(self._head, "in_progress", (), {})
        self._emit(out, "response.created", {"response": begun})
        self._emit(out, "response.in_progress", {"response": begun})

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Text():
                self._text(delta, out)
            case Refusal():
                self._refusal(delta, out)
            case Reasoning():
                self._reasoning(delta, out)
            case Citation():
                self._citation(delta, out)
            case ToolCall():
                self._call(delta, out)
            case Opaque(wire, data):
                if wire == WIRE:
                    self._opaque(data, out)
            case Finish():
                self._finish(delta, out)
            case ToolResult() | Status() | Attempt() | Restart():
                # These have no place on this wire.
                pass
            case _:
                assert_never(delta)

    def _emit(self, out: list[bytes], name: str, fields: dict[str, Any]) -> None:
        event = {"type": name, "sequence_number": self._number, **fields}
        self._number += 1
        out.append(b"event: " + name.encode() + b"\ndata: " + _encode(event) + b"\n\n")

    def _text(self, delta: Text, out: list[bytes]) -> None:
        data = own(delta.extra)
        if delta.text or "item" in data or "part" in data:
            message = self._writing("output_text", data, out, begins=delta.begins)
            if delta.text:
                message.texts.append(delta.text)
                logprobs = render_logprobs(delta.logprobs)
                message.logprobs.extend(logprobs)
                self._emit(
                    out, "response.output_text.delta", {**message.place, "delta": delta.text, "logprobs": logprobs}
                )
        if self._message is not None:
            self._message.fields.update(data.get("done", {}))

    def _refusal(self, delta: Refusal, out: list[bytes]) -> None:
        data = own(delta.extra)
        if delta.text or "item" in data or "part" in data:
            self._refused = True
            message = self._writing("refusal", data, out)
            message.texts.append(delta.text)
            self._emit(out, "response.refusal.delta", {**message.place, "delta": delta.text})
        if self._message is not None:
            self._message.fields.update(data.get("done", {}))

    def _writing(self, kind: str, data: dict[str, Any], out: list[bytes], *, begins: bool = False) -> Message:
        """The message with a part of `kind` open that the next piece belongs to."""
        message = self._message
        if message is None or "item" in data:
            self._close(out)
            message = self._open_message(data.get("item", {}), out)
        elif begins or message.kind != kind:
            self._close_part(message, out)
        if not message.kind:
            message.open_part(kind, data.get("part", {}))
            self._emit(out, "response.content_part.added", {**message.place, "part": message.part(empty=True)})
            if kind == "output_text":
                self._texts = message.texts
                place = _encode(message.place)
                self._before_text = b"," + place[1:-1] + b',"delta":'
        return message

    def _open_message(self, fields: dict[str, Any], out: list[bytes]) -> Message:
        message = Message(len(self._output), made_id("message", self._head.id, len(self._output)), fields)
        self._message = message
        self._add(message.item("in_progress"), out)
        return message

    def _citation(self, delta: Citation, out: list[bytes]) -> None:
        annotation = render_annotation(delta)
        if annotation is not None:
            message = self._writing("output_text", {}, out)
            number = len(message.annotations)
            message.annotations.append(annotation)
            told = {"annotation_index": number, "annotation": annotation}
            self._emit(out, "response.output_text.annotation.added", {**message.place, **told})

    def _reasoning(self, delta: Reasoning, out: list[bytes]) -> None:
        data = own(delta.extra)
        if not (delta.text or delta.signature is not None or data):
            return
        thought = self._thought
        if thought is None or delta.begins or "item" in data:
            self._close(out)
            index = len(self._output)
            thought = Thought(index, made_id("reasoning", self._head.id, index), data.get("item", {}))
            self._thought = thought
            self._add(thought.item(), out)
        for _, kind in data.get("parts", ()):
            self._close_thought_part(thought, out)
            self._open_thought_part(thought, kind, out)
        if delta.text:
            if not thought.kind:
                self._open_thought_part(thought, "summary_text", out)
            thought.texts.append(delta.text)
            self._emit(out, f"{thought.text_event}.delta", {**thought.place, "delta": delta.text})
        thought.signature = delta.signature or thought.signature
        thought.fields.update(data.get("done", {}))

    def _open_thought_part(self, thought: Thought, kind: str, out: list[bytes]) -> None:
        thought.open_part(kind)
        self._emit(out, f"{thought.part_event}.added", {**thought.place, "part": {"type": kind, "text": ""}})

    def _close_thought_part(self, thought: Thought, out: list[bytes]) -> None:
        if thought.kind:
            place, text_event, part_event = thought.place, thought.text_event, thought.part_event
            part = thought.close_part()
            self._emit(out, f"{text_event}.done", {**place, "text": part["text"]})
            self._emit(out, f"{part_event}.done", {**place, "part": part})

    def _call(self, delta: ToolCall, out: list[bytes]) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._close(out)
            call = self._calls[delta.index] = Call(own(delta.extra).get("item"))
        if delta.signature is not None and not call.signed:
            call.signed = True
            self._proof(delta.call_id, delta.signature, out)
        if not call.opened and (delta.name or delta.mark == "ready"):
            self._open_call(call, delta, out)
        if delta.mark == "piece":
            self._call_piece(call, delta, out)
            return
        del self._calls[delta.index]
        if delta.mark == "ready":
            self._call_done(call, delta, out)
        elif call.opened:
            self._done(call.index, {**self._output[call.index], "status": "incomplete"}, out)

    def _proof(self, call_id: str, signature: Signature, out: list[bytes]) -> None:
        """What a model wants back with its call. This wire has a place for such things in reasoning only."""
        index = len(self._output)
        item = proof_item(made_id("reasoning", self._head.id, index), call_id, signature)
        self._add(item, out)
        self._done(index, item, out)

    def _open_call(self, call: Call, delta: ToolCall, out: list[bytes]) -> None:
        part = ToolCallPart(delta.call_id, delta.name, "")
        call.custom = is_custom(part, call.fields, self._head.custom)
        call.index = len(self._output)
        made = made_id("custom_tool_call" if call.custom else "function_call", self._head.id, call.index)
        item = call_item(made, part, call.fields or {}, custom=call.custom)
        item["status"] = "in_progress"
        call.item_id = item["id"]
        call.opened = True
        self._add(item, out)
        waiting, call.pieces = "".join(call.pieces), []
        if waiting:
            self._arguments(call, waiting, out)

    def _call_piece(self, call: Call, delta: ToolCall, out: list[bytes]) -> None:
        data = own(delta.extra)
        if call.custom and "input" in data:
            if data["input"]:
                call.pieces.append(data["input"])
                self._emit(out, "response.custom_tool_call_input.delta", {**call.place, "delta": data["input"]})
        elif delta.arguments and not call.opened:
            call.pieces.append(delta.arguments)
        elif delta.arguments:
            self._arguments(call, delta.arguments, out)

    def _arguments(self, call: Call, text: str, out: list[bytes]) -> None:
        # Free text inside JSON is shown when all of it has come.
        if not call.custom:
            self._emit(out, "response.function_call_arguments.delta", {**call.place, "delta": text})

    def _call_done(self, call: Call, delta: ToolCall, out: list[bytes]) -> None:
        part = ToolCallPart(delta.call_id, delta.name, delta.arguments)
        fields = {**(call.fields or {}), **own(delta.extra).get("item", {})}
        if call.custom:
            text = as_input(delta.arguments)
            if text and not call.pieces:
                self._emit(out, "response.custom_tool_call_input.delta", {**call.place, "delta": text})
            self._emit(out, "response.custom_tool_call_input.done", {**call.place, "input": text})
        else:
            told = {"name": delta.name, "arguments": delta.arguments}
            self._emit(out, "response.function_call_arguments.done", {**call.place, **told})
        self._done(call.index, call_item(call.item_id, part, fields, custom=call.custom), out)

    def _opaque(self, data: dict[str, Any], out: list[bytes]) -> None:
        match data:
            case {"event": {"type": "response.output_item.added", "item": item, **event}}:
                self._close(out)
                self._theirs[event.get("output_index", -1)] = len(self._output)
                self._add(item, out)
            case {"event": {"type": str(name), **event}}:
                index = self._index(event)
                if index is not None:
                    self._emit(out, name, {**event, "output_index": index})
            case {"item": item}:
                index = self._theirs.pop(data.get("output_index", -1), None)
                if index is None:
                    self._close(out)
                    index = len(self._output)
                    self._add(item, out)
                self._done(index, item, out)
            case {"part": part}:
                self._opaque_part(part, data, out)
            case _:
                pass

    def _opaque_part(self, part: dict[str, Any], data: dict[str, Any], out: list[bytes]) -> None:
        message = self._message
        if message is None or "of" in data:
            self._close(out)
            message = self._open_message(data.get("of", {}), out)
        self._close_part(message, out)
        self._emit(out, "response.content_part.added", {**message.place, "part": part})
        self._emit(out, "response.content_part.done", {**message.place, "part": part})
        message.content.append(part)

    def _index(self, event: dict[str, Any]) -> int | None:
        """Our index of the item that an event of the upstream is about, None if we know of none."""
        identifier = event.get("item_id")
        if identifier is not None:
            for index, item in enumerate(self._output):
                if item.get("id") == identifier:
                    return index
        return self._theirs.get(event.get("output_index", -1))

    def _add(self, item: dict[str, Any], out: list[bytes]) -> None:
        self._output.append(item)
        self._emit(out, "response.output_item.added", {"output_index": len(self._output) - 1, "item": item})

    def _done(self, index: int, item: dict[str, Any], out: list[bytes]) -> None:
        self._output[index] = item
        self._emit(out, "response.output_item.done", {"output_index": index, "item": item})

    def _close(self, out: list[bytes], status: str = "completed") -> None:
        """End the message or the reasoning that is open; `status` is what a message's is, unless its upstream says."""
        message, self._message = self._message, None
        thought, self._thought = self._thought, None
        if message is not None:
            self._close_part(message, out)
            self._done(message.index, message.item(status), out)
        if thought is not None:
            self._close_thought_part(thought, out)
            self._done(thought.index, thought.item(), out)

    def _close_part(self, message: Message, out: list[bytes]) -> None:
        self._texts = None
        if message.kind:
            place, kind, logprobs = message.place, message.kind, message.logprobs
            part = message.close_part()
            if kind == "output_text":
                self._emit(out, "response.output_text.done", {**place, "text": part["text"], "logprobs": logprobs})
            else:
                self._emit(out, "response.refusal.done", {**place, "refusal": part["refusal"]})
            self._emit(out, "response.content_part.done", {**place, "part": part})

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        head = self._head
        usage = render_usage(finish.usage)
        if finish.error is not None:
            self._interrupt(out)
            told, error = render_failure(finish.error)
            # As the provider itself tells it; SDKs raise at the first, and never take the answer for complete.
            self._emit(out, "error", {**{name: told[name] for name in ("code", "message", "param")}, "error": told})
            counted = usage if finish.usage.total_tokens else None
            self.response = response_object(head, "failed", self._shown(), {"error": error, "usage": counted})
            self._emit(out, "response.failed", {"response": self.response})
            return
        reason = "cancelled" if finish.outcome == "cancelled" else finish.reason
        status, fields = ended(reason, finish.extra, finish.at, refused=self._refused)
        if status == "completed":
            self._close(out)
        self._interrupt(out)
        output = corrected(self._shown(), finish.extra)
        self.response = response_object(head, status, output, {**fields, "usage": usage})
        event = "response.incomplete" if status in ("incomplete", "cancelled") else "response.completed"
        self._emit(out, event, {"response": self.response})

    def _shown(self) -> list[dict[str, Any]]:
        """The items that the whole response has."""
        return self._output

    def _interrupt(self, out: list[bytes]) -> None:
        """End what is open as incomplete."""
        self._close(out, "incomplete")
        for call in self._calls.values():
            if call.opened:
                self._done(call.index, {**self._output[call.index], "status": "incomplete"}, out)
        self._calls.clear()
