"""Endpoints for pages made with the AI SDK."""

from typing import Any

from cauce.server.openapi.operation import TIMEOUT, described, event_stream, json_of, optional
from cauce.server.routes.streams import StreamState
from cauce.wire.ui_messages.request import ChatBody, StopBody

BODIES = (ChatBody, StopBody)

_SAID = {"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "How do I add an API key?"}]}
_EXAMPLE = {"id": "chat-1", "trigger": "submit-message", "messages": [_SAID]}


def chats() -> dict[str, Any]:
    chat_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[^\\x00-\\x20/\\x7f]{1,100}$"},
    }
    chunks = {
        "description": "A UI message stream of the AI SDK: one chunk per `data:` line, `[DONE]` at the end.",
        "content": event_stream()["content"],
    }
    posted = described(
        "Answer a chat",
        "What `DefaultChatTransport` of the AI SDK posts. Leaving is not cancelling.",
        body=ChatBody,
        answers={200: chunks},
    )
    posted["requestBody"]["content"]["application/json"]["example"] = _EXAMPLE
    stopped = optional(
        described(
            "Stop a chat's answer",
            "The one that is named, else the newest. Idempotent.",
            body=StopBody,
            answers={200: json_of(StreamState), 204: {"description": "No answer is being given."}},
        )
    )
    stopped["requestBody"]["content"]["application/json"]["example"] = {"stream_id": "chat-1~ui_0123456789abcdef"}
    return {
        "/api/chat": {"post": {**posted, "parameters": [TIMEOUT]}},
        "/api/chat/{id}/stream": {
            "parameters": [chat_id],
            "get": described(
                "Read the answer that a chat is being given",
                "From its beginning, and on as it comes.",
                answers={200: chunks, 204: {"description": "No answer is being given."}},
            ),
        },
        "/api/chat/{id}/stop": {"parameters": [chat_id], "post": stopped},
    }
