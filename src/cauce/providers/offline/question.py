"""What is asked: the newest message of the user, its language, and what kind of question it is."""

import re
from collections.abc import Sequence

import msgspec

from cauce.domain.message import Message
from cauce.providers.offline.english import ENGLISH
from cauce.providers.offline.spanish import SPANISH
from cauce.providers.offline.tongue import Language, Tongue, fold, words

TONGUES: dict[Language, Tongue] = {"en": ENGLISH, "es": SPANISH}

_SPANISH_SIGNS = re.compile(r"[¿¡ñáéíóú]", re.I)
_SIGN = 2
_LONG = 60
"""Words from which on a message of several paragraphs is material with a question, not a question."""

_LONGEST_QUESTION = 400
"""Words of a question that are read."""


class Question(msgspec.Struct, frozen=True):
    """The newest message. `before` are the user's earlier messages; `material` is text that came with the question."""

    text: str
    tongue: Tongue
    material: str
    before: tuple[str, ...]

    @property
    def greets(self) -> bool:
        """Whether it says hello or asks who is there, and no more."""
        said = words(self.text)
        folded = fold(self.text)
        if not said:
            return True
        if self.tongue.who.search(folded):
            return len(said) <= _SHORT
        return all([word in self.tongue.greetings for word in said])

    @property
    def thanks(self) -> bool:
        """Whether it says thank you, and no more."""
        return all([word in self.tongue.thanks for word in words(self.text)])


_SHORT = 10


def question(messages: Sequence[Message]) -> Question:
    """The question that `messages` end with."""
    said = [message.text for message in messages if message.role == "user" and message.text.strip()]
    newest = said[-1] if said else ""
    text, material = _apart(newest)
    return Question(text, TONGUES[_language([text, *reversed(said)])], material, tuple(said[:-1]))


def _language(texts: Sequence[str]) -> Language:
    """The language of the first of `texts` that shows one."""
    for text in texts:
        read = words(text)[:_LONGEST_QUESTION]
        spanish = sum([word in _ONLY_SPANISH for word in read]) + _SIGN * (_SPANISH_SIGNS.search(text) is not None)
        english = sum([word in _ONLY_ENGLISH for word in read])
        if spanish != english:
            return "es" if spanish > english else "en"
    return "en"


def _apart(text: str) -> tuple[str, str]:
    """Question and material of a message: text piped or pasted in comes with a question before or after it."""
    if text.count(" ") < _LONG:
        return text, ""
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
    if len(paragraphs) < 2:
        lines = text.strip().splitlines()
        paragraphs = [lines[0], "\n".join(lines[1:])] if len(lines) > 1 else [text]
    asked = next((place for place in (-1, 0) if paragraphs[place].endswith("?")), 0)
    chosen = paragraphs.pop(asked)
    return " ".join(chosen.split()[:_LONGEST_QUESTION]), "\n".join(paragraphs)


def _marks(tongue: Tongue) -> frozenset[str]:
    return tongue.stop | tongue.weak | tongue.recall | tongue.greetings | tongue.thanks


_SHARED = _marks(ENGLISH) & _marks(SPANISH)
_ONLY_ENGLISH = _marks(ENGLISH) - _SHARED
_ONLY_SPANISH = _marks(SPANISH) - _SHARED
