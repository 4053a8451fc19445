"""Endpoints of what was said in conversations."""

from typing import Any

from cauce.server.openapi.operation import CHOSEN, described, json_of, optional, query
from cauce.server.routes.conversations import MOST, USUAL
from cauce.wire.native.conversations import (
    ConversationBody,
    ConversationsBody,
    DeletedBody,
    MakeConversationBody,
    RenameConversationBody,
    TurnsBody,
)

BODIES = (
    MakeConversationBody,
    RenameConversationBody,
    ConversationBody,
    ConversationsBody,
    TurnsBody,
    DeletedBody,
)


def conversations() -> dict[str, Any]:
    conversation_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": CHOSEN},
    }
    limit = query(
        "limit", {"type": "integer", "minimum": 1, "maximum": MOST}, f"Most of them on a page; {USUAL} without."
    )
    made = optional(
        described(
            "Make a conversation",
            "One is made by itself too, by the first call with its `conversation_id`.",
            body=MakeConversationBody,
            answers={201: json_of(ConversationBody)},
        )
    )
    renamed = described(
        "Give a conversation a title", "", body=RenameConversationBody, answers={200: json_of(ConversationBody)}
    )
    for operation in (made, renamed):
        operation["requestBody"]["content"]["application/json"]["example"] = {"title": "API keys"}
    place = query("after", {"type": "string"}, "`next` of the page before.")
    seq = query("after", {"type": "integer", "minimum": 0, "maximum": 1_000_000_000}, "The last turn that was read.")
    listed = described("List conversations", "Those of the caller's key.", answers={200: json_of(ConversationsBody)})
    shown = described(
        "Show a conversation",
        "Its turns in order. An answer is there once its stream has ended; one that broke off or was cancelled says so in `status`.",
        answers={200: json_of(TurnsBody)},
    )
    deleted = described(
        "Delete a conversation", "And the logs its turns came from.", answers={200: json_of(DeletedBody)}
    )
    return {
        "/conversations": {"get": {**listed, "parameters": [limit, place]}, "post": made},
        "/conversations/{id}": {
            "parameters": [conversation_id],
            "get": {**shown, "parameters": [limit, seq]},
            "patch": renamed,
            "delete": deleted,
        },
    }
