"""The OpenAPI document, made of the same structs that check requests and shape answers."""

from typing import Any

import msgspec

from cauce import __version__
from cauce.server.routes.gemini import GeminiModels, GeminiTokenCount
from cauce.server.routes.health import HealthBody
from cauce.server.routes.messages import TokenCount
from cauce.server.routes.models import ModelBody, ModelsBody
from cauce.server.routes.responses import Deleted, InputTokens
from cauce.server.routes.streams import StreamState
from cauce.wire.anthropic_messages.request import CountTokensBody, MessagesBody
from cauce.wire.gemini.embeddings import BatchEmbedContentsBody, EmbedContentBody
from cauce.wire.gemini.request import GenerateContentBody
from cauce.wire.native.answer import AnswerBody, ErrorBody
from cauce.wire.native.request import MessageRequestBody
from cauce.wire.openai_chat.request import ChatCompletionBody
from cauce.wire.openai_completions.request import CompletionBody
from cauce.wire.openai_embeddings import EmbeddingsBody
from cauce.wire.openai_responses.request import ResponsesBody

_REF = "#/components/schemas/{name}"
_BODIES = (
    MessageRequestBody,
    AnswerBody,
    ErrorBody,
    ChatCompletionBody,
    CompletionBody,
    EmbeddingsBody,
    ResponsesBody,
    InputTokens,
    Deleted,
    MessagesBody,
    CountTokensBody,
    TokenCount,
    GenerateContentBody,
    EmbedContentBody,
    BatchEmbedContentsBody,
    GeminiTokenCount,
    GeminiModels,
    ModelBody,
    ModelsBody,
    HealthBody,
    StreamState,
)

_REFUSALS = (400, 401, 403, 404, 405, 408, 409, 410, 413, 429, 431, 500, 502, 503, 504)
_EXAMPLE = {"messages": [{"role": "user", "content": "How do I add an API key?"}]}


class OpenAIErrorBody(msgspec.Struct):
    """Every error under `/v1`."""

    error: dict[str, Any]


class GeminiErrorBody(msgspec.Struct):
    """Every error of the Gemini endpoints."""

    error: dict[str, Any]


class AnthropicErrorBody(msgspec.Struct):
    """Every error under `/v1/messages`."""

    error: dict[str, Any]
    type: str = "error"
    request_id: str | None = None


def document() -> dict[str, Any]:
    """The document, as JSON values."""
    bodies = (*_BODIES, OpenAIErrorBody, AnthropicErrorBody, GeminiErrorBody)
    _, schemas = msgspec.json.schema_components(bodies, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cauce",
            "version": __version__,
            "description": "The LLM application server: any client can talk to it, any model can answer.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_native(),
            **_streams(),
            **_openai(),
            **_responses_api(),
            **_anthropic(),
            **_gemini(),
            **_operations(),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _native() -> dict[str, Any]:
    return {
        "/llm/message": {
            "post": _operation(
                "Ask a model",
                "One message, one answer. With `stream: true` the answer comes in native frames.",
                body=MessageRequestBody,
                answers={200: _json_or_events(AnswerBody)},
            )
        }
    }


def _streams() -> dict[str, Any]:
    stream_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[^\\x00-\\x20/\\x7f]{1,200}$"},
    }
    cursor = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    epoch = {
        "name": "epoch",
        "in": "query",
        "schema": {"type": "integer"},
        "description": "Epoch of the cursor's record.",
    }
    last_event_id = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    events = {200: _events(), 204: {"description": "The stream has ended and the cursor is at its end."}}
    resume = {
        "summary": "Read a stream on",
        "description": "From `Last-Event-ID` or `after`; without either from where the last reader stopped.",
        "parameters": [cursor, epoch, last_event_id],
    }
    return {
        "/chat/stream/{id}": {
            "parameters": [stream_id],
            "post": _optional(
                _operation(
                    "Start a stream, or attach to it",
                    "The id is yours to choose and makes the call idempotent. Without a body it only attaches. "
                    "Leaving is not cancelling.",
                    body=MessageRequestBody,
                    answers={200: _events()},
                )
            ),
            "get": _operation("Tell how a stream stands", "", answers={200: _json(StreamState)}),
            "delete": _operation("Cancel a stream", "Idempotent.", answers={200: _json(StreamState)}),
        },
        "/chat/stream/{id}/resume": {
            "parameters": [stream_id],
            "get": {**resume, "responses": _responses(events, ErrorBody)},
            "post": {**resume, "responses": _responses(events, ErrorBody)},
        },
    }


