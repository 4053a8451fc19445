"""One operation of the document, and what it is made of."""

from typing import Any

from cauce.wire.native.answer import ErrorBody

REF = "#/components/schemas/{name}"

EXAMPLE = {"messages": [{"role": "user", "content": "How do I add an API key?"}]}

_REFUSALS = (400, 401, 403, 404, 405, 408, 409, 410, 413, 429, 431, 500, 502, 503, 504)


def described(
    summary: str, description: str, *, answers: dict[int, Any], body: type | None = None, errors: type = ErrorBody
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": outcomes(answers, errors)}
    if description:
        operation["description"] = description
    if body is not None:
        schema = {"$ref": REF.format(name=body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": EXAMPLE}},
        }
    return operation


def optional(operation: dict[str, Any]) -> dict[str, Any]:
    """`operation` with a body that may be left out."""
    operation["requestBody"]["required"] = False
    return operation


def outcomes(answers: dict[int, Any], errors: type) -> dict[str, Any]:
    refusal = {"description": "Refused: the body says why.", **_content(errors)}
    return {str(status): answers.get(status, refusal) for status in (*answers, *_REFUSALS)}


def json_of(body: type) -> dict[str, Any]:
    return {"description": body.__doc__ or body.__name__, **_content(body)}


def _content(body: type) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": REF.format(name=body.__name__)}}}}


def event_stream() -> dict[str, Any]:
    return {
        "description": "Server-sent events: one JSON object per `data:` line, with `id`, `seq`, `type` and `data`.",
        "content": {"text/event-stream": {}},
    }


def json_or_events(body: type) -> dict[str, Any]:
    both = json_of(body)
    both["content"]["text/event-stream"] = {}
    return both
