"""Images and documents as parts (`inlineData`, `fileData`), to and from the domain."""

import base64
from typing import Any
from urllib.parse import unquote_to_bytes

from cauce.domain.extra import Extra
from cauce.domain.message import DocumentPart, ImagePart
from cauce.wire.gemini.names import WIRE, member, own, word

_KINDS = ("inlineData", "fileData")
_KNOWN = {"inlineData": ("data", "mimeType"), "fileData": ("fileUri",)}


def parse_media(part: dict[str, Any]) -> ImagePart | DocumentPart | None:
    """The image, PDF or text that `part` holds; None for other kinds, which only this wire knows."""
    match part:
        case {"inlineData": {"data": str(data), **fields}}:
            media = word(fields.get("mimeType")) or "application/octet-stream"
            url, kind = f"data:{media};base64,{_standard(data)}", "inlineData"
        case {"fileData": {"fileUri": str(url), **fields}}:
            media, kind = word(fields.get("mimeType")) or None, "fileData"
        case _:
            return None
    inner = {name: value for name, value in fields.items() if name not in _KNOWN[kind]}
    unknown = {name: value for name, value in part.items() if name != kind}
    if inner:
        # The type of what stands at an address among it: of an image it has no place in the domain.
        unknown[kind] = inner
    extra = Extra(WIRE, unknown) if unknown else None
    if media is None or media.startswith("image/"):
        return ImagePart(url, None, extra)
    if media == "application/pdf" or media.startswith("text/"):
        return DocumentPart(url, media, word(fields.get("displayName")) or None, extra)
    return None


def render_media(part: ImagePart | DocumentPart) -> dict[str, Any]:
    """`part` as the wire has it. Of a data URL, which kind it is stands in the address."""
    kept = own(part.extra)
    beside = {name: value for name, value in kept.items() if name not in _KINDS}
    media = part.media_type if isinstance(part, DocumentPart) else None
    if part.url[:5].lower() != "data:":
        known = {"fileUri": part.url, **({"mimeType": media} if media else {})}
        return {**beside, "fileData": {**known, **member(kept, "fileData")}}
    head, _, data = part.url[5:].partition(",")
    kind, _, coding = head.partition(";")
    if "base64" not in coding:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    known = {"mimeType": kind or media or "application/octet-stream", "data": data}
    return {**beside, "inlineData": {**known, **member(kept, "inlineData")}}


def _standard(data: str) -> str:
    """Base64 in its standard alphabet: the SDK sends the URL-safe one."""
    return data.replace("-", "+").replace("_", "/")
