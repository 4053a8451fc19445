"""Gemini's generateContent: candidates and parts, streams as SSE or as one array, counts, embeddings, errors and model lists."""

from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from cauce.testing.upstream.embeddings import vector
from cauce.testing.upstream.reply import Ask, Reply, Steps, Tokens, Wire, decoded, words

Part = dict[str, Any]

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_RETRY = "type.googleapis.com/google.rpc.RetryInfo"


def streams(ask: Ask) -> bool:
    """Whether the request asks for a stream."""
    return ask.path.endswith(":streamGenerateContent")


def failure(reply: Reply) -> dict[str, Any]:
    """The body of an error. When to come again is told in its details: this wire has no Retry-After."""
    code = reply.status if reply.status != 200 else 500
    given = reply.error or {"message": "scripted failure"}
    error: dict[str, Any] = {"code": code, "status": _STATUSES.get(code, "UNKNOWN"), **given}
    if reply.retry_after is not None:
        error["details"] = [*error.get("details", []), {"@type": _RETRY, "retryDelay": f"{reply.retry_after:g}s"}]
    return {"error": error}


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A whole `GenerateContentResponse`."""
    if reply.refusal:
        return _blocked(reply, ask)
    parts: list[Part] = [{"text": reply.reasoning, "thought": True}] if reply.reasoning else []
    if reply.text:
        parts.append({"text": reply.text})
    parts += _calls(reply)
    return _response(reply, ask, _signed(parts, reply), _reason(reply))


def stream(reply: Reply, ask: Ask) -> Steps:
    """A response per word or call, and one that says how it ended."""
    if reply.refusal:
        return _framed([], [_blocked(reply, ask)], ask)
    parts: list[Part] = [{"text": word, "thought": True} for word in words(reply.reasoning)]
    parts += [{"text": word} for word in words(reply.text)]
    parts += _calls(reply)
    deltas = [_response(reply, ask, [part], None) for part in _signed(parts, reply)]
    if reply.error_after is not None:
        return _broken(reply, ask, deltas[: reply.error_after])
    return _framed(deltas, [_response(reply, ask, [{"text": ""}], _reason(reply))], ask)


def frames(payloads: tuple[bytes, ...], ask: Ask) -> Steps:
    """Payloads as the stream has them: `data:` lines that end in CRLF, or elements of one array."""
    return _join([], list(payloads), ask)


def kind(ask: Ask) -> str:
    """A stream that nobody asked to be events is one JSON array."""
    return "text/event-stream" if _as_events(ask) else "application/json"


def count(reply: Reply, ask: Ask) -> dict[str, Any]:
    """The answer of `:countTokens`."""
    tokens = reply.tokens or Tokens()
    details = [{"modality": "TEXT", "tokenCount": tokens.input}]
    body: dict[str, Any] = {"totalTokens": tokens.input, "promptTokensDetails": details}
    return {**body, "cachedContentTokenCount": tokens.cached} if tokens.cached else body


def embed(reply: Reply, ask: Ask) -> dict[str, Any]:
    """The answer of `:embedContent`."""
    return {"embedding": {"values": vector(reply, 0, _dimensions(ask.body))}}


def embed_batch(reply: Reply, ask: Ask) -> dict[str, Any]:
    """The answer of `:batchEmbedContents`."""
    asked: list[dict[str, Any]] = ask.body["requests"]
    return {
        "embeddings": [{"values": vector(reply, index, _dimensions(one))} for index, one in enumerate(asked)],
    }


def model(name: str) -> dict[str, Any]:
    """A model of the list."""
    return {
        "name": f"models/{name}",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    }


def models(names: list[str]) -> dict[str, Any]:
    """The list of models."""
    return {"models": [model(name) for name in names]}


def usage(tokens: Any) -> Any:
    """Usage: thoughts are counted beside the candidates."""
    if not isinstance(tokens, Tokens):
        return tokens
    told = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "totalTokenCount": tokens.input + tokens.output,
    }
    if tokens.cached:
        told["cachedContentTokenCount"] = tokens.cached
    if tokens.reasoning:
        told["thoughtsTokenCount"] = tokens.reasoning
    return told


def _dimensions(body: dict[str, Any]) -> int | None:
    return body.get("outputDimensionality") or body.get("output_dimensionality")


def _named(ask: Ask) -> dict[str, Any]:
    name = unquote(ask.path).rpartition("models/")[2].partition(":")[0]
    return {"modelVersion": name, "responseId": "fake-response"}


def _response(reply: Reply, ask: Ask, parts: list[Part], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    body: dict[str, Any] = {"candidates": [candidate]}
    if reply.usage is not None:
        body["usageMetadata"] = usage(reply.usage)
    return {**body, **_named(ask)}


def _blocked(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A prompt that was refused: no candidate, and why."""
    feedback = {"blockReason": "SAFETY", "blockReasonMessage": reply.refusal}
    told = {} if reply.usage is None else {"usageMetadata": usage(reply.usage)}
    return {"promptFeedback": feedback, **told, **_named(ask)}


def _reason(reply: Reply) -> str:
    if any(decoded(arguments) == {} and arguments.strip() not in ("", "{}") for _, arguments in reply.tool_calls):
        return "MALFORMED_FUNCTION_CALL"
    return _REASONS.get(reply.finish_reason, reply.finish_reason)


def _calls(reply: Reply) -> list[Part]:
    """Calls come whole, and without an id, as they mostly do."""
    return [{"functionCall": {"name": name, "args": decoded(arguments)}} for name, arguments in reply.tool_calls]


def _signed(parts: list[Part], reply: Reply) -> list[Part]:
    """The signature stands on the first call, else on the last part."""
    if not reply.signed or not parts:
        return parts
    calls = [place for place, part in enumerate(parts) if "functionCall" in part]
    place = calls[0] if calls else len(parts) - 1
    return [*parts[:place], {**parts[place], "thoughtSignature": reply.signed}, *parts[place + 1 :]]


def _as_events(ask: Ask) -> bool:
    return parse_qs(ask.query).get("alt") == ["sse"]


def _framed(deltas: list[dict[str, Any]], closing: list[dict[str, Any]], ask: Ask) -> Steps:
    encode = msgspec.json.encode
    return _join([encode(one) for one in deltas], [encode(one) for one in closing], ask)


def _join(deltas: list[bytes], closing: list[bytes], ask: Ask) -> Steps:
    if _as_events(ask):
        framed = [b"data: " + payload + b"\r\n\r\n" for payload in (*deltas, *closing)]
        return Steps(deltas=tuple(framed[: len(deltas)]), closing=tuple(framed[len(deltas) :]))
    framed = [(b"[" if place == 0 else b",\r\n") + one for place, one in enumerate((*deltas, *closing))]
    return Steps(deltas=tuple(framed[: len(deltas)]), closing=(*framed[len(deltas) :], b"]"))


def _broken(reply: Reply, ask: Ask, deltas: list[dict[str, Any]]) -> Steps:
    """An error among events is bare JSON over several lines, without `data:`."""
    error = msgspec.json.format(msgspec.json.encode(failure(reply)), indent=2)
    if not _as_events(ask):
        return _join([msgspec.json.encode(one) for one in deltas], [error], ask)
    framed = _framed(deltas, [], ask)
    return Steps(deltas=framed.deltas, closing=(error.replace(b"\n", b"\r\n") + b"\r\n",))


WIRE = Wire(plain, failure, streams, stream, frames, kind, retry_header=False)
COUNT = Wire(count, failure, retry_header=False)
EMBED = Wire(embed, failure, retry_header=False)
EMBED_BATCH = Wire(embed_batch, failure, retry_header=False)
