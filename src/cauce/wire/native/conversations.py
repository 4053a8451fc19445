"""Bodies of `/conversations`, as JSON has them."""

from contextlib import suppress
from math import isfinite
from typing import Annotated, Any

import msgspec

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.errors import InvalidRequest
from cauce.ports.conversations import Place
from cauce.wire.fields import check, decode_object
from cauce.wire.native.request import ConversationId, conversation_id
from cauce.wire.openai_chat.messages import render_message

MOST_TITLE = 200
"""Characters of a title."""

Title = Annotated[str, msgspec.Meta(max_length=MOST_TITLE)]


class MakeConversationBody(msgspec.Struct):
    """Body of `POST /conversations`. Without `id` one is made."""

    id: ConversationId | None = None
    title: Title | None = None


class RenameConversationBody(msgspec.Struct):
    """Body of `PATCH /conversations/{id}`."""

    title: Title


class ConversationBody(msgspec.Struct):
    """A conversation, with so many turns. Times are UNIX times in seconds."""

    id: str
    title: str
    created: float
    updated: float
    count: int


class ConversationsBody(msgspec.Struct):
    """Conversations, the one spoken in last first. `next` goes on: `?after=` takes it."""

    conversations: list[ConversationBody]
    next: str | None = None


class TurnsBody(msgspec.Struct):
    """A conversation and some of its turns, which are messages as they may be sent again, beside `seq`, `id`, `status`, `at` and, where
    known, `stream_id` and `model`. `next` goes on: `?after=` takes it."""

    id: str
    title: str
    created: float
    updated: float
    count: int
    turns: list[dict[str, Any]]
    next: int | None = None


class DeletedBody(msgspec.Struct):
    """What was deleted."""

    id: str
    deleted: bool = True


def parse_make(body: bytes) -> tuple[str | None, str]:
    """The id, if one is wished for, and the title. An empty body wishes for nothing. Raises `InvalidRequest`."""
    wish = check(decode_object(body), MakeConversationBody) if body.strip() else MakeConversationBody()
    return (conversation_id(wish.id, "id") if wish.id else None), wish.title or ""


def parse_rename(body: bytes) -> str:
    """The new title. Raises `InvalidRequest`."""
    return check(decode_object(body), RenameConversationBody).title


def render_conversation(conversation: Conversation) -> ConversationBody:
    """The conversation without its turns."""
    return ConversationBody(
        conversation.id, conversation.title, conversation.created, conversation.updated, conversation.count
    )


def render_conversations(page: list[Conversation], *, more: bool) -> ConversationsBody:
    """A page of the list; `more`: others follow."""
    after = f"{page[-1].updated!r}:{page[-1].id}" if more else None
    return ConversationsBody([render_conversation(one) for one in page], after)


def parse_place(text: str) -> Place:
    """What `next` of a list says. Raises `InvalidRequest`."""
    time, colon, id = text.partition(":")
    with suppress(ValueError):
        if colon and isfinite(updated := float(time)):
            return Place(updated, id)
    raise InvalidRequest("after: is what `next` of the page before says", field="after")


def render_turns(conversation: Conversation, turns: list[Turn]) -> TurnsBody:
    """The conversation with a page of its turns."""
    last = turns[-1].seq if turns else conversation.count
    return TurnsBody(
        conversation.id,
        conversation.title,
        conversation.created,
        conversation.updated,
        conversation.count,
        [_turn(turn) for turn in turns],
        last if last < conversation.count else None,
    )


def _turn(turn: Turn) -> dict[str, Any]:
    body = render_message(turn.message)
    body.update({"seq": turn.seq, "id": turn.id, "status": turn.standing, "at": turn.at})
    if turn.stream_id:
        body["stream_id"] = turn.stream_id
    if turn.model:
        body["model"] = turn.model
    return body
