"""OpenAI's Chat Completions, its legacy Completions, and OpenAI's errors and model lists."""

from typing import Any

import msgspec

from cauce.testing.upstream.reply import Ask, Reply, Steps, Tokens, Wire, called, halves, words

_ERROR = {"message": "scripted failure", "type": "server_error", "code": None}
_HEAD: dict[str, Any] = {"id": "chatcmpl-fake", "created": 1_700_000_000, "system_fingerprint": "fp_fake"}
_DONE = b"data: [DONE]\n\n"


def streams(ask: Ask) -> bool:
    """Whether the request asks for a stream."""
    return bool(ask.body.get("stream"))


def counts(ask: Ask) -> bool:
    """Whether the request asks for the usage of its stream."""
    options: dict[str, Any] = ask.body.get("stream_options") or {}
    return bool(options.get("include_usage"))


def failure(reply: Reply) -> dict[str, Any]:
    """The body of an error."""
    return {"error": reply.error or _ERROR}


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A `chat.completion`."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.refusal:
        message |= {"content": None, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(reply.tool_calls)
        ]
    choice = {"index": 0, "message": {**message, **reply.message}, "finish_reason": _reason(reply)}
    body = {**_HEAD, "object": "chat.completion", "model": ask.body["model"], "choices": [choice]}
    return body if reply.usage is None else {**body, "usage": usage(reply.usage)}


def stream(reply: Reply, ask: Ask) -> Steps:
    """Chunks: words or pieces of tool calls, finish, usage, `[DONE]`."""
    head = {**_HEAD, "object": "chat.completion.chunk", "model": ask.body["model"]}
    deltas = _deltas(reply)
    if deltas:
        deltas[0] = {"role": "assistant", **deltas[0]}
    framed = tuple(
        _frame({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas
    )
    if reply.error_after is not None:
        return Steps(deltas=framed[: reply.error_after], closing=(_frame(failure(reply)),))
    closing = [_frame({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": _reason(reply)}]})]
    if reply.usage is not None and counts(ask):
        closing.append(_frame({**head, "choices": [], "usage": usage(reply.usage)}))
    return Steps(deltas=framed, closing=(*closing, _DONE))


def frames(payloads: tuple[bytes, ...], ask: Ask) -> Steps:
    """Payloads as `data:` lines."""
    return Steps(deltas=tuple(b"data: " + payload + b"\n\n" for payload in payloads))


def usage(tokens: Any) -> Any:
    """OpenAI's usage: cached and reasoning tokens are parts of the sums, and told only where there are any."""
    if not isinstance(tokens, Tokens):
        return tokens
    told: dict[str, Any] = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    }
    if tokens.cached or tokens.cache_write:
        told["prompt_tokens_details"] = {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.cache_write}
    if tokens.reasoning:
        told["completion_tokens_details"] = {"reasoning_tokens": tokens.reasoning}
    return told


def model(name: str) -> dict[str, Any]:
    """A model of the list."""
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"}


def models(names: list[str]) -> dict[str, Any]:
    """The list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def _deltas(reply: Reply) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"reasoning_content": word} for word in words(reply.reasoning)]
    if reply.refusal:
        deltas += [{"refusal": word} for word in words(reply.refusal)]
    else:
        deltas += [{"content": word} for word in words(reply.text)]
    for index, (name, arguments) in enumerate(reply.tool_calls):
        opening = {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **opening}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in halves(arguments)]
    return deltas


def _reason(reply: Reply) -> str:
    return "tool_calls" if called(reply) else reply.finish_reason


def _frame(payload: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


WIRE = Wire(plain, failure, streams, stream, frames)
