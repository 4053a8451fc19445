"""Contents and their parts, to and from the domain's messages."""

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
from cauce.wire.gemini.functions import call_extra, parse_result, render_call, render_result
from cauce.wire.gemini.media import parse_media, render_media
from cauce.wire.gemini.models import Traits
from cauce.wire.gemini.names import WIRE, items, own
from cauce.wire.signing import seal, unseal

UNSIGNED = "skip_thought_signature_validator"
"""Stands for a signature nobody kept (Google, "Thought signatures", on history that another model made)."""

_encode = msgspec.json.Encoder().encode

_NOTHING = TextPart("")
_A_THOUGHT = Extra(WIRE, {})
"""On reasoning that came from this wire without a word of its own."""

_PART = frozenset({"text", "thought", "thoughtSignature"})
_CONTENT = frozenset({"role", "parts"})


def parse_contents(contents: list[dict[str, Any]]) -> list[Message]:
    """The messages in `contents` (camel case). Raises `InvalidRequest` naming the part.

    Clients that keep the pieces of a stream send back a content for each: contents of the model in a row are one message.
    """
    messages: list[Message] = []
    calls: dict[str, list[str]] = {}
    """Ids of calls not answered yet, by name: results name the function and mostly not the call."""
    for index, content in enumerate(contents):
        for message in _Contents(f"contents[{index}]", calls, index).read(content):
            last = messages[-1] if messages else None
            if last is not None and message.role == last.role == "assistant" and last.extra == message.extra:
                messages[-1] = msgspec.structs.replace(last, parts=_continued(last.parts, message.parts))
            else:
                messages.append(message)
    return [_proven(message) if message.role == "assistant" else message for message in messages]


