"""Content blocks and the domain's parts: what clients send, what is sent upstream, what clients are shown."""

import re
from typing import Any, cast

import msgspec

from cauce.domain.citation import Citation
from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.signature import Signature
from cauce.wire.anthropic_messages.sources import document_source, image_source, url_of
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.dropping import dropped
from cauce.wire.fields import rest
from cauce.wire.signing import seal, unseal

REDACTED = "redacted_thinking"
_TEXT = frozenset({"type", "text", "citations"})
_IMAGE = frozenset({"type", "source"})
_DOCUMENT = frozenset({"type", "source", "title"})
_THINKING = frozenset({"type", "thinking", "signature"})
_REDACTED = frozenset({"type", "data"})
_TOOL_USE = frozenset({"type", "id", "name", "input", "signature"})
_SEARCHED = "web_search_result_location"
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


def own(extra: Extra | None, level: str) -> dict[str, Any]:
    """The fields that only this wire knows, of one level."""
    return extra.data.get(level, {}) if extra is not None and extra.wire == WIRE else {}


def block_extra(raw: dict[str, Any], known: frozenset[str]) -> Extra | None:
    """The fields of a block that are not `known`."""
    unknown = rest(raw, known)
    return Extra(WIRE, {"block": unknown}) if unknown else None


def parse_block(raw: dict[str, Any], path: str) -> Part:
    """The part that a block a client sent stands for. Raises `InvalidRequest` naming the field below `path`."""
    match raw:
        case {"type": "text"}:
            text = _text(raw, "text", path)
            return TextPart(text, block_extra(raw, _TEXT), _citations(raw.get("citations")))
        case {"type": "image"}:
            found = url_of(_object(raw, "source", path))
            return OpaquePart(WIRE, raw) if found is None else ImagePart(found[0], None, block_extra(raw, _IMAGE))
        case {"type": "document"}:
            found = url_of(_object(raw, "source", path))
            if found is None:
                return OpaquePart(WIRE, raw)
            title = raw.get("title")
            return DocumentPart(*found, title if isinstance(title, str) else None, block_extra(raw, _DOCUMENT))
        case {"type": "thinking"}:
            signature = raw.get("signature")
            signed = unseal(signature, WIRE) if isinstance(signature, str) and signature else None
            return ReasoningPart(_text(raw, "thinking", path), signed, block_extra(raw, _THINKING))
        case {"type": "redacted_thinking"}:
            return ReasoningPart("", redacted(_text(raw, "data", path)), block_extra(raw, _REDACTED))
        case {"type": "tool_use"}:
            signature = raw.get("signature")
            return ToolCallPart(
                _text(raw, "id", path),
                _text(raw, "name", path),
                _encode(_object(raw, "input", path)).decode(),
                block_extra(raw, _TOOL_USE),
                unseal(signature, WIRE) if isinstance(signature, str) else None,
            )
        case {"type": str()}:
            return OpaquePart(WIRE, raw)
        case _:
            raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")


def redacted(data: str) -> Signature:
    """What a `redacted_thinking` block holds, as a signature."""
    signature = unseal(data, WIRE)
    return Signature(WIRE, data, REDACTED) if signature.wire == WIRE else signature


def render_block(part: Part) -> dict[str, Any] | None:
    """`part` as it is sent upstream; None if there is nothing to send. Raises `Unsupported`, `InvalidRequest`."""
    match part:
        case TextPart(text, extra, citations):
            if not text.strip():
                # The API refuses empty text, and text of blanks only.
                return None
            cited = [cite.extra.data for cite in citations if cite.extra is not None and cite.extra.wire == WIRE]
            return {"type": "text", "text": text, **own(extra, "block"), **({"citations": cited} if cited else {})}
        case RefusalPart(text):
            return {"type": "text", "text": text} if text.strip() else None
        case ImagePart(url, _, extra):
            return {"type": "image", "source": image_source(url), **own(extra, "block")}
        case DocumentPart(url, _, name, extra):
            title = {"title": name} if name is not None else {}
            return {"type": "document", "source": document_source(url), **title, **own(extra, "block")}
        case ReasoningPart(text, signature, extra):
            if signature is None or signature.wire != WIRE:
                dropped(WIRE, "reasoning of other models")
                return None
            return {**_thinking(text, signature.data, signature.id), **own(extra, "block")}
        case ToolCallPart(call_id, name, arguments, extra):
            whole = {"type": "tool_use", "id": tool_id(call_id), "name": name, "input": tool_input(arguments)}
            return {**whole, **own(extra, "block")}
        case OpaquePart(wire, data):
            if wire != WIRE:
                raise Unsupported(
                    f"content of type {data.get('type', wire)} cannot be sent to this model", field="messages"
                )
            return data


