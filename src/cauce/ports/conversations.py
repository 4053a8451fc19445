"""Where conversations are kept: what was asked and answered in them, for whoever wants to read it again."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.request import Scope

TOMBSTONE = 30 * 86_400.0
"""Seconds that it is remembered that a conversation was deleted: longer than an answer to it can be on its way."""


class Place(msgspec.Struct, frozen=True):
    """Where a reader of the list has stopped: the last conversation it has had."""

    updated: float
    id: str


class Conversations(Protocol):
    """A conversation belongs to the tenant and the key of the scope that it is kept in, and nobody else gets to see it.

    Each method raises `Overloaded` while the store does not answer.
    """

    @property
    def shared(self) -> bool:
        """Whether other machines may see what is kept here."""
        ...

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        """Add `turns` to the conversation, in one step; it is made if it is not there. Idempotent: turns whose ids are there are not
        added again. Of several that try at once, one does.

        `begun` is when what they were said in was begun (UNIX, in seconds): a conversation that was deleted since stays so.
        """
        ...

    async def make(self, scope: Scope, id: str, title: str) -> bool:
        """Make an empty conversation; False if there is one of that id."""
        ...

    async def find(self, scope: Scope, id: str) -> Conversation | None:
        """The conversation; None if there is none."""
        ...

    async def newest(self, scope: Scope, limit: int, after: Place | None = None) -> Sequence[Conversation]:
        """Conversations, the one that was spoken in last first."""
        ...

    async def turns(self, scope: Scope, id: str, after: int, limit: int) -> Sequence[Turn]:
        """Turns whose `seq` is more than `after`, in order: at most `limit`, fewer where they are large. None only if there are none."""
        ...

    async def rename(self, scope: Scope, id: str, title: str) -> bool:
        """Give the conversation another title; whether there is one."""
        ...

    async def delete(self, scope: Scope, id: str) -> Sequence[str] | None:
        """Delete the conversation, every word of it. Gives the ids of the streams its turns were said in; None if there is none."""
        ...

    async def erase(self, scope: Scope, user: str | None = None) -> int:
        """Delete all conversations of the scope's owner, or those that one `user` of his has made or spoken in, whoever else has; returns how
        many. As with `delete`, what was begun before does not bring one of them back."""
        ...

    async def sweep(self, limit: int) -> int:
        """Delete at most `limit` conversations of anybody that nobody has spoken in for as long as they are kept. Returns how much there was to do."""
        ...