def _openai() -> dict[str, Any]:
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    answer = {
        "description": "The completion, or its chunks.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {},
        },
    }
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "Chat completions (OpenAI)",
                "Fields not listed are passed on to upstreams of the same wire.",
                body=ChatCompletionBody,
                answers={200: answer},
                errors=OpenAIErrorBody,
            )
        },
        "/v1/completions": {"post": _legacy(answer)},
        "/v1/embeddings": {"post": _embeddings()},
        "/v1/models": {"get": _operation("List models", "", answers={200: _json(ModelsBody)}, errors=OpenAIErrorBody)},
        "/v1/models/{model}": {
            "parameters": [model],
            "get": _operation("One model", "", answers={200: _json(ModelBody)}, errors=OpenAIErrorBody),
        },
    }


def _responses_api() -> dict[str, Any]:
    json = {"application/json": {"schema": {"type": "object"}}}
    plain = {"description": "One page of items.", "content": json}
    answer = {"description": "The response, or its events.", "content": {**json, "text/event-stream": {}}}
    identifier = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    example = {"input": "How do I add an API key?"}
    create = _operation(
        "Responses (OpenAI)",
        "Fields not listed are passed on to upstreams of the same wire. `previous_response_id` goes on from a kept response.",
        body=ResponsesBody,
        answers={200: answer},
        errors=OpenAIErrorBody,
    )
    tokens = _operation(
        "Count the tokens of a request (OpenAI)",
        "",
        body=ResponsesBody,
        answers={200: _json(InputTokens)},
        errors=OpenAIErrorBody,
    )
    for operation in (create, tokens):
        operation["requestBody"]["content"]["application/json"]["example"] = example
    return {
        "/v1/responses": {"post": create},
        "/v1/responses/input_tokens": {"post": tokens},
        "/v1/responses/{id}": {
            "parameters": [identifier],
            "get": _operation(
                "A kept response",
                "With `stream=true` its events once more, after `starting_after`.",
                answers={200: answer},
                errors=OpenAIErrorBody,
            ),
            "delete": _operation("Forget a response", "", answers={200: _json(Deleted)}, errors=OpenAIErrorBody),
        },
        "/v1/responses/{id}/input_items": {
            "parameters": [identifier],
            "get": _operation("What a response was answered to", "", answers={200: plain}, errors=OpenAIErrorBody),
        },
        "/v1/responses/{id}/cancel": {
            "parameters": [identifier],
            "post": _operation(
                "Cancel a response", "Refused: kept ones have ended.", answers={}, errors=OpenAIErrorBody
            ),
        },
    }


