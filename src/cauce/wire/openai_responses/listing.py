"""Input items as `GET …/input_items` lists them: every one with an id, messages in their full form."""

from typing import Any

from cauce.domain.errors import InvalidRequest
from cauce.wire.openai_responses.names import made_id

MOST = 100


def listed(items: list[dict[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """`items` of the response, oldest first."""
    return [_whole(item, response_id, place) for place, item in enumerate(items)]


def _whole(item: dict[str, Any], response_id: str, place: int) -> dict[str, Any]:
    kind = item.get("type", "message")
    whole: dict[str, Any] = {"id": made_id(str(kind), response_id, f"in{place}"), "type": kind, **item}
    if kind == "message":
        whole.setdefault("status", "completed")
        content = whole.get("content")
        if isinstance(content, str):
            whole["content"] = [_text(content, said=whole.get("role") == "assistant")]
    return whole


def _text(text: str, *, said: bool) -> dict[str, Any]:
    if said:
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def page(items: list[dict[str, Any]], *, after: str | None, limit: str | None, order: str | None) -> dict[str, Any]:
    """One page of `items`. The newest come first unless `order` is `asc`. Raises `InvalidRequest`."""
    size = int(limit) if limit is not None and limit.isdecimal() and len(limit) < 4 else 20 if limit is None else 0
    if not 1 <= size <= MOST:
        raise InvalidRequest(f"limit: must be a whole number from 1 to {MOST}", field="limit")
    if order not in (None, "asc", "desc"):
        raise InvalidRequest("order: must be asc or desc", field="order")
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise InvalidRequest(f"after: there is no item {after!r} in this list", field="after")
        ordered = ordered[places[0] + 1 :]
    shown = ordered[:size]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(ordered) > size,
    }
