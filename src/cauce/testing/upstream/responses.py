"""OpenAI's Responses: output items, and a stream of numbered, named events."""

from collections.abc import Callable
from typing import Any

import msgspec

from cauce.testing.upstream import chat
from cauce.testing.upstream.reply import Ask, Reply, Steps, Tokens, Wire, halves, words

Event = dict[str, Any]
Told = tuple[list[Event], list[Event], list[Event]]
"""The events of an item: before its first delta, its deltas, after its last."""

_ID = "resp_fake"
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A whole `response`."""
    status, details = _end(reply)
    output = [item for item, _ in _items(reply, ask)]
    told = None if reply.usage is None else usage(reply.usage)
    return _response(ask, status=status, incomplete_details=details, output=output, usage=told)


def count(reply: Reply, ask: Ask) -> dict[str, Any]:
    """The answer of `/responses/input_tokens`."""
    return {"object": "response.input_tokens", "input_tokens": (reply.tokens or Tokens()).input}


def stream(reply: Reply, ask: Ask) -> Steps:
    """Events: created, in progress, for each item its own, and how it ended."""
    begun = _response(ask, status="in_progress", incomplete_details=None, output=[], usage=None)
    opening: list[list[Event]] = [[{"type": "response.created", "response": begun}]]
    opening.append([{"type": "response.in_progress", "response": begun}])
    deltas: list[list[Event]] = []
    left: list[Event] = []
    for index, (item, events) in enumerate(_items(reply, ask)):
        before, pieces, after = events(index)
        started = {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}
        left += [started, *before]
        for piece in pieces:
            deltas.append([*left, piece])
            left = []
        left += [*after, {"type": "response.output_item.done", "output_index": index, "item": item}]
    whole = plain(reply, ask)
    closing = [[*left, {"type": f"response.{whole['status']}", "response": whole}]]
    if reply.error_after is not None:
        deltas = deltas[: reply.error_after]
        closing = [_broken(reply, ask)]
    return _numbered(opening, deltas, closing)


def frames(payloads: tuple[bytes, ...], ask: Ask) -> Steps:
    """Payloads with the name of their type."""
    return Steps(deltas=tuple(_framed(payload, msgspec.json.decode(payload)["type"]) for payload in payloads))


def usage(tokens: Any) -> Any:
    """Usage: details are always told."""
    if not isinstance(tokens, Tokens):
        return tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def _response(ask: Ask, **fields: Any) -> dict[str, Any]:
    given = {name: ask.body[name] for name in _ECHOED if ask.body.get(name) is not None}
    head = {
        "id": ask.response_id or _ID,
        "object": "response",
        "created_at": 1_700_000_000,
        "model": ask.body["model"],
        "error": None,
    }
    return {**head, **_ECHOED, **given, **fields}


def _end(reply: Reply) -> tuple[str, dict[str, str] | None]:
    if reply.finish_reason == "stop":
        return "completed", None
    word = {"length": "max_output_tokens"}.get(reply.finish_reason, reply.finish_reason)
    return "incomplete", {"reason": word}


def _items(reply: Reply, ask: Ask) -> list[tuple[dict[str, Any], Callable[[int], Told]]]:
    """The output items, each with what makes its events for its place."""
    items: list[tuple[dict[str, Any], Callable[[int], Told]]] = []
    if reply.reasoning:
        summary = {"type": "summary_text", "text": reply.reasoning}
        item: dict[str, Any] = {"id": "rs_0", "type": "reasoning", "summary": [summary]}
        if "reasoning.encrypted_content" in (ask.body.get("include") or ()):
            item["encrypted_content"] = reply.signed
        items.append((item, _reasoned(reply.reasoning)))
    said = reply.refusal or reply.text
    if said:
        part: dict[str, Any] = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        if reply.refusal:
            part = {"type": "refusal", "refusal": said}
        item = {"id": "msg_0", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        items.append((item, _said(part)))
    for number, (name, arguments) in enumerate(reply.tool_calls):
        call = {"call_id": f"call_{number}", "name": name, "arguments": arguments, "status": "completed"}
        items.append(({"id": f"fc_{number}", "type": "function_call", **call}, _calling(number, name, arguments)))
    return items


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is when it begins."""
    match item["type"]:
        case "reasoning":
            return {**item, "summary": []}
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case _:
            return {**item, "status": "in_progress", "arguments": ""}


def _reasoned(text: str) -> Callable[[int], Told]:
    def events(index: int) -> Told:
        place = {"item_id": "rs_0", "output_index": index, "summary_index": 0}
        name = "response.reasoning_summary"
        empty, whole = ({"type": "summary_text", "text": told} for told in ("", text))
        pieces = [{"type": f"{name}_text.delta", **place, "delta": word} for word in words(text)]
        done = {"type": f"{name}_text.done", **place, "text": text}
        after = [done, {"type": f"{name}_part.done", **place, "part": whole}]
        return [{"type": f"{name}_part.added", **place, "part": empty}], pieces, after

    return events


def _said(part: dict[str, Any]) -> Callable[[int], Told]:
    def events(index: int) -> Told:
        place = {"item_id": "msg_0", "output_index": index, "content_index": 0}
        key = "text" if part["type"] == "output_text" else "refusal"
        name = f"response.{part['type']}"
        more: dict[str, Any] = {"logprobs": []} if key == "text" else {}
        before = [{"type": "response.content_part.added", **place, "part": {**part, key: ""}}]
        pieces = [{"type": f"{name}.delta", **place, "delta": word, **more} for word in words(part[key])]
        done = {"type": f"{name}.done", **place, key: part[key], **more}
        return before, pieces, [done, {"type": "response.content_part.done", **place, "part": part}]

    return events


def _calling(number: int, name: str, arguments: str) -> Callable[[int], Told]:
    def events(index: int) -> Told:
        place = {"item_id": f"fc_{number}", "output_index": index}
        kind = "response.function_call_arguments"
        pieces = [{"type": f"{kind}.delta", **place, "delta": piece} for piece in ("", *halves(arguments))]
        return [], pieces, [{"type": f"{kind}.done", **place, "name": name, "arguments": arguments}]

    return events


def _broken(reply: Reply, ask: Ask) -> list[Event]:
    error = chat.failure(reply)["error"]
    told = {"code": error.get("code") or "server_error", "message": error.get("message", "")}
    ended = _response(ask, status="failed", incomplete_details=None, output=[], usage=None)
    return [{"type": "error", "error": error}, {"type": "response.failed", "response": {**ended, "error": told}}]


def _numbered(opening: list[list[Event]], deltas: list[list[Event]], closing: list[list[Event]]) -> Steps:
    number = -1

    def framed(steps: list[list[Event]]) -> tuple[bytes, ...]:
        nonlocal number
        told: list[bytes] = []
        for events in steps:
            joined = b""
            for event in events:
                number += 1
                joined += _framed(msgspec.json.encode({**event, "sequence_number": number}), event["type"])
            told.append(joined)
        return tuple(told)

    return Steps(framed(opening), framed(deltas), framed(closing))


def _framed(payload: bytes, name: str) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"


WIRE = Wire(plain, chat.failure, chat.streams, stream, frames)
COUNT = Wire(count, chat.failure)
