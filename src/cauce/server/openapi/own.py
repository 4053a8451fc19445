"""Endpoints of the native surface."""

from typing import Any

from cauce.server.openapi.operation import described, event_stream, json_of, json_or_events, optional, outcomes
from cauce.server.routes.streams import StreamState
from cauce.wire.native.answer import AnswerBody, ErrorBody
from cauce.wire.native.request import MessageRequestBody

BODIES = (MessageRequestBody, AnswerBody, ErrorBody, StreamState)


def native() -> dict[str, Any]:
    return {
        "/llm/message": {
            "post": described(
                "Ask a model",
                "One message, one answer. With `stream: true` the answer comes in native frames.",
                body=MessageRequestBody,
                answers={200: json_or_events(AnswerBody)},
            )
        }
    }


def streams() -> dict[str, Any]:
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
    events = {200: event_stream(), 204: {"description": "The stream has ended and the cursor is at its end."}}
    resume = {
        "summary": "Read a stream on",
        "description": "From `Last-Event-ID` or `after`; without either from where the last reader stopped.",
        "parameters": [cursor, epoch, last_event_id],
    }
    return {
        "/chat/stream/{id}": {
            "parameters": [stream_id],
            "post": optional(
                described(
                    "Start a stream, or attach to it",
                    "The id is yours to choose and makes the call idempotent. Without a body it only attaches. "
                    "Leaving is not cancelling.",
                    body=MessageRequestBody,
                    answers={200: event_stream()},
                )
            ),
            "get": described("Tell how a stream stands", "", answers={200: json_of(StreamState)}),
            "delete": described("Cancel a stream", "Idempotent.", answers={200: json_of(StreamState)}),
        },
        "/chat/stream/{id}/resume": {
            "parameters": [stream_id],
            "get": {**resume, "responses": outcomes(events, ErrorBody)},
            "post": {**resume, "responses": outcomes(events, ErrorBody)},
        },
    }
