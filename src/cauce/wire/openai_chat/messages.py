"""Messages of the chat wire, to and from the domain. The native wire takes the same messages."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import Message, OpaquePart, Part, ReasoningPart, RefusalPart, Role, TextPart, ToolCallPart
from cauce.wire.dropping import dropped
from cauce.wire.openai_chat.calls import FunctionCallBody, ToolCallBody, legacy_call, parse_calls, render_call
from cauce.wire.openai_chat.content import as_content, parse_part, render_part
from cauce.wire.openai_chat.extras import WIRE, fields, unknown
from cauce.wire.openai_chat.reasoning import parse_details, render_details

_FAILED = "The tool failed and said nothing."


class MessageBody(msgspec.Struct):
    """One message. `content` is text or a list of parts (`text`, `image_url`, `file`, …)."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    function_call: FunctionCallBody | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None


class PlainMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is a text and nothing else."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


_BARE = frozenset({"role", "content"})
_SPEAKERS: frozenset[Role] = frozenset({"system", "developer", "user", "assistant"})
_FIELDS = frozenset(MessageBody.__struct_fields__)


def parse_messages(bodies: list[MessageBody], raw: list[dict[str, Any]]) -> tuple[Message, ...]:
    """Domain messages of checked `bodies`; `raw` is the JSON they were read from, for what the structs do not know."""
    if not bodies:
        raise InvalidRequest("messages: must hold at least one message", field="messages")
    open_calls: dict[str, str] = {}
    return tuple([_message(body, raw[index], index, open_calls) for index, body in enumerate(bodies)])


def _message(body: MessageBody, raw: dict[str, Any], index: int, open_calls: dict[str, str]) -> Message:
    """`open_calls` are the calls told in the old form so far: the id of the newest one of each function."""
    if raw.keys() == _BARE and type(body.content) is str and body.role in _SPEAKERS:
        return Message(body.role, (TextPart(body.content),))
    path = f"messages[{index}]"
    parts = _parts(body, path)
    call_id = body.tool_call_id
    if body.tool_calls:
        parts.extend(parse_calls(body.tool_calls, raw["tool_calls"], f"{path}.tool_calls"))
    if body.function_call is not None:
        call = legacy_call(body.function_call, index)
        open_calls[call.name] = call.call_id
        parts.append(call)
    if body.role == "function":
        if body.name is None:
            raise InvalidRequest(f"{path}.name: is required", field=f"{path}.name")
        call_id = open_calls.get(body.name)
        if call_id is None:
            raise InvalidRequest(
                f"{path}.name: no assistant message before it calls the function {body.name!r}", field=f"{path}.name"
            )
    elif body.role == "tool" and call_id is None:
        raise InvalidRequest(f"{path}.tool_call_id: is required", field=f"{path}.tool_call_id")
    role = "tool" if body.role == "function" else body.role
    return Message(role, tuple(parts), body.name, call_id, unknown(raw, _FIELDS))


def _parts(body: MessageBody, path: str) -> list[Part]:
    thought = body.reasoning_content or body.reasoning or ""
    parts: list[Part] = []
    if body.reasoning_details:
        parts.extend(parse_details(body.reasoning_details, thought))
    elif thought:
        parts.append(ReasoningPart(thought))
    content = body.content
    if isinstance(content, str):
        parts.append(TextPart(content))
    elif content is not None:
        parts.extend([parse_part(part, f"{path}.content[{place}]") for place, part in enumerate(content)])
    elif body.role != "assistant":
        raise InvalidRequest(f"{path}.content: is required", field=f"{path}.content")
    if body.refusal:
        parts.append(RefusalPart(body.refusal))
    return parts


def render_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """`messages` as the wire has them. Raises `Unsupported`."""
    rendered: list[dict[str, Any]] = []
    for message in messages:
        parts = message.parts
        if (
            len(parts) == 1
            and type(part := parts[0]) is TextPart
            and part.extra is None
            and message.name is None
            and message.call_id is None
            and message.extra is None
        ):
            # What nearly every message is.
            rendered.append({"role": message.role, "content": part.text})
        else:
            rendered.append(render_message(message))
    return rendered


def render_message(message: Message) -> dict[str, Any]:
    """`message` as the wire has it, with all that any server of it understands. Raises `Unsupported`.

    What another wire's model made that this one has no place for is left out of the assistant's messages.
    """
    parts = message.parts
    contents: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[ReasoningPart] = []
    body: dict[str, Any] = {"role": message.role}
    for part in parts:
        match part:
            case ReasoningPart():
                thoughts.append(part)
            case ToolCallPart():
                calls.append(render_call(part))
            case RefusalPart(text):
                body["refusal"] = body.get("refusal", "") + text
            case OpaquePart(wire) if message.role == "assistant" and wire != WIRE:
                dropped(WIRE, f"an assistant's content that only {wire} knows")
            case _:
                contents.append(render_part(part))
    if thoughts:
        _lay_thoughts(body, thoughts)
    body["content"] = as_content(contents)
    if message.failed and not contents:
        body["content"] = _FAILED
    if calls:
        body["tool_calls"] = calls
    if message.name is not None:
        body["name"] = message.name
    if message.call_id is not None:
        body["tool_call_id"] = message.call_id
    body.update(fields(message.extra))
    return body


def _lay_thoughts(body: dict[str, Any], thoughts: list[ReasoningPart]) -> None:
    if text := "".join([part.text for part in thoughts]):
        body["reasoning_content"] = text
    if details := render_details(thoughts):
        body["reasoning_details"] = details
