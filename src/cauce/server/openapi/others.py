"""Endpoints that speak as Anthropic and Google do."""

from typing import Any

import msgspec

from cauce.server.openapi.operation import EXAMPLE, TIMEOUT, at_its_end, described, json_of, last_event_id, logged
from cauce.server.routes.gemini import GeminiModel, GeminiModels, GeminiTokenCount
from cauce.server.routes.messages import TokenCount
from cauce.wire.anthropic_messages.request import CountTokensBody, MessagesBody
from cauce.wire.gemini.embeddings import BatchEmbedContentsBody, EmbedContentBody
from cauce.wire.gemini.request import GenerateContentBody


class AnthropicErrorBody(msgspec.Struct):
    """Every error under `/v1/messages`."""

    error: dict[str, Any]
    type: str = "error"
    request_id: str | None = None


class GeminiErrorBody(msgspec.Struct):
    """Every error of the Gemini endpoints."""

    error: dict[str, Any]


BODIES = (
    MessagesBody,
    CountTokensBody,
    TokenCount,
    GenerateContentBody,
    EmbedContentBody,
    BatchEmbedContentsBody,
    GeminiTokenCount,
    GeminiModel,
    GeminiModels,
    AnthropicErrorBody,
    GeminiErrorBody,
)


def anthropic() -> dict[str, Any]:
    answer = {
        "description": "The message, or its events.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
    messages = described(
        "Messages (Anthropic)",
        "Fields not listed are passed on to upstreams of the same wire.",
        body=MessagesBody,
        answers={200: answer, 204: at_its_end()},
        errors=AnthropicErrorBody,
    )
    messages["requestBody"]["content"]["application/json"]["example"] = {**EXAMPLE, "max_tokens": 1024}
    return {
        "/v1/messages": {"post": logged(messages, last_event_id())},
        "/v1/messages/count_tokens": {
            "post": described(
                "Count the tokens of a request (Anthropic)",
                "",
                body=CountTokensBody,
                answers={200: json_of(TokenCount)},
                errors=AnthropicErrorBody,
            )
        },
    }


def gemini() -> dict[str, Any]:
    parameter = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"},
    }
    any_object = {"content": {"application/json": {"schema": {"type": "object"}}}}
    answer = {"description": "The answer.", **any_object}
    streamed = {
        "description": "Its pieces: events with `?alt=sse`, else one list.",
        "content": {"text/event-stream": {}, "application/json": {"schema": {"type": "array"}}},
    }
    alt = {"name": "alt", "in": "query", "schema": {"type": "string", "enum": ["sse", "json"]}}
    contents = {"contents": [{"role": "user", "parts": [{"text": "How do I add an API key?"}]}]}
    embedded = {"content": {"parts": [{"text": "a text"}]}}

    def post(summary: str, body: type, answers: dict[int, Any], example: dict[str, Any]) -> dict[str, Any]:
        operation = described(summary, "", body=body, answers=answers, errors=GeminiErrorBody)
        operation["requestBody"]["content"]["application/json"]["example"] = example
        return {"parameters": [parameter], "post": operation}

    def embedding(summary: str, body: type, example: dict[str, Any]) -> dict[str, Any]:
        made = post(summary, body, {200: answer}, example)
        made["post"]["parameters"] = [TIMEOUT]
        return made

    stream = post("Stream an answer (Gemini)", GenerateContentBody, {200: streamed}, contents)
    stream["post"] = logged({**stream["post"], "parameters": [alt]})
    plain = post("Answer (Gemini)", GenerateContentBody, {200: answer}, contents)
    plain["post"] = logged(plain["post"])
    below = {
        ":generateContent": plain,
        ":streamGenerateContent": stream,
        ":countTokens": post("Count tokens (Gemini)", GenerateContentBody, {200: json_of(GeminiTokenCount)}, contents),
        ":embedContent": embedding("Embed a text (Gemini)", EmbedContentBody, embedded),
        ":batchEmbedContents": embedding("Embed texts (Gemini)", BatchEmbedContentsBody, {"requests": [embedded]}),
    }
    listed = described("List models (Gemini)", "", answers={200: json_of(GeminiModels)}, errors=GeminiErrorBody)
    shown = described("Show a model (Gemini)", "", answers={200: json_of(GeminiModel)}, errors=GeminiErrorBody)
    return {
        **{f"/{version}/models/{{model}}{verb}": path for version in ("v1", "v1beta") for verb, path in below.items()},
        "/v1beta/models": {"get": listed},
        "/v1beta/models/{model}": {"parameters": [parameter], "get": shown},
    }
