"""Calls of functions and their results as parts, to and from the domain."""

from typing import Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import DocumentPart, ImagePart, Message, OpaquePart, Part, TextPart
from cauce.wire.gemini.media import parse_media, render_media
from cauce.wire.gemini.names import WIRE, items, member, own

_CALL = frozenset({"name", "args", "id", "partialArgs", "willContinue"})
_PART = frozenset({"functionCall", "thoughtSignature"})

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


def call_extra(part: dict[str, Any]) -> Extra | None:
    """What only this wire knows of a part with a call: unknown fields of both, and that the model gave it no id."""
    unknown = {name: value for name, value in part.items() if name not in _PART}
    call = member(part, "functionCall")
    inner = {name: value for name, value in call.items() if name not in _CALL}
    if not call.get("id"):
        inner["id"] = None
    if inner:
        unknown["functionCall"] = inner
    return Extra(WIRE, unknown) if unknown else None


def render_call(call_id: str, name: str, arguments: str, extra: Extra | None, signed: str | None) -> dict[str, Any]:
    """A part with a call, for upstreams and clients alike. It has an id unless it came from this wire without one."""
    kept = own(extra)
    inner = member(kept, "functionCall")
    call: dict[str, Any] = {"name": name, "args": arguments_of(arguments)}
    if "id" not in inner:
        call["id"] = call_id
    call.update({key: value for key, value in inner.items() if key != "id"})
    part: dict[str, Any] = {**kept, "functionCall": call}
    return {**part, "thoughtSignature": signed} if signed else part


def arguments_of(arguments: str) -> dict[str, Any]:
    """A call's arguments as the object this wire wants; what is none goes under `input`."""
    try:
        value = _decoder.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"input": arguments}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {"input": value}


def parse_result(part: dict[str, Any], path: str, calls: dict[str, list[str]]) -> Message:
    """The message that a `functionResponse` is. `calls` are the ids not answered yet, by name; the one it answers is taken out."""
    result = member(part, "functionResponse")
    name = result.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"{path}.name: is required", field=f"{path}.name")
    waiting = calls.get(name, [])
    given = result.get("id")
    call_id = given if isinstance(given, str) and given else waiting[0] if waiting else f"call_{name}"
    if call_id in waiting:
        waiting.remove(call_id)
    response = result.get("response")
    failed = isinstance(response, dict) and cast(dict[str, Any], response).keys() == {"error"}
    media = [parse_media(one) or OpaquePart(WIRE, one) for one in items(result.get("parts"))]
    said: list[Part] = [] if media and not response else [TextPart(_shown(response))]
    return Message("tool", (*said, *media), name, call_id, Extra(WIRE, part), failed)


def render_result(message: Message, name: str) -> list[dict[str, Any]]:
    """The parts that a tool's answer is; `name` is the function's. Raises `Unsupported`."""
    kept = own(message.extra)
    given = member(kept, "functionResponse")
    if given:
        return [{**kept, "functionResponse": {**given, "name": name}}]
    text = message.text
    result: dict[str, Any] = {"name": name, "response": {"error": text} if message.failed else _object(text)}
    if message.call_id:
        result["id"] = message.call_id
    return [{"functionResponse": result}, *[_beside(part) for part in message.parts if not isinstance(part, TextPart)]]


def _beside(part: Part) -> dict[str, Any]:
    match part:
        case ImagePart() | DocumentPart():
            return render_media(part)
        case OpaquePart(wire, data) if wire == WIRE:
            return data
        case OpaquePart(_, data):
            kind = data.get("type") or "unknown"
            raise Unsupported(f"a tool's answer of type {kind} cannot be sent to this model", field="messages")
        case _:
            raise Unsupported("a tool's answer can only hold text, images and documents", field="messages")


def _shown(response: Any) -> str:
    """A function's result as text: the one value of `{"result": …}` or `{"output": …}`, else the object as JSON."""
    match response:
        case {"result": str(text)} | {"output": str(text)} | {"error": str(text)} if len(response) == 1:
            return text
        case {"result": value} | {"output": value} if len(response) == 1:
            return _encode(value).decode()
        case None:
            return ""
        case _:
            return _encode(response).decode()


def _object(text: str) -> dict[str, Any]:
    """A result as the object this wire wants."""
    try:
        value = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"result": text}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {"result": value}