def _continued(first: tuple[Part, ...], second: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts of two contents as one. Where the second goes on with the text or the thought of the first, that is one part."""
    match (first[-1:], second[:1]):
        case ((TextPart(text, None),), (TextPart(more, None),)):
            return (*first[:-1], TextPart(text + more), *second[1:])
        case ((ReasoningPart(text, None, extra),), (ReasoningPart(more, None, other),)) if extra == other == _A_THOUGHT:
            return (*first[:-1], ReasoningPart(text + more, None, _A_THOUGHT), *second[1:])
        case _:
            return (*first, *second)


def _proven(message: Message) -> Message:
    """`message` with thoughts that another wire signed whole again: the signature was shown behind their last piece.

    Empty texts, such as the last event of a stream has, are left out: other wires refuse them.
    """
    parts: list[Part] = []
    for part in message.parts:
        if part == _NOTHING and len(message.parts) > 1:
            continue
        if isinstance(part, ReasoningPart) and part.signature is not None and part.signature.wire != WIRE:
            text = part.text
            while parts and isinstance(before := parts[-1], ReasoningPart) and before.signature is None:
                text = before.text + text
                parts.pop()
            part = msgspec.structs.replace(part, text=text)
        parts.append(part)
    return msgspec.structs.replace(message, parts=tuple(parts))


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
        parts: Any = content.get("parts")
        if isinstance(parts, dict):
            # Proto JSON takes one alone for a list of one.
            parts = [parts]
        if not isinstance(parts, list) or len(items(parts)) != len(cast(list[Any], parts)):
            raise InvalidRequest(f"{self._path}.parts: must be a list of parts", field=f"{self._path}.parts")
        messages: list[Message] = []
        plain: list[Part] = []
        for number, part in enumerate(items(parts)):
            if "functionResponse" in part:
                path = f"{self._path}.parts[{number}].functionResponse"
                messages.append(parse_result(part, path, self._calls))
            else:
                plain.append(self._part(part, f"{self._path}.parts[{number}]"))
        if plain or not messages:
            extra = {name: value for name, value in content.items() if name not in _CONTENT}
            speaker = "assistant" if role == "model" else "user"
            messages.append(Message(speaker, tuple(plain), extra=Extra(WIRE, extra) if extra else None))
        return messages

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
                return ToolCallPart(call_id, name, arguments, call_extra(part), signature)
            case {"functionCall": _}:
                raise InvalidRequest(f"{path}.functionCall.name: is required", field=f"{path}.functionCall.name")
            case _ if not part:
                raise InvalidRequest(f"{path}: says nothing: give it a text", field=path)
            case _:
                return parse_media(part) or OpaquePart(WIRE, part)


def _unknown(part: dict[str, Any], signed: Any = None) -> Extra | None:
    unknown = {name: value for name, value in part.items() if name not in _PART}
    if signed:
        unknown["thoughtSignature"] = signed
    return Extra(WIRE, unknown) if unknown else None


def render_contents(messages: tuple[Message, ...], known: Traits) -> list[dict[str, Any]]:
    """`messages`, system ones left out, as contents. Results of tools that follow each other are one. Raises `Unsupported`."""
    names: dict[str, str] = {}
    contents: list[dict[str, Any]] = []
    last = ""
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        role = "model" if message.role == "assistant" else "user"
        if message.role == "tool":
            call_id = message.call_id or ""
            parts = render_result(message, message.name or names.get(call_id) or call_id or "function")
        else:
            # An id may come again in a later turn: the call before counts.
            names.update({part.call_id: part.name for part in message.parts if isinstance(part, ToolCallPart)})
            parts = _rendered(message, known)
        if not parts:
            continue
        if message.role == last == "tool":
            contents[-1]["parts"].extend(parts)
        else:
            beside = own(message.extra) if message.role != "tool" else {}
            contents.append({**beside, "role": role, "parts": parts})
        last = message.role
    return contents


def render_system(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The parts of all system messages, wherever they stand. Raises `Unsupported`."""
    parts: list[dict[str, Any]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            _check(message)
            parts.extend([one for part in message.parts if (one := render_part(part)) is not None])
    return parts


def _rendered(message: Message, known: Traits) -> list[dict[str, Any]]:
    _check(message)
    parts = _signed(message.parts, needed=known.signed_calls)
    return [one for part in parts if (one := render_part(part)) is not None]


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


def _signed(parts: tuple[Part, ...], *, needed: bool) -> list[Part]:
    """`parts` with signatures on the calls they belong to: other wires hand them back on the reasoning before a call.

    `needed`: the first of parallel calls, which is the one that Gemini signs, must not go without.
    """
    thought = -1
    """Where the reasoning stands that has the signature of a call to come."""
    waiting: Signature | None = None
    placed: list[Part] = []
    called = False
    for part in parts:
        match part:
            case ReasoningPart(text, signature, extra) if (
                signature is not None and signature.wire == WIRE and (extra is None or extra.wire != WIRE)
            ):
                waiting, thought = signature, len(placed) if text else -1
                if text:
                    placed.append(part)
            case ToolCallPart(signature=signature):
                if waiting is not None and signature in (None, waiting):
                    signature = waiting
                    if thought >= 0:
                        said = cast(ReasoningPart, placed[thought])
                        placed[thought] = ReasoningPart(said.text, None, _A_THOUGHT)
                    waiting = None
                if needed and not called and (signature is None or signature.wire != WIRE):
                    signature = Signature(WIRE, UNSIGNED)
                called = True
                placed.append(msgspec.structs.replace(part, signature=signature))
            case _:
                placed.append(part)
    return placed


def render_part(part: Part) -> dict[str, Any] | None:
    """`part` as the wire has it; None for what is of another wire, and for text that is empty, which is refused."""
    match part:
        case TextPart(text, extra):
            return {"text": text, **own(extra)} if text or own(extra) else None
        case RefusalPart(text):
            return {"text": text} if text else None
        case ReasoningPart(text, signature, extra):
            if signature is None:
                ours = extra is not None and extra.wire == WIRE
                return {"text": text, "thought": True, **own(extra)} if ours else None
            if signature.wire != WIRE:
                # Thoughts of another model mean nothing to this one.
                return None
            return {"text": text, "thought": True, "thoughtSignature": signature.data, **own(extra)}
        case ToolCallPart(call_id, name, arguments, extra, signature):
            signed = signature.data if signature is not None and signature.wire == WIRE else None
            return render_call(call_id, name, arguments, extra, signed)
        case ImagePart() | DocumentPart():
            return render_media(part)
        case OpaquePart(wire, data):
            return data if wire == WIRE else None
        case _:
            assert_never(part)


def sealed(signature: Signature) -> str:
    """`signature` as a client of this wire is shown it."""
    return seal(signature, WIRE)
