"""Messages of this wire, to and from the domain.

A result of a tool is a message of its own in the domain and a block of a user message here; system messages that come first
are a field of the request.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import DocumentPart, ImagePart, Message, OpaquePart, Part, TextPart
from cauce.wire.anthropic_messages.blocks import block_extra, own, parse_block, render_block, tool_id
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.dropping import dropped
from cauce.wire.fields import rest


class MessageBody(msgspec.Struct):
    """One message. `content` is text or a list of blocks."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


_MESSAGE = frozenset(MessageBody.__struct_fields__)
_RESULT = frozenset({"type", "tool_use_id", "content", "is_error"})


def parse_system(system: str | list[dict[str, Any]]) -> Message:
    """The system prompt as a message. Raises `InvalidRequest`."""
    return Message("system", _parts(system, "system"))


def parse_messages(bodies: list[MessageBody], raw: list[dict[str, Any]]) -> list[Message]:
    """Domain messages of checked `bodies`; `raw` is the JSON they were read from. Raises `InvalidRequest`."""
    if not bodies:
        raise InvalidRequest("messages: must hold at least one message", field="messages")
    messages: list[Message] = []
    for index, body in enumerate(bodies):
        path = f"messages[{index}].content"
        unknown = rest(raw[index], _MESSAGE)
        extra = Extra(WIRE, {"message": unknown}) if unknown or body.role == "system" else None
        if body.role == "user" and isinstance(body.content, list):
            messages.extend(_user(body.content, path, extra))
        else:
            messages.append(Message(body.role, _parts(body.content, path), extra=extra))
    return messages


def _parts(content: str | list[dict[str, Any]], path: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple([parse_block(block, f"{path}[{place}]") for place, block in enumerate(content)])


def _user(content: list[dict[str, Any]], path: str, extra: Extra | None) -> list[Message]:
    """A user message, its tool results taken apart."""
    messages: list[Message] = []
    parts: list[Part] = []
    for place, block in enumerate(content):
        if block.get("type") != "tool_result":
            parts.append(parse_block(block, f"{path}[{place}]"))
            continue
        if parts:
            messages.append(Message("user", tuple(parts), extra=extra))
            parts = []
        messages.append(_result(block, f"{path}[{place}]"))
    if parts or not messages:
        messages.append(Message("user", tuple(parts), extra=extra))
    return messages


def _result(block: dict[str, Any], path: str) -> Message:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise InvalidRequest(f"{path}.tool_use_id: must be a string", field=f"{path}.tool_use_id")
    content: Any = block.get("content")
    parts: tuple[Part, ...] = ()
    if isinstance(content, str):
        parts = (TextPart(content),)
    elif isinstance(content, list):
        parts = _parts(_blocks(cast(list[Any], content), path), f"{path}.content")
    elif content is not None:
        raise InvalidRequest(f"{path}.content: must be a string or a list of blocks", field=f"{path}.content")
    failed = block.get("is_error") is True
    return Message("tool", parts, call_id=call_id, extra=block_extra(block, _RESULT), failed=failed)


def _blocks(content: list[Any], path: str) -> list[dict[str, Any]]:
    for place, block in enumerate(content):
        if not isinstance(block, dict):
            field = f"{path}.content[{place}]"
            raise InvalidRequest(f"{field}: must be an object", field=field)
    return cast(list[dict[str, Any]], content)


class _Turn:
    """A message on its way upstream."""

    __slots__ = ("blocks", "extra", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.blocks: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.results = False

    def body(self) -> dict[str, Any]:
        return {"role": self.role, "content": _content(self.blocks), **self.extra}


def render_messages(messages: Sequence[Message]) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt (empty if there is none) and the messages, as they are sent. Raises `Unsupported`, `InvalidRequest`."""
    system: list[dict[str, Any]] = []
    turns: list[_Turn] = []
    for message in messages:
        if message.name is not None:
            dropped(WIRE, "messages.name")
        if message.role in ("system", "developer"):
            blocks = _system_blocks(message)
            if not turns and not _stood_among_messages(message):
                system.extend(blocks)
            elif blocks:
                turns.append(_later_system(message, blocks))
        else:
            _add(message, turns)
    if not turns:
        raise InvalidRequest("messages: this model needs at least one message with content", field="messages")
    return _content(system), [turn.body() for turn in turns]


def _stood_among_messages(message: Message) -> bool:
    return message.extra is not None and message.extra.wire == WIRE


def _system_blocks(message: Message) -> list[dict[str, Any]]:
    if any([isinstance(part, ImagePart | DocumentPart) for part in message.parts]):
        raise Unsupported(
            "system messages with images or documents cannot be sent to this model: put them into a user message",
            field="messages",
        )
    return _rendered(message)


def _later_system(message: Message, blocks: list[dict[str, Any]]) -> _Turn:
    """A system message after the conversation has begun. Only new models take that role there, so others' are user messages."""
    if _stood_among_messages(message):
        turn = _Turn("system")
        turn.extra = own(message.extra, "message")
        turn.blocks = blocks
        return turn
    turn = _Turn("user")
    turn.blocks = [
        {"type": "text", "text": f"<system>\n{block['text']}\n</system>"} for block in blocks if "text" in block
    ]
    return turn


def _add(message: Message, turns: list[_Turn]) -> None:
    """Put `message` behind `turns`. Results of tools and what the user says to them are one message, as the API wants it."""
    role = "assistant" if message.role == "assistant" else "user"
    blocks = [_rendered_result(message)] if message.role == "tool" else _rendered(message)
    if not blocks:
        return
    last = turns[-1] if turns else None
    result = message.role == "tool"
    if last is None or last.role != "user" or role != "user" or not (result or last.results):
        last = _Turn(role)
        turns.append(last)
    last.blocks.extend(blocks)
    last.results = last.results or result
    last.extra = {**last.extra, **own(message.extra, "message")}


def _rendered(message: Message) -> list[dict[str, Any]]:
    parts = message.parts
    if message.role == "assistant":
        # What another maker's servers did along the way is no part of what was said.
        parts = tuple([part for part in parts if not _foreign_opaque(part)])
    blocks = [render_block(part) for part in parts]
    return [block for block in blocks if block is not None]


def _foreign_opaque(part: Part) -> bool:
    foreign = isinstance(part, OpaquePart) and part.wire != WIRE
    if foreign:
        dropped(WIRE, "what other makers' tools did")
    return foreign


def _rendered_result(message: Message) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": tool_id(message.call_id or "")}
    if content := _content(_rendered(message)):
        block["content"] = content
    if message.failed:
        block["is_error"] = True
    return {**block, **own(message.extra, "block")}


def _content(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A single plain text is sent as a string."""
    if not blocks:
        return ""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return blocks
