"""Citations: `annotations` of type `url_citation`, to and from the domain."""

from typing import Any, cast

from cauce.domain.citation import Citation
from cauce.domain.extra import Extra
from cauce.wire.openai_chat.extras import WIRE, member, own

_KIND = "url_citation"


def parse_annotations(value: Any, choice: int) -> list[Citation]:
    """The citations in a message's `annotations`; empty if any of them is something else, which is carried raw."""
    if not isinstance(value, list):
        return []
    found: list[Citation] = []
    for entry in cast(list[Any], value):
        match entry:
            case {"type": "url_citation", "url_citation": {"url": str(url)}}:
                found.append(_citation(cast(dict[str, Any], entry), url, choice))
            case _:
                return []
    return found


def _citation(annotation: dict[str, Any], url: str, choice: int) -> Citation:
    body = member(annotation, _KIND)
    title, quote = body.get("title"), body.get("content")
    start, end = body.get("start_index"), body.get("end_index")
    return Citation(
        url,
        title if isinstance(title, str) else None,
        quote if isinstance(quote, str) else None,
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
        choice,
        Extra(WIRE, {"annotation": annotation}),
    )


def render_annotation(citation: Citation, start: int, end: int) -> dict[str, Any] | None:
    """`citation` as an annotation, of the characters `start` to `end` where it does not say itself. None without an address."""
    kept = own(citation.extra).get("annotation")
    if kept is not None:
        return kept
    if citation.url is None:
        return None
    body: dict[str, Any] = {
        "url": citation.url,
        "title": citation.title or citation.url,
        "start_index": start if citation.start is None else citation.start,
        "end_index": end if citation.end is None else citation.end,
    }
    if citation.quote is not None:
        body["content"] = citation.quote
    return {"type": _KIND, _KIND: body}
