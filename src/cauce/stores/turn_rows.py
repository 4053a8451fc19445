"""Conversations and turns as rows of a database: which columns are read, and what they say."""

from typing import Any

import msgspec

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.message import Message, TextPart
from cauce.domain.request import storable
from cauce.stores.stream_records import encode_value

MOST_BYTES = 4 * 1024 * 1024
"""Of turns that one read gives, beyond the first."""

CONVERSATION = "id, title, started_at, last_at, count"

TURN = "message_id, role, speaker, text, message, happened_at, status, stream_id, model, seq"

_decode_message = msgspec.json.Decoder(Message).decode


def conversation_of(found: tuple[Any, ...]) -> Conversation:
    """The conversation of which `found` are the columns `CONVERSATION`."""
    return Conversation(*found)


def turn_of(found: tuple[Any, ...]) -> Turn:
    """The turn of which `found` are the columns `TURN`."""
    id, role, speaker, text, message, at, status, stream_id, model, seq = found
    said = _plain(role, speaker, text) if message is None else _decode_message(message)
    return Turn(id, said, at, status, stream_id, model, seq)


def said(turn: Turn) -> tuple[str, str | None, str, bytes | None]:
    """Role, speaker, text and message of `turn`: the message only where there is more to it than the others say."""
    message = turn.message
    text, speaker = storable(message.text), None if message.name is None else storable(message.name)
    plain = message == _plain(message.role, speaker, text)
    return message.role, speaker, text, None if plain else encode_value(message)


def _plain(role: Any, speaker: str | None, text: str) -> Message:
    return Message(role, (TextPart(text),), speaker)
