"""Ids for calls that an upstream gave none."""

from cauce.domain.message import ToolCallPart
from cauce.domain.request import Request


class CallIds:
    """Ids that no call of the conversation so far has: some APIs refuse a history where one comes twice.

    The same answer to the same `request` gets the same ids.
    """

    def __init__(self, request: Request | None) -> None:
        self._request = request
        self._taken: set[str] | None = None

    def make(self, prefix: str) -> str:
        """One more."""
        if self._taken is None:
            messages = self._request.messages if self._request is not None else ()
            self._taken = {
                part.call_id for message in messages for part in message.parts if isinstance(part, ToolCallPart)
            }
        number = len(self._taken)
        while (made := f"{prefix}_{number}") in self._taken:
            number += 1
        self._taken.add(made)
        return made
