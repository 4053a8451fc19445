"""Messages and tools of the chat wire, to and from the domain. The native wire takes the same messages."""

from typing import Any, Literal

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
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
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.fields import rest

WIRE = "openai_chat"


class FunctionCallBody(msgspec.Struct):
    name: str
    arguments: str = ""


class ToolCallBody(msgspec.Struct):
    id: str
    function: FunctionCallBody
    type: str = "function"


class MessageBody(msgspec.Struct):
    """One message. `content` is text or a list of parts (`text`, `image_url`)."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    reasoning_content: str | None = None


class FunctionBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct):
    function: FunctionBody
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    name: str


class ToolChoiceBody(msgspec.Struct):
    function: NamedFunction
    type: Literal["function"] = "function"


_MESSAGE_FIELDS = frozenset(MessageBody.__struct_fields__)
_TOOL_CALL_FIELDS = frozenset(ToolCallBody.__struct_fields__)
_FUNCTION_FIELDS = frozenset(FunctionBody.__struct_fields__)
_TOOL_FIELDS = frozenset({"type", "function"})


def parse_messages(bodies: list[MessageBody], raw: list[dict[str, Any]]) -> tuple[Message, ...]:
    """Domain messages of checked `bodies`; `raw` is the JSON they were read from, for what the structs do not know."""
    if not bodies:
        raise InvalidRequest("messages: must hold at least one message", field="messages")
    return tuple([_message(body, raw[index], index) for index, body in enumerate(bodies)])


def _message(body: MessageBody, raw: dict[str, Any], index: int) -> Message:
    parts: list[Part] = []
    if body.reasoning_content:
        parts.append(ReasoningPart(body.reasoning_content))
    content = body.content
    if isinstance(content, str):
        parts.append(TextPart(content))
    elif content is not None:
        parts.extend([_part(part, f"messages[{index}].content[{place}]") for place, part in enumerate(content)])
    elif body.role != "assistant":
        raise InvalidRequest(f"messages[{index}].content: is required", field=f"messages[{index}].content")
    if body.tool_calls:
        parts.extend(
            [
                ToolCallPart(
                    call.id,
                    call.function.name,
                    call.function.arguments,
                    _extra(raw["tool_calls"][place], _TOOL_CALL_FIELDS),
                )
                for place, call in enumerate(body.tool_calls)
            ]
        )
    if body.role == "tool" and body.tool_call_id is None:
        raise InvalidRequest(f"messages[{index}].tool_call_id: is required", field=f"messages[{index}].tool_call_id")
    return Message(body.role, tuple(parts), body.name, body.tool_call_id, _extra(raw, _MESSAGE_FIELDS))


def _part(part: dict[str, Any], path: str) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text, _extra(part, frozenset({"type", "text"})))
        case {"type": "image_url", "image_url": {"url": str(url), **options}}:
            detail = options.pop("detail", None)
            extra: dict[str, Any] = rest(part, frozenset({"type", "image_url"}))
            if options:
                extra["image_url"] = options
            return ImagePart(url, detail if isinstance(detail, str) else None, Extra(WIRE, extra) if extra else None)
        case {"type": "text"}:
            raise InvalidRequest(f"{path}.text: must be a string", field=f"{path}.text")
        case {"type": "image_url"}:
            raise InvalidRequest(f"{path}.image_url.url: must be a string", field=f"{path}.image_url.url")
        case {"type": str()}:
            return OpaquePart(WIRE, part)
        case _:
            raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")


def render_message(message: Message) -> dict[str, Any]:
    """`message` as the wire has it. Parts of other wires are left out."""
    contents: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    body: dict[str, Any] = {"role": message.role}
    for part in message.parts:
        match part:
            case TextPart(text, extra):
                contents.append({"type": "text", "text": text, **_own(extra)})
            case ImagePart(url, detail, extra):
                known = {"url": url} if detail is None else {"url": url, "detail": detail}
                own = _own(extra)
                contents.append({"type": "image_url", **own, "image_url": {**known, **own.get("image_url", {})}})
            case ReasoningPart(text):
                body["reasoning_content"] = text
            case ToolCallPart(call_id, name, arguments, extra):
                calls.append(
                    {
                        "id": call_id,
                        "type": "function",
                        "function": {"name": name, "arguments": arguments},
                        **_own(extra),
                    }
                )
            case RefusalPart(text):
                body["refusal"] = text
            case DocumentPart():
                contents.append(_file(part))
            case OpaquePart(wire, data):
                if wire == WIRE:
                    contents.append(data)
    body["content"] = _content(contents)
    if calls:
        body["tool_calls"] = calls
    if message.name is not None:
        body["name"] = message.name
    if message.call_id is not None:
        body["tool_call_id"] = message.call_id
    if message.extra is not None:
        body.update(_own(message.extra))
    return body


def _file(document: DocumentPart) -> dict[str, Any]:
    if not document.url.startswith("data:"):
        raise Unsupported("this wire takes documents as data URLs only, not by address")
    file = {"file_data": document.url, "filename": document.name or "document"}
    return {"type": "file", **_own(document.extra), "file": file}


def _content(contents: list[dict[str, Any]]) -> str | list[dict[str, Any]] | None:
    """A single plain text is sent as a string: every server takes that, not all take lists."""
    if not contents:
        return None
    if len(contents) == 1 and contents[0].keys() == {"type", "text"}:
        return contents[0]["text"]
    return contents


def parse_tools(bodies: list[ToolBody], raw: list[dict[str, Any]]) -> tuple[Tool, ...]:
    """Domain tools of checked `bodies`; `raw` is the JSON they were read from."""
    return tuple(
        [
            Tool(
                body.function.name,
                body.function.description,
                body.function.parameters,
                body.function.strict,
                _tool_extra(raw[index]),
            )
            for index, body in enumerate(bodies)
        ]
    )


def _tool_extra(raw: dict[str, Any]) -> Extra | None:
    unknown = rest(raw, _TOOL_FIELDS)
    if function := rest(raw["function"], _FUNCTION_FIELDS):
        unknown["function"] = function
    return Extra(WIRE, unknown) if unknown else None


def render_tool(tool: Tool | OpaqueTool) -> dict[str, Any]:
    """`tool` as the wire has it. Raises `Unsupported` for a tool of another wire."""
    if isinstance(tool, OpaqueTool):
        if tool.wire != WIRE:
            raise Unsupported(f"tools of type {tool.kind} cannot be used with this model: only its own maker runs them")
        return tool.data
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    own = _own(tool.extra)
    return {"type": "function", **own, "function": {**function, **own.get("function", {})}}


def parse_tool_choice(choice: str | ToolChoiceBody) -> ToolChoice:
    """The domain's tool choice. Raises `InvalidRequest`."""
    if isinstance(choice, ToolChoiceBody):
        return ToolChoice("tool", choice.function.name)
    if choice not in ("auto", "none", "required"):
        raise InvalidRequest("tool_choice: must be auto, none, required or a function", field="tool_choice")
    return ToolChoice(choice)


def render_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    """`choice` as the wire has it."""
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _extra(raw: dict[str, Any], known: frozenset[str]) -> Extra | None:
    unknown = rest(raw, known)
    return Extra(WIRE, unknown) if unknown else None


def _own(extra: Extra | None) -> dict[str, Any]:
    return extra.data if extra is not None and extra.wire == WIRE else {}
