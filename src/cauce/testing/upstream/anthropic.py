"""Anthropic's Messages: content blocks, named events, token counts, errors and model lists."""

from typing import Any

import msgspec

from cauce.testing.upstream.reply import Ask, Reply, Steps, Tokens, Wire, called, decoded, halves, words

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def streams(ask: Ask) -> bool:
    """Whether the request asks for a stream."""
    return bool(ask.body.get("stream"))


def failure(reply: Reply) -> dict[str, Any]:
    """The body of an error; its type is the status's unless the reply names one."""
    given = reply.error or {"message": "scripted failure"}
    error = {"type": _ERRORS.get(reply.status, "api_error"), **given}
    return {"type": "error", "error": error, "request_id": "req_fake"}


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A whole `message`."""
    content: list[dict[str, Any]] = []
    if reply.reasoning or reply.signature:
        content.append({"type": "thinking", "thinking": reply.reasoning, "signature": reply.signed})
    if said := reply.refusal or reply.text:
        content.append({"type": "text", "text": said, "citations": None})
    for number, (name, arguments) in enumerate(reply.tool_calls):
        content.append({"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": decoded(arguments)})
    message = {**_message(ask), "content": content, **_end(reply)}
    return message if reply.usage is None else {**message, "usage": usage(reply.usage)}


def count(reply: Reply, ask: Ask) -> dict[str, Any]:
    """The answer of `/v1/messages/count_tokens`."""
    return {"input_tokens": (reply.tokens or Tokens()).input}


def stream(reply: Reply, ask: Ask) -> Steps:
    """Events: the message, its blocks, how it ended."""
    told = usage(reply.usage) if reply.usage is not None else {"input_tokens": 0, "output_tokens": 0}
    begun: dict[str, Any] = {**_message(ask), "content": [], "stop_reason": None, "stop_sequence": None}
    opening = _event("message_start", message={**begun, "usage": {**told, "output_tokens": 1}})
    deltas: list[bytes] = []
    left = b""
    for index, (block, pieces, after) in enumerate(_blocks(reply)):
        left += _event("content_block_start", index=index, content_block=block) + (_PING if index == 0 else b"")
        for piece in pieces:
            deltas.append(left + _event("content_block_delta", index=index, delta=piece))
            left = b""
        left += b"".join(_event("content_block_delta", index=index, delta=piece) for piece in after)
        left += _event("content_block_stop", index=index)
    if reply.error_after is not None:
        return Steps((opening,), tuple(deltas[: reply.error_after]), (_event("error", error=failure(reply)["error"]),))
    ended = _event("message_delta", delta=_end(reply), usage=told)
    return Steps((opening,), tuple(deltas), (left + ended, _event("message_stop")))


def frames(payloads: tuple[bytes, ...], ask: Ask) -> Steps:
    """Payloads with the name of their type."""
    return Steps(deltas=tuple(_framed(payload, msgspec.json.decode(payload)["type"]) for payload in payloads))


def usage(tokens: Any) -> Any:
    """Usage: `input_tokens` leaves out what was read from the cache and written to it."""
    if not isinstance(tokens, Tokens):
        return tokens
    told: dict[str, Any] = {
        "input_tokens": tokens.input - tokens.cached - tokens.cache_write,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.output,
    }
    if tokens.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    return told


def model(name: str) -> dict[str, Any]:
    """A model of the list."""
    limits = {"lifecycle": "active", "max_input_tokens": 200_000, "max_tokens": 64_000}
    return {"type": "model", "id": name, "display_name": name, "created_at": "2023-11-14T00:00:00Z", **limits}


def models(names: list[str]) -> dict[str, Any]:
    """The list of models."""
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"data": [model(name) for name in names], "has_more": False, **ends}


def _message(ask: Ask) -> dict[str, Any]:
    return {"id": "msg_fake", "type": "message", "role": "assistant", "model": ask.body["model"]}


def _end(reply: Reply) -> dict[str, Any]:
    if called(reply):
        return {"stop_reason": "tool_use", "stop_sequence": None}
    word = "refusal" if reply.refusal else _REASONS.get(reply.finish_reason, reply.finish_reason)
    return {"stop_reason": word, "stop_sequence": None}


def _blocks(reply: Reply) -> list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """The blocks as they begin, their deltas, and what a block's end adds."""
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = []
    if reply.reasoning or reply.signature:
        pieces = [{"type": "thinking_delta", "thinking": word} for word in words(reply.reasoning)]
        signature = [{"type": "signature_delta", "signature": reply.signed}]
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, pieces, signature))
    if said := reply.refusal or reply.text:
        pieces = [{"type": "text_delta", "text": word} for word in words(said)]
        blocks.append(({"type": "text", "text": ""}, pieces, []))
    for number, (name, arguments) in enumerate(reply.tool_calls):
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *halves(arguments))]
        blocks.append(({"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}, pieces, []))
    return blocks


def _event(name: str, **fields: Any) -> bytes:
    return _framed(msgspec.json.encode({"type": name, **fields}), name)


def _framed(payload: bytes, name: str) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"


WIRE = Wire(plain, failure, streams, stream, frames)
COUNT = Wire(count, failure)
