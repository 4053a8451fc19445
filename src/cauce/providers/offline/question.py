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
"""What a Spanish letter or mark says, in words."""

_LONG = 60
"""Words from which on a message of several lines is material with a question, not a question."""

_LONGEST = 400
"""Words of a question that are read."""

_MOST_READ = 4_000
"""Characters of it, however it is written."""

_SHORT = 10
"""Words of a question about the answerer itself."""


class Question(msgspec.Struct, frozen=True):
    """The newest message. `before` are the user's earlier messages; `material` is text that came with the question."""

    text: str
    tongue: Tongue
    material: str = ""
    before: tuple[str, ...] = ()

    @property
    def greets(self) -> bool:
        """Whether it says hello or asks who is there, and no more."""
        said = words(self.text)
        if self._has(self.tongue.who):
            return len(said) <= _SHORT
        return all([word in self.tongue.greetings for word in said])

    @property
    def thanks(self) -> bool:
        """Whether it says thank you, and no more."""
        return all([word in self.tongue.thanks for word in words(self.text)])

    @property
    def remembers(self) -> bool:
        """Whether it asks for what the user said."""
        return self._has(self.tongue.remembers)

    @property
    def replied(self) -> bool:
        """Whether it asks for what the assistant said."""
        return self._has(self.tongue.replied)

    @property
    def instructs(self) -> bool:
        """Whether it asks how to do something."""
        return self._has(self.tongue.instruction)

    @property
    def personal(self) -> bool:
        """Whether it asks for a fact of the user, which no page can know."""
        if self.instructs or not self._has(self.tongue.own):
            return False
        return not self.tongue.personal.isdisjoint(words(self.text))

    @property
    def defines(self) -> bool:
        """Whether it asks what something is."""
        return self._has(self.tongue.defines)

    @property
    def writes(self) -> bool:
        """Whether it gives a task that takes a model."""
        return self._has(self.tongue.writes)

    @property
    def goes_on(self) -> bool:
        """Whether it names nothing itself, so that its subject is that of the message before."""
        empty = self.tongue.stop | self.tongue.weak
        return bool(self.before) and all([word in empty for word in words(self.text)])

    def _has(self, cue: re.Pattern[str]) -> bool:
        return cue.search(fold(self.text)) is not None


def question(messages: Sequence[Message]) -> Question:
    """The question that `messages` end with."""
    said = [message.text for message in messages if message.role == "user" and message.text.strip()]
    text, material = _apart(said[-1] if said else "")
    text = text[:_MOST_READ]
    return Question(text, TONGUES[_language([text, *reversed(said)])], material, tuple(said[:-1]))


def _language(texts: Sequence[str]) -> Language:
    """The language of the first of `texts` that shows one."""
    for text in texts:
        read = words(" ".join(text.split(maxsplit=_LONGEST)[:_LONGEST]))
        spanish = sum([word in _ONLY_SPANISH for word in read]) + _SIGN * (_SPANISH_SIGNS.search(text) is not None)
        english = sum([word in _ONLY_ENGLISH for word in read])
        if spanish != english:
            return "es" if spanish > english else "en"
    return "en"


def _apart(text: str) -> tuple[str, str]:
    """Question and material of a message: text piped or pasted in comes with a question before or after it."""
    if text.count(" ") < _LONG:
        return text, ""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.strip())]
    if len(blocks) == 1:
        blocks = text.strip().splitlines()
    asked = blocks.pop(-1 if blocks[-1].endswith("?") else 0)
    return " ".join(asked.split(maxsplit=_LONGEST)[:_LONGEST]), "\n".join(blocks)


def _marks(tongue: Tongue) -> frozenset[str]:
    return tongue.stop | tongue.weak | tongue.recall | tongue.greetings | tongue.thanks


_ONLY_ENGLISH = _marks(ENGLISH) - _marks(SPANISH)
_ONLY_SPANISH = _marks(SPANISH) - _marks(ENGLISH)
