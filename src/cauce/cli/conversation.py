"""A conversation in the terminal, apart from how it is shown: what was said, and the reply that is coming."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Status, Text
from cauce.domain.errors import CauceError
from cauce.domain.message import Message, Role, TextPart
from cauce.domain.request import Request

Ended = Literal["completed", "cancelled", "failed"]

_MARKS: dict[Ended, str] = {
    "completed": "",
    "cancelled": "\n\n[The user stopped this answer here.]",
    "failed": "\n\n[This answer broke off here.]",
}
"""What the model is told about answers that are not whole. It reads the mark, so it does not depend on the user's language."""


class Conversation:
    """What was said so far. `model` and `system` hold from the next question on."""

    def __init__(self, model: str, system: str) -> None:
        self.model = model
        self.system = system
        self._said: list[Message] = []

    def request(self, question: str) -> Request:
        """What is sent when `question` is asked now."""
        opening = (_message("system", self.system),) if self.system else ()
        return Request(self.model, (*opening, *self._said, _message("user", question)), stream=True)

    def add(self, question: str, text: str, ended: Ended) -> None:
        """Remember a turn. An answer without a word is forgotten with its question, so that roles keep alternating."""
        if text:
            self._said += [_message("user", question), _message("assistant", text + _MARKS[ended])]

    def clear(self) -> None:
        """Forget what was said; model and system text stay."""
        self._said.clear()


class Reply:
    """An answer that is coming. It only grows."""

    def __init__(self) -> None:
        self.noticed: list[Status | Attempt] = []
        self.finish: Finish | None = None
        self.error: CauceError | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []

    def take(self, batch: Sequence[Delta]) -> None:
        """Add what has come."""
        for delta in batch:
            match delta:
                case Text(text):
                    self._text.append(text)
                case Reasoning(text):
                    self._reasoning.append(text)
                case Status() | Attempt():
                    self.noticed.append(delta)
                case Finish():
                    self.finish = delta
                case _:
                    pass

    @property
    def failure(self) -> str:
        """What broke it; empty if nothing did."""
        if self.error is not None:
            return self.error.message
        return self.finish.error.message if self.finish is not None and self.finish.error is not None else ""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)


class Front(Protocol):
    """How a conversation is held: a terminal, or a pipe."""

    interactive: bool

    async def read(self) -> str | None:
        """What the user says next; None when they leave."""
        ...

    def show(self, text: str) -> None:
        """Say something of our own."""
        ...

    def aside(self, text: str) -> None:
        """Say something about an answer."""
        ...

    def complain(self, text: str) -> None:
        """Say what went wrong."""
        ...

    def answering(self, reply: Reply) -> AbstractContextManager[Callable[[Sequence[Delta]], None]]:
        """Show `reply` while it comes: call what this gives with each batch that was added to it."""
        ...


def _message(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))
