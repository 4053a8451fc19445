"""Endpoints of the native surface."""

from typing import Any

from cauce.server.erasing import Receipt
from cauce.server.openapi.operation import (
    CHOSEN,
    CURSOR,
    LEAVING,
    RESTART,
    TIMEOUT,
    at_its_end,
    described,
    event_stream,
    json_of,
    json_or_events,
    last_event_id,
    logged,
    optional,
    outcomes,
    query,
)
from cauce.server.routes.streams import StreamState
from cauce.server.wires import WIRES
from cauce.wire.native.answer import AnswerBody, ErrorBody
from cauce.wire.native.request import MessageRequestBody

BODIES = (MessageRequestBody, AnswerBody, ErrorBody, StreamState, Receipt)


def native() -> dict[str, Any]:
    return {
        "/llm/message": {
            "post": logged(
                described(
                    "Ask a model",
                    "One message, one answer. With `stream: true` the answer comes in native frames.",
                    body=MessageRequestBody,
                    answers={200: json_or_events(AnswerBody), 204: at_its_end()},
                ),
                last_event_id(),
                RESTART,
            )
        }
    }


def started(operation: dict[str, Any]) -> dict[str, Any]:
    operation["parameters"] = [last_event_id(), LEAVING, RESTART, TIMEOUT]
    return optional(operation)


def streams() -> dict[str, Any]:
    stream_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": CHOSEN},
    }
    cursor = query(
        "after",
        {"type": "string", "pattern": CURSOR},
        "The last frame that was read, as its `id` said it; 0: none.",
    )
    epoch = query("epoch", {"type": "integer"}, "Epoch of the cursor's record.")
    wire = query("wire", {"type": "string", "enum": list(WIRES)}, "What to read it in, whatever it was asked for in.")
    erase = query(
        "erase",
        {"type": "string", "enum": ["true", "false"]},
        "Delete its log, too: it is told as gone afterwards. What its conversation has of it already stays there.",
    )
    events = {200: event_stream(), 204: at_its_end()}
    resume = {
        "summary": "Read a stream on",
        "description": "From the later of `Last-Event-ID` and `after`; without either from where the last reader stopped.",
        "parameters": [wire, cursor, epoch, last_event_id()],
    }
    return {
        "/chat/stream/{id}": {
            "parameters": [stream_id],
            "post": started(
                described(
                    "Start a stream, or attach to it",
                    "The id is yours to choose and makes the call idempotent. Without a body it only attaches. "
                    "Leaving is not cancelling.",
                    body=MessageRequestBody,
                    answers=events,
                )
            ),
            "get": described("Tell how a stream stands", "", answers={200: json_of(StreamState)}),
            "delete": {
                **described("Cancel a stream", "Idempotent.", answers={200: json_of(StreamState)}),
                "parameters": [erase],
            },
        },
        "/chat/stream/{id}/resume": {
            "parameters": [stream_id],
            "get": {
                **resume,
                "security": [{}, {"bearer": []}, {"key": []}, {"cookie": []}],
                "responses": outcomes(events, ErrorBody),
            },
            "post": {**resume, "responses": outcomes(events, ErrorBody)},
        },
    }


def users() -> dict[str, Any]:
    user = {
        "name": "user",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": "As requests of your key name it.",
    }
    everything = {"name": "all", "in": "query", "required": True, "schema": {"type": "string", "enum": ["true"]}}
    what = "Streams, conversations, kept responses and comments are deleted, open streams cancelled first. What it cost stays in the ledger. Idempotent."
    erased = {200: json_of(Receipt)}
    return {
        "/users/{user}": {"parameters": [user], "delete": described("Erase what a user asked", what, answers=erased)},
        "/users": {
            "parameters": [everything],
            "delete": described("Erase all that your key asked", what, answers=erased),
        },
    }
