"""Endpoints that speak as OpenAI does."""

from typing import Any

import msgspec

from cauce.server.openapi.operation import TIMEOUT, at_its_end, described, json_of, last_event_id, logged
from cauce.server.routes.kept_responses import Deleted
from cauce.server.routes.models import ModelBody, ModelsBody
from cauce.server.routes.responses import InputTokens
from cauce.wire.openai_chat.request import ChatCompletionBody
from cauce.wire.openai_completions.request import CompletionBody
from cauce.wire.openai_embeddings import EmbeddingsBody
from cauce.wire.openai_responses.request import ResponsesBody


class OpenAIErrorBody(msgspec.Struct):
    """Every error under `/v1`."""

    error: dict[str, Any]


BODIES = (
    ChatCompletionBody,
    CompletionBody,
    EmbeddingsBody,
    ResponsesBody,
    InputTokens,
    Deleted,
    ModelBody,
    ModelsBody,
    OpenAIErrorBody,
)


def openai() -> dict[str, Any]:
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
            "post": logged(
                described(
                    "Chat completions (OpenAI)",
                    "Fields not listed are passed on to upstreams of the same wire.",
                    body=ChatCompletionBody,
                    answers={200: answer, 204: at_its_end()},
                    errors=OpenAIErrorBody,
                ),
                last_event_id(),
            )
        },
        "/v1/completions": {"post": _legacy(answer)},
        "/v1/embeddings": {"post": _embeddings()},
        "/v1/models": {"get": described("List models", "", answers={200: json_of(ModelsBody)}, errors=OpenAIErrorBody)},
        "/v1/models/{model}": {
            "parameters": [model],
            "get": described("One model", "", answers={200: json_of(ModelBody)}, errors=OpenAIErrorBody),
        },
    }


def responses_api() -> dict[str, Any]:
    json = {"application/json": {"schema": {"type": "object"}}}
    plain = {"description": "The response, or one page of items.", "content": json}
    answer = {"description": "The response, or its events.", "content": {**json, "text/event-stream": {}}}
    identifier = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    example = {"input": "How do I add an API key?"}
    create = described(
        "Responses (OpenAI)",
        "Fields not listed are passed on to upstreams of the same wire. `previous_response_id` goes on from a kept response. "
        "`background` answers at once: the response is there under its id.",
        body=ResponsesBody,
        answers={200: answer},
        errors=OpenAIErrorBody,
    )
    tokens = described(
        "Count the tokens of a request (OpenAI)",
        "",
        body=ResponsesBody,
        answers={200: json_of(InputTokens)},
        errors=OpenAIErrorBody,
    )
    create["parameters"] = [TIMEOUT]
    for operation in (create, tokens):
        operation["requestBody"]["content"]["application/json"]["example"] = example
    return {
        "/v1/responses": {"post": create},
        "/v1/responses/input_tokens": {"post": tokens},
        "/v1/responses/{id}": {
            "parameters": [identifier],
            "get": described(
                "A response as it stands",
                "With `stream=true` its events after number `starting_after`: those there are, and those that come.",
                answers={200: answer},
                errors=OpenAIErrorBody,
            ),
            "delete": described("Forget a response", "", answers={200: json_of(Deleted)}, errors=OpenAIErrorBody),
        },
        "/v1/responses/{id}/input_items": {
            "parameters": [identifier],
            "get": described("What a response was answered to", "", answers={200: plain}, errors=OpenAIErrorBody),
        },
        "/v1/responses/{id}/cancel": {
            "parameters": [identifier],
            "post": described(
                "Cancel a response that was made in the background",
                "Nothing changes on one that has ended.",
                answers={200: plain},
                errors=OpenAIErrorBody,
            ),
        },
    }


def _legacy(answer: dict[str, Any]) -> dict[str, Any]:
    operation = described(
        "Completions (OpenAI, legacy)",
        "Goes on with a prompt. Models that only converse are told it as a message.",
        body=CompletionBody,
        answers={200: answer, 204: at_its_end()},
        errors=OpenAIErrorBody,
    )
    operation["requestBody"]["content"]["application/json"]["example"] = {"prompt": "Once upon a time"}
    return logged(operation, last_event_id())


def _embeddings() -> dict[str, Any]:
    vectors = {"description": "One vector per input.", "content": {"application/json": {"schema": {"type": "object"}}}}
    operation = described(
        "Embeddings (OpenAI)",
        "Never answered by another model: vectors of two models do not mix.",
        body=EmbeddingsBody,
        answers={200: vectors},
        errors=OpenAIErrorBody,
    )
    operation["requestBody"]["content"]["application/json"]["example"] = {"model": "auto", "input": "a text"}
    operation["parameters"] = [TIMEOUT]
    return operation
