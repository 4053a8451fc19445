"""What was said in a conversation, turn by turn."""

from typing import Literal

import msgspec

from cauce.domain.message import Message

Standing = Literal["complete", "incomplete", "cancelled"]
"""Of a turn: whole; the beginning of an answer that broke off for good; the beginning of one that was cancelled."""


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation. `at` is when it was said, a UNIX time in seconds.

    `id` is made of where it was said, and the same however often it is told. `seq` is its number in the conversation, from 1 on and without
    holes, which the store gives it. `model` is who answered: `provider/model`.
    """

    id: str
    message: Message
    at: float
    standing: Standing = "complete"
    stream_id: str = ""
    model: str = ""
    seq: int = 0


class Conversation(msgspec.Struct, frozen=True):
    """A conversation without its turns, of which there are `count`. Times are UNIX times in seconds; `updated` is that of the last turn."""

    id: str
    title: str
    created: float
    updated: float
    count: int = 0
