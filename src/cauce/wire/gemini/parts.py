"""Contents and their parts, to and from the domain's messages."""

import base64
from typing import Any, assert_never, cast

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
from cauce.domain.signature import Signature
from cauce.wire.dropping import dropped
from cauce.wire.gemini.models import Traits
from cauce.wire.gemini.names import WIRE, items, member
from cauce.wire.signing import seal, unseal

UNSIGNED = "skip_thought_signature_validator"
"""Stands for a signature nobody kept (Google, "Thought signatures", on history that another model made)."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()

_A_THOUGHT = Extra(WIRE, {})
"""On reasoning that came from this wire without a word of its own."""

_PART = frozenset({"text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse"})
_CONTENT = frozenset({"role", "parts"})


def parse_contents(contents: list[dict[str, Any]]) -> list[Message]:
    """The messages in `contents` (camel case). Raises `InvalidRequest` naming the part."""
    messages: list[Message] = []
    calls: dict[str, list[str]] = {}
    """Ids of calls not answered yet, by name: results name the function and mostly not the call."""
    for index, content in enumerate(contents):
        reader = _Contents(f"contents[{index}]", calls, len(messages))
        messages.extend(reader.read(content))
    return messages


class _Contents:
    """Reads one content: its parts are one message, but results of functions are one each."""

    def __init__(self, path: str, calls: dict[str, list[str]], place: int) -> None:
        self._path = path
        self._calls = calls
        self._place = place
        self._made = 0

    def read(self, content: dict[str, Any]) -> list[Message]:
        role = content.get("role") or "user"
        if role not in ("user", "model", "function", "system"):
            raise InvalidRequest(f"{self._path}.role: must be user or model", field=f"{self._path}.role")
        parts = content.get("parts")
        if not isinstance(parts, list) or len(items(parts)) != len(cast(list[Any], parts)):
            raise InvalidRequest(f"{self._path}.parts: must be a list of parts", field=f"{self._path}.parts")
        messages: list[Message] = []
        plain: list[Part] = []
        for number, part in enumerate(items(parts)):
            if "functionResponse" in part:
                messages.append(self._result(part, f"{self._path}.parts[{number}].functionResponse"))
            else:
                plain.append(self._part(part, f"{self._path}.parts[{number}]"))
        if plain or not messages:
            extra = {name: value for name, value in content.items() if name not in _CONTENT}
            speaker = "assistant" if role == "model" else "user"
            messages.append(Message(speaker, tuple(plain), extra=Extra(WIRE, extra) if extra else None))
        return messages

    def _result(self, part: dict[str, Any], path: str) -> Message:
        result = member(part, "functionResponse")
        name = result.get("name")
        if not isinstance(name, str):
            raise InvalidRequest(f"{path}.name: is required", field=f"{path}.name")
        waiting = self._calls.get(name, [])
        given = result.get("id")
        call_id = given if isinstance(given, str) and given else waiting[0] if waiting else f"call_{name}"
        if call_id in waiting:
            waiting.remove(call_id)
        response = result.get("response")
        failed = isinstance(response, dict) and cast(dict[str, Any], response).keys() == {"error"}
        own = {"functionResponse": result}
        return Message("tool", (TextPart(_shown(response)),), name, call_id, Extra(WIRE, own), failed)

    def _part(self, part: dict[str, Any], path: str) -> Part:
        signed = part.get("thoughtSignature")
        signature = unseal(signed, WIRE) if isinstance(signed, str) and signed else None
        match part:
            case {"text": str(text), "thought": True}:
                return ReasoningPart(text, signature, _unknown(part) or _A_THOUGHT)
            case {"text": str(text)}:
                return TextPart(text, _unknown(part, signed=signed))
            case {"functionCall": {"name": str(name), **fields}}:
                self._made += 1
                given = fields.get("id")
                call_id = given if isinstance(given, str) and given else f"call_{self._place}_{self._made - 1}"
                self._calls.setdefault(name, []).append(call_id)
                arguments = _encode(fields.get("args") or {}).decode()
                own = {"functionCall": {"id": None}} if not given else {}
                return ToolCallPart(call_id, name, arguments, Extra(WIRE, own) if own else None, signature)
            case {"inlineData": {"data": str(data), **fields}}:
                media = str(fields.get("mimeType") or "application/octet-stream")
                return _media(f"data:{media};base64,{_standard(data)}", media, _unknown(part))
            case {"fileData": {"fileUri": str(url), **fields}}:
                media = fields.get("mimeType")
                return _media(url, media if isinstance(media, str) else None, _unknown(part))
            case {"functionCall": _}:
                raise InvalidRequest(f"{path}.functionCall.name: is required", field=f"{path}.functionCall.name")
            case _ if not part:
                raise InvalidRequest(f"{path}: says nothing: give it a text", field=path)
            case _:
                return OpaquePart(WIRE, part)


def _media(url: str, media: str | None, extra: Extra | None) -> Part:
    if media is None or media.startswith("image/"):
        return ImagePart(url, None, extra)
    if media == "application/pdf" or media.startswith("text/"):
        return DocumentPart(url, media, None, extra)
    return OpaquePart(WIRE, _media_part(url, media))


def _media_part(url: str, media: str | None) -> dict[str, Any]:
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        kind, _, coding = head.partition(";")
        if "base64" not in coding:
            data = base64.b64encode(data.encode()).decode()
        return {"inlineData": {"mimeType": kind or media or "application/octet-stream", "data": data}}
    return {"fileData": {"fileUri": url, **({"mimeType": media} if media else {})}}


def _standard(data: str) -> str:
    """Base64 in its standard alphabet: the SDK sends the URL-safe one."""
    return data.replace("-", "+").replace("_", "/")


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


def _unknown(part: dict[str, Any], signed: Any = None) -> Extra | None:
    unknown = {name: value for name, value in part.items() if name not in _PART}
    if signed:
        unknown["thoughtSignature"] = signed
    return Extra(WIRE, unknown) if unknown else None


def own(extra: Extra | None) -> dict[str, Any]:
    """What only this wire knows."""
    return extra.data if extra is not None and extra.wire == WIRE else {}


def render_contents(messages: tuple[Message, ...], known: Traits) -> list[dict[str, Any]]:
    """`messages`, system ones left out, as contents. Results of tools that follow each other are one. Raises `Unsupported`."""
    names = {
        part.call_id: part.name for message in messages for part in message.parts if isinstance(part, ToolCallPart)
    }
    contents: list[dict[str, Any]] = []
    last = ""
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role = "model" if message.role == "assistant" else "user"
        if message.role == "tool":
            parts = _results(message, names)
        else:
            _check(message)
            parts = [one for part in _signed(message.parts) if (one := render_part(part, known)) is not None]
        if not parts:
            continue
        if message.role == last == "tool":
            contents[-1]["parts"].extend(parts)
        else:
            beside = own(message.extra) if message.role != "tool" else {}
            contents.append({**beside, "role": role, "parts": parts})
        last = message.role
    return contents


def _check(message: Message) -> None:
    """Raises `Unsupported` for content of the user that only another wire knows; that of the model is left out, and told."""
    if message.name is not None:
        dropped(WIRE, "name of a message")
    for part in message.parts:
        if isinstance(part, OpaquePart) and part.wire != WIRE:
            kind = part.data.get("type") or "unknown"
            if message.role != "assistant":
                raise Unsupported(f"content of type {kind} cannot be sent to this model: its API has no place for it")
            dropped(WIRE, f"content of type {kind}")


def _signed(parts: tuple[Part, ...]) -> list[Part]:
    """`parts` with signatures on the calls they belong to: other wires hand them back on the reasoning before a call."""
    waiting: Signature | None = None
    placed: list[Part] = []
    for part in parts:
        match part:
            case ReasoningPart(text, signature, extra) if (
                signature is not None and signature.wire == WIRE and (extra is None or extra.wire != WIRE)
            ):
                waiting = signature
                if text:
                    placed.append(part)
            case ToolCallPart() if waiting is not None and part.signature in (None, waiting):
                if placed and isinstance(last := placed[-1], ReasoningPart) and last.signature is waiting:
                    placed[-1] = msgspec.structs.replace(last, signature=None, extra=_A_THOUGHT)
                placed.append(msgspec.structs.replace(part, signature=waiting))
                waiting = None
            case _:
                placed.append(part)
    return placed


def _results(message: Message, names: dict[str, str]) -> list[dict[str, Any]]:
    given = member(own(message.extra), "functionResponse")
    if given:
        return [{"functionResponse": given}]
    text = message.text
    name = message.name or names.get(message.call_id or "") or message.call_id or "function"
    response = {"error": text} if message.failed else _object(text)
    result: dict[str, Any] = {"name": name, "response": response}
    if message.call_id and not message.call_id.startswith("call_"):
        result["id"] = message.call_id
    media = [part for part in message.parts if isinstance(part, ImagePart | DocumentPart)]
    return [{"functionResponse": result}, *[_inlined(part) for part in media]]


def _object(text: str) -> dict[str, Any]:
    """A result as the object this wire wants."""
    try:
        value = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"result": text}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {"result": value}


def render_part(part: Part, known: Traits) -> dict[str, Any] | None:
    """`part` as the wire has it; None for what is of another wire. Raises `Unsupported`."""
    match part:
        case TextPart(text, extra):
            return {"text": text, **own(extra)}
        case RefusalPart(text):
            return {"text": text}
        case ReasoningPart(text, signature, extra):
            if signature is None:
                ours = extra is not None and extra.wire == WIRE
                return {"text": text, "thought": True, **own(extra)} if ours else None
            if signature.wire != WIRE:
                # Thoughts of another model mean nothing to this one.
                return None
            return {"text": text, "thought": True, "thoughtSignature": signature.data, **own(extra)}
        case ToolCallPart(call_id, name, arguments, extra, signature):
            call: dict[str, Any] = {"name": name, "args": _arguments(arguments)}
            if not call_id.startswith("call_") and "functionCall" not in own(extra):
                call["id"] = call_id
            signed = signature.data if signature is not None and signature.wire == WIRE else None
            if signed is None and known.signed_calls:
                signed = UNSIGNED
            return {"functionCall": call, **({"thoughtSignature": signed} if signed else {})}
        case ImagePart() | DocumentPart():
            return _inlined(part)
        case OpaquePart(wire, data):
            return data if wire == WIRE else None
        case _:
            assert_never(part)


def _inlined(part: ImagePart | DocumentPart) -> dict[str, Any]:
    media = part.media_type if isinstance(part, DocumentPart) else None
    return {**_media_part(part.url, media), **own(part.extra)}


def _arguments(arguments: str) -> dict[str, Any]:
    """A call's arguments as the object this wire wants; text that is none goes under `input`."""
    try:
        value = _decoder.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"input": arguments}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {"input": value}


def sealed(signature: Signature) -> str:
    """`signature` as a client of this wire is shown it."""
    return seal(signature, WIRE)
