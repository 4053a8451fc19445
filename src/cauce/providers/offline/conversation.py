"""What was said earlier in the conversation, and which of it answers a question."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from cauce.domain.message import Message
from cauce.providers.offline.index import Index, Passage, Term
from cauce.providers.offline.pages import statements
from cauce.providers.offline.question import Question
from cauce.providers.offline.tongue import Stems

_ENOUGH = 0.6
_ENOUGH_OF_OWN = 0.5
"""Share of a question that a statement must speak of; less where the user's own affairs are asked for."""

_MOST_STATEMENTS = 100
"""Newest sentences that are searched."""

_MOST_READ = 50_000
"""Characters of one message that are read, from its end."""

_LONGEST = 400
"""Characters of a sentence that are quoted."""

Speaker = Literal["user", "assistant"]


class Statement(msgspec.Struct, frozen=True):
    """A sentence of the `message`th message of the request."""

    text: str
    message: int


def recall(
    asked: Question, messages: Sequence[Message], terms: Sequence[Term], stems: Stems, speaker: Speaker
) -> Statement | None:
    """What `speaker` said that answers `terms`, the newest of the best. Without `terms`, the last thing said."""
    said = _said(asked, messages, speaker)
    if not said:
        return None
    if not terms:
        last = said[0].message
        whole = " ".join([statement.text for statement in reversed(said) if statement.message == last])
        return Statement(whole[:_LONGEST], last)
    tongue = stems.tongue
    answers = [statement for statement in said if not statement.text.endswith("?")]
    index = Index(
        stems,
        [
            Passage("", tongue.named if tongue.introduces.search(statement.text) else "", (statement.text,))
            for statement in answers
        ],
    )
    try:
        best = max(index.search(terms), key=lambda match: (match.coverage, -match.place), default=None)
    finally:
        index.close()
    enough = _ENOUGH_OF_OWN if asked.remembers or asked.personal else _ENOUGH
    return answers[best.place] if best is not None and best.coverage >= enough else None


def _said(asked: Question, messages: Sequence[Message], speaker: Speaker) -> list[Statement]:
    """What `speaker` said before the question, newest first."""
    newest = max([place for place, message in enumerate(messages) if message.role == "user"], default=0)
    found: list[Statement] = []
    if speaker == "user" and asked.material:
        found.extend(_statements(asked.material, newest + 1))
    for place in range(newest - 1, -1, -1):
        if len(found) >= _MOST_STATEMENTS:
            break
        if messages[place].role == speaker:
            found.extend(_statements(messages[place].text, place + 1))
    return found[:_MOST_STATEMENTS]


def _statements(text: str, message: int) -> list[Statement]:
    # In Spanish a question inside a sentence begins with its own mark.
    sentences = statements(text[-_MOST_READ:].replace("¿", "\n¿"))
    return [Statement(sentence[:_LONGEST], message) for sentence in reversed(sentences)]
