"""What was said earlier in the conversation, and which of it answers a question."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from cauce.domain.message import Message
from cauce.providers.offline.index import Index, Passage, Term
from cauce.providers.offline.pages import statements
from cauce.providers.offline.question import Question
from cauce.providers.offline.tongue import Stems

_MOST_STATEMENTS = 200
"""Newest sentences that are searched."""

_LONGEST = 600
"""Characters of a sentence that are quoted."""

_ENOUGH = 0.6
_ENOUGH_OF_OWN = 0.5
"""Share of a question that a statement must speak of; less where the user's own affairs are asked for."""


Role = Literal["user", "assistant"]


class Statement(msgspec.Struct, frozen=True):
    """A sentence of an earlier message, which was the `message`th of the request."""

    role: Role
    text: str
    message: int


def recall(
    asked: Question, messages: Sequence[Message], terms: Sequence[Term], stems: Stems, role: Role
) -> Statement | None:
    """What `role` said that answers `terms`: the newest of the best. Without `terms`, the last thing said."""
    said = _statements(asked, messages, role)
    if not said:
        return None
    if not terms:
        last = said[-1].message
        whole = " ".join([statement.text for statement in said if statement.message == last])
        return Statement(role, whole[:_LONGEST], last)
    tongue = stems.tongue
    answers = [statement for statement in said if not statement.text.endswith("?")]
    # Newest first: among equals the index keeps the order it was given.
    answers.reverse()
    passages = [
        Passage("", tongue.named if tongue.introduces.search(statement.text) else "", (statement.text,))
        for statement in answers
    ]
    index = Index(stems, passages)
    try:
        best = max(index.search(terms), key=lambda match: (match.coverage, -match.place), default=None)
    finally:
        index.close()
    return answers[best.place] if best is not None and best.coverage >= _ENOUGH else None


def _statements(asked: Question, messages: Sequence[Message], role: Role) -> list[Statement]:
    found: list[Statement] = []
    newest = max([place for place, message in enumerate(messages) if message.role == "user"], default=0)
    if role == "user" and asked.material:
        found.extend([Statement(role, text, newest + 1) for text in reversed(_sentences(asked.material))])
    for place in range(newest - 1, -1, -1):
        message = messages[place]
        if message.role == role:
            found.extend([Statement(role, text, place + 1) for text in reversed(_sentences(message.text))])
        if len(found) >= _MOST_STATEMENTS:
            break
    return list(reversed(found[:_MOST_STATEMENTS]))


def _sentences(text: str) -> list[str]:
    # In Spanish a question inside a sentence begins with its own mark.
    return [sentence.strip()[:_LONGEST] for sentence in statements(text.replace("¿", "\n¿")) if sentence.strip(" \t,;")]
