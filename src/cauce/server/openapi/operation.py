"""One operation of the document, and what it is made of."""

from typing import Any

from cauce.wire.native.answer import ErrorBody
from cauce.wire.native.request import LONGEST, SHORTEST

REF = "#/components/schemas/{name}"

EXAMPLE = {"messages": [{"role": "user", "content": "How do I add an API key?"}]}

CHOSEN = r"^[^\x00-\x20/\x7f]{1,200}$"
"""Ids and keys that a client may choose."""

CURSOR = "^[0-9]{1,15}([.][0-9]{1,6})?$"
"""What a reader says it has read: a record, or a frame of one."""

_LEAVING = r"^(continue|cancel|grace(:[0-9]{1,6}(\.[0-9]{1,3})?s?)?)$"

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


def query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter in the query of a request."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """A header of a request."""
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


LEAVING = header("X-Cauce-On-Disconnect", "What becomes of the call when nobody reads it any more.", pattern=_LEAVING)
TIMEOUT = header("X-Cauce-Timeout", "Seconds for the whole call.", type="number", minimum=SHORTEST, maximum=LONGEST)
RESTART = header("X-Cauce-Restart", "Text that was shown may be taken back, by a `restart`.", enum=["accept"])


def last_event_id() -> dict[str, Any]:
    return header("Last-Event-ID", "The last frame of the stream that was read, as its `id` said it.", pattern=CURSOR)


def at_its_end() -> dict[str, Any]:
    return {"description": "The stream has ended and the cursor is at its end."}


def logged(operation: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """`operation` with the headers by which a call outlives its connection, and `more` parameters."""
    operation["parameters"] = [
        *operation.get("parameters", ()),
        header(
            "Idempotency-Key", "Makes the call one, however often it is sent: its stream is `WIRE:KEY`.", pattern=CHOSEN
        ),
        header("X-Cauce-Durable", "Put the call into the log under an id that is made here.", enum=["true", "false"]),
        LEAVING,
        TIMEOUT,
        *more,
    ]
    return operation