def _legacy(answer: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(
        "Completions (OpenAI, legacy)",
        "Goes on with a prompt. Models that only converse are told it as a message.",
        body=CompletionBody,
        answers={200: answer},
        errors=OpenAIErrorBody,
    )
    operation["requestBody"]["content"]["application/json"]["example"] = {"prompt": "Once upon a time"}
    return operation


def _embeddings() -> dict[str, Any]:
    vectors = {"description": "One vector per input.", "content": {"application/json": {"schema": {"type": "object"}}}}
    operation = _operation(
        "Embeddings (OpenAI)",
        "Never answered by another model: vectors of two models do not mix.",
        body=EmbeddingsBody,
        answers={200: vectors},
        errors=OpenAIErrorBody,
    )
    operation["requestBody"]["content"]["application/json"]["example"] = {"model": "auto", "input": "a text"}
    return operation


def _anthropic() -> dict[str, Any]:
    answer = {
        "description": "The message, or its events.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
    messages = _operation(
        "Messages (Anthropic)",
        "Fields not listed are passed on to upstreams of the same wire.",
        body=MessagesBody,
        answers={200: answer},
        errors=AnthropicErrorBody,
    )
    messages["requestBody"]["content"]["application/json"]["example"] = {**_EXAMPLE, "max_tokens": 1024}
    return {
        "/v1/messages": {"post": messages},
        "/v1/messages/count_tokens": {
            "post": _operation(
                "Count the tokens of a request (Anthropic)",
                "",
                body=CountTokensBody,
                answers={200: _json(TokenCount)},
                errors=AnthropicErrorBody,
            )
        },
    }


def _gemini() -> dict[str, Any]:
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
        operation = _operation(summary, "", body=body, answers=answers, errors=GeminiErrorBody)
        operation["requestBody"]["content"]["application/json"]["example"] = example
        return {"parameters": [parameter], "post": operation}

    stream = post("Stream an answer (Gemini)", GenerateContentBody, {200: streamed}, contents)
    stream["post"]["parameters"] = [alt]
    below = {
        ":generateContent": post("Answer (Gemini)", GenerateContentBody, {200: answer}, contents),
        ":streamGenerateContent": stream,
        ":countTokens": post("Count tokens (Gemini)", GenerateContentBody, {200: _json(GeminiTokenCount)}, contents),
        ":embedContent": post("Embed a text (Gemini)", EmbedContentBody, {200: answer}, embedded),
        ":batchEmbedContents": post(
            "Embed texts (Gemini)", BatchEmbedContentsBody, {200: answer}, {"requests": [embedded]}
        ),
    }
    listed = _operation("List models (Gemini)", "", answers={200: _json(GeminiModels)}, errors=GeminiErrorBody)
    return {
        **{f"/{version}/models/{{model}}{verb}": path for version in ("v1", "v1beta") for verb, path in below.items()},
        "/v1beta/models": {"get": listed},
    }


def _operations() -> dict[str, Any]:
    text = {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    plain = {"description": "How it stands.", "content": {"application/json": {"schema": {"type": "object"}}}}
    probe = {
        "name": "probe",
        "in": "query",
        "schema": {"type": "string"},
        "description": "Ask this model for one token.",
    }
    health = _operation("How the server stands", "", answers={200: _json(HealthBody), 503: _json(HealthBody)})
    return {
        "/health": {"get": {**health, "parameters": [probe]}},
        "/health/live": {"get": _operation("Is the process alive", "", answers={200: plain})},
        "/health/ready": {"get": _operation("Should requests be sent here", "", answers={200: plain, 503: plain})},
        "/metrics": {"get": _operation("Figures for Prometheus", "", answers={200: text})},
    }


def _operation(
    summary: str, description: str, *, answers: dict[int, Any], body: type | None = None, errors: type = ErrorBody
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": _responses(answers, errors)}
    if description:
        operation["description"] = description
    if body is not None:
        schema = {"$ref": _REF.format(name=body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": _EXAMPLE}},
        }
    return operation


def _optional(operation: dict[str, Any]) -> dict[str, Any]:
    """`operation` with a body that may be left out."""
    operation["requestBody"]["required"] = False
    return operation


def _responses(answers: dict[int, Any], errors: type) -> dict[str, Any]:
    refusal = {"description": "Refused: the body says why.", **_content(errors)}
    return {str(status): answers.get(status, refusal) for status in (*answers, *_REFUSALS)}


def _json(body: type) -> dict[str, Any]:
    return {"description": body.__doc__ or body.__name__, **_content(body)}


def _content(body: type) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REF.format(name=body.__name__)}}}}


def _events() -> dict[str, Any]:
    return {
        "description": "Server-sent events: one JSON object per `data:` line, with `id`, `seq`, `type` and `data`.",
        "content": {"text/event-stream": {}},
    }


def _json_or_events(body: type) -> dict[str, Any]:
    both = _json(body)
    both["content"]["text/event-stream"] = {}
    return both