def answer_block(part: Part, *, thinking: bool) -> dict[str, Any] | None:
    """`part` of an answer as a client is shown it; None if it is not. `thinking`: reasoning of other wires is wanted."""
    match part:
        case TextPart(text, extra, citations):
            if not text and (extra is None or extra.wire != WIRE):
                return None
            cited = {"citations": [render_citation(citation) for citation in citations]} if citations else {}
            return {"type": "text", "text": text, **own(extra, "block"), **cited}
        case RefusalPart(text):
            return {"type": "text", "text": text}
        case ReasoningPart(text, signature, extra):
            if not thinking and (signature is None or signature.wire != WIRE) and (extra is None or extra.wire != WIRE):
                return None
            sealed = seal(signature, WIRE) if signature is not None else ""
            kind = signature.id if signature is not None and signature.wire == WIRE else None
            return {**_thinking(text, sealed, kind), **own(extra, "block")}
        case ToolCallPart(call_id, name, arguments, extra, signature):
            whole = {"type": "tool_use", "id": call_id, "name": name, "input": tool_input(arguments)}
            return {**whole, **own(extra, "block"), **sealed_call(signature)}
        case OpaquePart(wire, data):
            return data if wire == WIRE else None
        case ImagePart() | DocumentPart():
            return None


def sealed_call(signature: Signature | None) -> dict[str, Any]:
    """What makes a signature of a tool call come back: clients return blocks as they were given them."""
    return {"signature": seal(signature, WIRE)} if signature is not None else {}


def parse_citation(raw: dict[str, Any]) -> Citation:
    """A citation. One that we made of another wire's has no index of its own: it is that other again."""
    made = raw.get("type") == _SEARCHED and raw.get("encrypted_index") == ""
    return Citation(
        _string(raw.get("url")) or _string(raw.get("source")),
        _string(raw.get("title")) or _string(raw.get("document_title")),
        _string(raw.get("cited_text")) or None,
        extra=None if made else Extra(WIRE, raw),
    )


def render_citation(citation: Citation) -> dict[str, Any]:
    """A citation as a client is shown it."""
    if citation.extra is not None and citation.extra.wire == WIRE:
        return citation.extra.data
    return {
        "type": _SEARCHED,
        "url": citation.url or "",
        "title": citation.title,
        "cited_text": citation.quote or "",
        "encrypted_index": "",
    }


def tool_id(call_id: str) -> str:
    """An id as the API takes it (letters, digits, `_` and `-`): equal ids stay equal, different ones different."""
    return _NOT_IN_IDS.sub(lambda match: f"_{ord(match[0]):x}_", call_id) or "_"


def tool_input(arguments: str) -> dict[str, Any]:
    """Arguments as an object. What is no JSON object stands whole under `invalid_arguments`, so the model sees what it wrote."""
    if not arguments.strip():
        return {}
    try:
        value = _decoder.decode(arguments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = None
    return cast(dict[str, Any], value) if isinstance(value, dict) else {"invalid_arguments": arguments}


def _thinking(text: str, signature: str, kind: str | None) -> dict[str, Any]:
    if kind == REDACTED:
        return {"type": REDACTED, "data": signature}
    return {"type": "thinking", "thinking": text, "signature": signature}


def _citations(value: Any) -> tuple[Citation, ...]:
    if not isinstance(value, list):
        return ()
    return tuple([parse_citation(cast(dict[str, Any], one)) for one in cast(list[Any], value) if isinstance(one, dict)])


def _text(raw: dict[str, Any], name: str, path: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{path}.{name}: must be a string", field=f"{path}.{name}")
    return value


def _object(raw: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = raw.get(name)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path}.{name}: must be an object", field=f"{path}.{name}")
    return cast(dict[str, Any], value)


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
