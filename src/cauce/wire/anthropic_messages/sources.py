"""Where the bytes of images and documents are: this wire's `source` objects and the domain's URLs."""

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

from cauce.domain.errors import InvalidRequest, Unsupported

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""What the API takes (Anthropic, "Vision")."""

PDF = "application/pdf"


def url_of(source: Any) -> tuple[str, str | None] | None:
    """The URL that `source` stands for, and its media type; None for the kinds that have none, such as files kept upstream."""
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data), **rest} if not rest:
            return f"data:{media_type};base64,{data}", media_type
        case {"type": "text", "media_type": str(media_type), "data": str(text), **rest} if not rest:
            return f"data:{media_type};base64,{base64.b64encode(text.encode()).decode()}", media_type
        case {"type": "url", "url": str(url), **rest} if not rest:
            return url, None
        case _:
            return None


def image_source(url: str) -> dict[str, Any]:
    """The source of an image at `url`. Raises `Unsupported`, and `InvalidRequest` for a data URL that is none."""
    if not _is_data(url):
        return _address(url, "images")
    media_type, data = _split(url)
    if media_type not in IMAGES:
        raise Unsupported(
            f"images of type {media_type or 'unknown'} are not taken by this model: send {', '.join(IMAGES)}",
            field="messages",
        )
    return {"type": "base64", "media_type": media_type, "data": data}


def document_source(url: str) -> dict[str, Any]:
    """The source of a document at `url`. Raises as `image_source` does. Text of any kind is sent as plain text."""
    if not _is_data(url):
        return _address(url, "documents")
    media_type, data = _split(url)
    if media_type == PDF:
        return {"type": "base64", "media_type": PDF, "data": data}
    if not media_type.startswith("text/"):
        raise Unsupported(
            f"documents of type {media_type or 'unknown'} are not taken by this model: send PDF or text",
            field="messages",
        )
    try:
        text = base64.b64decode(data).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequest("a document of text must be base64 of UTF-8", field="messages") from error
    return {"type": "text", "media_type": "text/plain", "data": text}


def _address(url: str, what: str) -> dict[str, Any]:
    if not url.lower().startswith(("https://", "http://")):
        raise Unsupported(f"{what} must be http(s) addresses or data URLs for this model", field="messages")
    return {"type": "url", "url": url}


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _split(url: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL (RFC 2397)."""
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise InvalidRequest("a data URL has no comma, so it holds no data", field="messages")
    media_type, *parameters = [word.strip().lower() for word in head.split(";")]
    if "base64" not in parameters:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type or "text/plain", data
