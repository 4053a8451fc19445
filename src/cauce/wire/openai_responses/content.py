"""Content parts both ways: what users and tools send (`input_*`), what models write (`output_text`, `refusal`)."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from cauce.domain.citation import Citation
from cauce.domain.delta import TokenLogprob
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
from cauce.wire.dropping import dropped
from cauce.wire.fields import rest
from cauce.wire.openai_responses.names import WIRE, carried, own

_TEXT_FIELDS = frozenset({"type", "text", "annotations"})
_IMAGE_FIELDS = frozenset({"type", "image_url", "detail"})
_FILE_FIELDS = frozenset({"type", "file_data", "file_url", "filename"})
_REFUSAL_FIELDS = frozenset({"type", "refusal"})


def parse_parts(content: Any, path: str) -> list[Part]:
    """The parts of a message's or tool output's `content`: text or a list of parts. Raises `InvalidRequest`."""
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}: must be a string or a list of parts", field=path)
    return [_parse_part(part, f"{path}[{place}]") for place, part in enumerate(cast(list[Any], content))]


def _parse_part(part: Any, path: str) -> Part:
    match part:
        case {"type": "input_text" | "output_text" | "text" as kind, "text": str(text)}:
            return _parse_text(cast(dict[str, Any], part), text, cited=kind == "output_text")
        case {"type": "refusal", "refusal": str(text)}:
            return RefusalPart(text, _extra(part, _REFUSAL_FIELDS))
        case {"type": "input_image", "image_url": str(url)}:
            detail = part.get("detail")
            return ImagePart(url, detail if isinstance(detail, str) else None, _extra(part, _IMAGE_FIELDS))
        case {"type": "input_file", "file_data": str(url)} | {"type": "input_file", "file_url": str(url)}:
            name = part.get("filename")
            return DocumentPart(url, name=name if isinstance(name, str) else None, extra=_extra(part, _FILE_FIELDS))
        case {"type": "input_text" | "output_text" | "text"}:
            raise InvalidRequest(f"{path}.text: must be a string", field=f"{path}.text")
        case {"type": "refusal"}:
            raise InvalidRequest(f"{path}.refusal: must be a string", field=f"{path}.refusal")
        case {"type": str()}:
            # Images and files by id among them: only the server they were sent to has them.
            return OpaquePart(WIRE, {"part": part})
        case _:
            raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")


def _parse_text(part: dict[str, Any], text: str, *, cited: bool) -> TextPart:
    unknown = rest(part, _TEXT_FIELDS)
    if not unknown.get("logprobs", True):
        del unknown["logprobs"]
    annotations = part.get("annotations") if cited else None
    citations = [
        parse_annotation(cast(dict[str, Any], one))
        for one in (cast(list[Any], annotations) if isinstance(annotations, list) else ())
        if isinstance(one, dict)
    ]
    return TextPart(text, carried({"part": unknown} if unknown else {}), tuple(citations))


def render_inputs(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """What a user or a tool says. A single plain text is sent as a string: every server takes that, not all take lists."""
    match parts:
        case (TextPart(text, extra),) if not own(extra):
            return text
        case _:
            return [body for part in parts if (body := _render_input(part)) is not None]


def _render_input(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart(text, extra):
            return {"type": "input_text", "text": text, **_unknown(extra)}
        case RefusalPart(text):
            return {"type": "input_text", "text": text}
        case ImagePart(url, detail, extra):
            known = {"image_url": url} if detail is None else {"image_url": url, "detail": detail}
            return {"type": "input_image", **known, **_unknown(extra)}
        case DocumentPart(url, _, name, extra):
            by_data = url.startswith("data:")
            known = {"file_data" if by_data else "file_url": url}
            if name is not None or by_data:
                # Data without a name is refused.
                known["filename"] = name or "document"
            return {"type": "input_file", **known, **_unknown(extra)}
        case OpaquePart(wire, data) if wire == WIRE and "part" in data:
            return data["part"]
        case OpaquePart(wire, data):
            kind = data.get("type") or next(iter(data), "unknown")
            raise Unsupported(f"content of type {kind} cannot be used with this model: only the wire {wire} knows it")
        case ReasoningPart() | ToolCallPart():
            dropped(WIRE, "reasoning and calls of others than the assistant")
            return None


def render_output_text(text: TextPart) -> dict[str, Any]:
    """A text of the assistant, as history."""
    body: dict[str, Any] = {"type": "output_text", "text": text.text, **_unknown(text.extra)}
    if annotations := render_annotations(text.citations):
        body["annotations"] = annotations
    return body


def render_refusal(refusal: RefusalPart) -> dict[str, Any]:
    """A refusal of the assistant, as history."""
    return {"type": "refusal", "refusal": refusal.text, **_unknown(refusal.extra)}


def parse_annotation(raw: dict[str, Any]) -> Citation:
    """A source of a text. What the domain has no place for stays in its extra."""
    url, title, start, end = (raw.get(name) for name in ("url", "title", "start_index", "end_index"))
    name = title if isinstance(title, str) else raw.get("filename")
    return Citation(
        url=url if isinstance(url, str) else None,
        title=name if isinstance(name, str) else None,
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
        extra=Extra(WIRE, {"annotation": raw}),
    )


def render_annotations(citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """`citations` as annotations. Those of other wires need an address."""
    return [body for citation in citations if (body := render_annotation(citation)) is not None]


def render_annotation(citation: Citation) -> dict[str, Any] | None:
    """One annotation, None if this wire has no form for it."""
    raw = own(citation.extra).get("annotation")
    if raw is not None:
        return raw
    if citation.url is None:
        return None
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title or citation.url,
        "start_index": citation.start or 0,
        "end_index": citation.end or citation.start or 0,
    }


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple["_Logprob", ...] = ()

    def value(self) -> TokenLogprob:
        return TokenLogprob(self.token, self.logprob, self.bytes, tuple([one.value() for one in self.top_logprobs]))


def parse_logprobs(raw: Any) -> tuple[TokenLogprob, ...]:
    """Log probabilities; none where they have an unknown shape."""
    if not raw:
        return ()
    try:
        return tuple([one.value() for one in msgspec.convert(raw, tuple[_Logprob, ...])])
    except msgspec.ValidationError:
        return ()


def render_logprobs(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Log probabilities, as the wire has them."""
    return [{**_token(one), "top_logprobs": [_token(other) for other in one.top]} for one in logprobs]


def _token(one: TokenLogprob) -> dict[str, Any]:
    shown = one.bytes if one.bytes is not None else tuple(one.token.encode("utf-8", "replace"))
    return {"token": one.token, "bytes": list(shown), "logprob": one.logprob}


def _extra(part: dict[str, Any], known: frozenset[str]) -> Extra | None:
    unknown = rest(part, known)
    return Extra(WIRE, {"part": unknown}) if unknown else None


def _unknown(extra: Extra | None) -> dict[str, Any]:
    return own(extra).get("part", {})
