"""Parts of a message's content, to and from the domain."""

from typing import Any

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import DocumentPart, ImagePart, OpaquePart, Part, RefusalPart, TextPart
from cauce.wire.fields import rest
from cauce.wire.openai_chat.extras import WIRE, fields, member, unknown

_TEXT_FIELDS = frozenset({"type", "text"})
_FILE_FIELDS = frozenset({"type", "file"})
_REFUSAL_FIELDS = frozenset({"type", "refusal"})
_IMAGE_FIELDS = frozenset({"type", "image_url"})

_DEFAULT_NAME = "document"
"""The wire wants a name for every file."""


def parse_part(part: dict[str, Any], path: str) -> Part:
    """One part. Raises `InvalidRequest` naming the field below `path`."""
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text, unknown(part, _TEXT_FIELDS))
        case {"type": "image_url", "image_url": {"url": str(url), **options}}:
            return _image(part, url, options)
        case {"type": "refusal", "refusal": str(text)}:
            return RefusalPart(text, unknown(part, _REFUSAL_FIELDS))
        case {"type": "file", "file": {"file_data": str(data), **options}} if _has_address(data):
            return _document(part, data, options)
        case {"type": "text" | "refusal" as kind}:
            raise InvalidRequest(f"{path}.{kind}: must be a string", field=f"{path}.{kind}")
        case {"type": "image_url"}:
            raise InvalidRequest(f"{path}.image_url.url: must be a string", field=f"{path}.image_url.url")
        case {"type": str()}:
            # Audio, and files by the id an upstream gave them: only servers of this wire can read them.
            return OpaquePart(WIRE, part)
        case _:
            raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")


def _image(part: dict[str, Any], url: str, options: dict[str, Any]) -> ImagePart:
    detail = options.pop("detail", None)
    extra: dict[str, Any] = rest(part, _IMAGE_FIELDS)
    if options:
        extra["image_url"] = options
    return ImagePart(url, detail if isinstance(detail, str) else None, Extra(WIRE, extra) if extra else None)


def _has_address(data: str) -> bool:
    return data.startswith(("data:", "http://", "https://"))


def _document(part: dict[str, Any], url: str, options: dict[str, Any]) -> DocumentPart:
    name = options.pop("filename", None)
    extra: dict[str, Any] = rest(part, _FILE_FIELDS)
    if options or url.startswith("http"):
        # An address of another client would be refused; the one who sends it here knows that the upstream takes it.
        extra["file"] = options
    kind = url[5:].partition(",")[0].partition(";")[0] if url.startswith("data:") else ""
    return DocumentPart(
        url, kind or None, name if isinstance(name, str) else None, Extra(WIRE, extra) if extra else None
    )


def render_part(part: Part) -> dict[str, Any]:
    """`part` as the wire has it. Raises `Unsupported` for what it has no place for."""
    match part:
        case TextPart(text, extra):
            return {"type": "text", "text": text, **fields(extra)}
        case ImagePart(url, detail, extra):
            known = {"url": url} if detail is None else {"url": url, "detail": detail}
            kept = fields(extra)
            return {"type": "image_url", **kept, "image_url": {**known, **member(kept, "image_url")}}
        case DocumentPart():
            return _file(part)
        case OpaquePart(wire, data) if wire == WIRE:
            return data
        case OpaquePart(data=data):
            raise Unsupported(f"content of type {data.get('type', 'unknown')} cannot be read by this model's server")
        case _:
            raise AssertionError(f"{type(part).__name__} is no content of a message")


def _file(document: DocumentPart) -> dict[str, Any]:
    kept = fields(document.extra)
    if not document.url.startswith("data:") and "file" not in kept:
        raise Unsupported("this model's server takes documents as data URLs only, not by address")
    file: dict[str, Any] = {"file_data": document.url}
    if document.name is not None or document.url.startswith("data:"):
        file["filename"] = document.name or _DEFAULT_NAME
    return {"type": "file", **kept, "file": {**file, **member(kept, "file")}}


def as_content(contents: list[dict[str, Any]]) -> str | list[dict[str, Any]] | None:
    """A single plain text is sent as a string: every server takes that, not all take lists."""
    if not contents:
        return None
    if len(contents) == 1 and contents[0].keys() == {"type", "text"}:
        return contents[0]["text"]
    return contents
