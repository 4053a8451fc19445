"""Messages written as input items."""

from collections.abc import Sequence
from typing import Any

from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.wire.dropping import dropped
from cauce.wire.openai_responses.content import render_inputs, render_output_text, render_refusal
from cauce.wire.openai_responses.names import WIRE, own, sendable
from cauce.wire.openai_responses.tools import as_input

_FAILED = "The tool failed and said nothing."


def render_items(messages: Sequence[Message], custom: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The input items that `messages` are. `custom` are the names of custom tools."""
    history = _History(custom)
    for message in messages:
        history.add(message)
    return history.items


_CALLS = frozenset({"function_call", "custom_tool_call"})


def surviving_items(output: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output items of a response that a conversation goes on from: calls that broke off are none anybody answers."""
    return [item for item in output if not (item.get("type") in _CALLS and item.get("status") == "incomplete")]


class _History:
    def __init__(self, custom: frozenset[str]) -> None:
        self.items: list[dict[str, Any]] = []
        self._custom = custom
        self._free: set[str] = set()
        """Ids of calls that were shown as custom ones: so must their outputs be."""
        self._content: list[dict[str, Any]] | None = None
        """Of the assistant's message that more parts may join."""

    def add(self, message: Message) -> None:
        if message.name is not None:
            dropped(WIRE, "name of a message")
        self._content = None
        if message.role == "assistant":
            for part in message.parts:
                self._said(part)
            return
        fields = sendable(own(message.extra).get("item", {}))
        if message.role == "tool":
            self._output(message, fields)
        elif (content := render_inputs(message.parts)) != []:
            item = {"role": message.role, "content": content}
            self.items.append({"type": "message", **item, **fields} if fields else item)

    def _output(self, message: Message, fields: dict[str, Any]) -> None:
        kind = "custom_tool_call_output" if message.call_id in self._free else "function_call_output"
        output = render_inputs(message.parts) or (_FAILED if message.failed else "")
        self.items.append({"type": kind, "call_id": message.call_id or "", "output": output, **fields})

    def _said(self, part: Part) -> None:
        match part:
            case TextPart():
                self._message(render_output_text(part), own(part.extra).get("item"))
            case RefusalPart():
                self._message(render_refusal(part), own(part.extra).get("item"))
            case OpaquePart(wire, {"part": content, **beside}) if wire == WIRE:
                self._message(content, beside.get("of"))
            case ReasoningPart():
                self._reasoning(part)
            case ToolCallPart():
                self._call(part)
            case OpaquePart(wire, {"item": item}) if wire == WIRE:
                self._add(item)
            case OpaquePart():
                dropped(WIRE, "what only another wire knows of the assistant's turns")
            case ImagePart() | DocumentPart():
                dropped(WIRE, "files of the assistant")

    def _add(self, item: dict[str, Any]) -> None:
        self._content = None
        self.items.append(item)

    def _message(self, content: dict[str, Any], fields: dict[str, Any] | None) -> None:
        if self._content is not None and fields is None:
            self._content.append(content)
            return
        self._content = [content]
        item = {"type": "message", "role": "assistant", "content": self._content}
        self.items.append({**item, **sendable(fields or {})})

    def _reasoning(self, part: ReasoningPart) -> None:
        fields = own(part.extra).get("item")
        signature = part.signature if part.signature is not None and part.signature.wire == WIRE else None
        known = sendable(fields or {})
        if signature is None and "id" not in known:
            # Reasoning of another wire: without a proof of this one it is refused.
            dropped(WIRE, "reasoning of models of another wire")
            return
        item: dict[str, Any] = {"type": "reasoning", **reasoning_texts(part)}
        if signature is not None:
            item["encrypted_content"] = signature.data
            if signature.id is not None:
                item["id"] = signature.id
        self._add({**known, **item})

    def _call(self, part: ToolCallPart) -> None:
        fields = sendable(own(part.extra).get("item", {}))
        item: dict[str, Any] = {"type": "function_call", "call_id": part.call_id, "name": part.name}
        if fields.get("type", "custom_tool_call" if part.name in self._custom else "") == "custom_tool_call":
            self._free.add(part.call_id)
            item["type"] = "custom_tool_call"
            item["input"] = as_input(part.arguments)
        else:
            item["arguments"] = part.arguments
        self._add({**item, **fields})


def reasoning_texts(part: ReasoningPart) -> dict[str, Any]:
    """The `summary` and, where it has one, the `content` of a reasoning item."""
    parts: list[list[Any]] = own(part.extra).get("parts") or ([[0, "summary_text"]] if part.text else [])
    texts: dict[str, list[dict[str, Any]]] = {"summary": []}
    starts = [start for start, _ in parts]
    for (start, kind), end in zip(parts, [*starts, len(part.text)][1:], strict=True):
        member = "summary" if kind == "summary_text" else "content"
        texts.setdefault(member, []).append({"type": kind, "text": part.text[start:end]})
    return texts
