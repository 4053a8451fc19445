"""What one language needs to be searched and answered in, and the words of a text. No sentences of the guide live here."""

import re
import unicodedata
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, Protocol, cast

import msgspec

Language = Literal["en", "es"]

_WORD = re.compile(r"\d+(?:\.\d+)+|\w+")
_TOKEN = re.compile(r"\S+")
_COMBINING = re.compile("[\u0300-\u036f]")


class Phrases(msgspec.Struct, frozen=True):
    """Sentences of the answerer's own. `told` frames a quotation of the user, `answered` one of the assistant.

    `connect` says how to get a model and `check` why there may be none; `failed` is said instead where models have failed.
    """

    introduction: str
    welcome: str
    unknown: tuple[str, ...]
    connect: str
    check: str
    failed: str
    told: str
    answered: str
    sources: str
    conversation: str


class Tongue(msgspec.Struct, frozen=True):
    """One language. Word lists are folded (lower case, no accents), as `words` gives them.

    `stop` says nothing about the subject. `weak` is what any question may contain: it counts a little. `recall` are the verbs
    of questions about the conversation. `synonyms` are groups whose members stand for each other.
    """

    language: Language
    stemmer: str
    stop: frozenset[str]
    weak: frozenset[str]
    recall: frozenset[str]
    synonyms: tuple[str, ...]
    greetings: frozenset[str]
    thanks: frozenset[str]
    who: re.Pattern[str]
    """Asks what is answering here."""
    remembers: re.Pattern[str]
    """Asks for what the user said."""
    replied: re.Pattern[str]
    """Asks for what the assistant said."""
    own: re.Pattern[str]
    """Speaks of the user's own affairs."""
    instruction: re.Pattern[str]
    """Asks how the user may do something: an affair of the guide."""
    personal: frozenset[str]
    """Facts of a person: no guide knows them."""
    defines: re.Pattern[str]
    """Asks what something is, or heads a section that says so."""
    writes: re.Pattern[str]
    """Gives a task that takes a model: writing, translating, calculating."""
    introduces: re.Pattern[str]
    """States the speaker's name."""
    named: str
    """The word such a statement answers to."""
    phrases: Phrases


class Stemmer(Protocol):
    """What is used of the `snowballstemmer` package."""

    def stemWord(self, word: str) -> str: ...  # noqa: N802


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


def fold(text: str) -> str:
    """`text` in lower case and without accents."""
    text = text.casefold()
    return text if text.isascii() else _COMBINING.sub("", unicodedata.normalize("NFKD", text))


def words(text: str) -> list[str]:
    """The words of `text`, folded. A name such as OPENAI_API_KEY is one word, so is 127.0.0.1."""
    return _WORD.findall(fold(text))


def count_tokens(text: str) -> int:
    """Tokens of `text`: what blanks separate, this provider's own measure."""
    return len(text.split())


def cut(text: str, tokens: int) -> str:
    """The first `tokens` tokens of `text` and what lies between them."""
    for place, token in enumerate(_TOKEN.finditer(text), 1):
        if place == tokens:
            return text[: token.end()]
    return text


class Stems:
    """Words to stems, of one language. Not for use by several threads at once."""

    def __init__(self, tongue: Tongue) -> None:
        self.tongue = tongue
        self._stemmer = _stemmer(tongue.stemmer)
        self._known: dict[str, str] = {}
        self.synonyms = self._groups(tongue.synonyms)
        self.weak = frozenset([self.of(word) for word in tongue.weak])
        self.named = self.of(tongue.named)

    def of(self, word: str) -> str:
        """The stem of a folded word."""
        word = word[:_LONGEST_WORD]
        stem = self._known.get(word)
        if stem is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            stem = self._known[word] = fold(self._stemmer.stemWord(word))
        return stem

    def content(self, text: str) -> list[str]:
        """Stems of the words in `text` that say something. Names with underscores count whole and in their parts."""
        stems: list[str] = []
        for word in words(text):
            if word in self.tongue.stop:
                continue
            stems.append(self.of(word))
            if "_" in word:
                stems.extend([self.of(part) for part in word.split("_") if part])
        return stems

    def _groups(self, groups: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        members: dict[str, dict[str, None]] = {}
        for group in groups:
            stems = [self.of(word) for word in group.split()]
            for stem in stems:
                members.setdefault(stem, {}).update(dict.fromkeys(stems))
        return {stem: tuple([other for other in group if other != stem]) for stem, group in members.items()}


_LONGEST_WORD = 40

_MOST_KNOWN = 20_000
"""Words whose stems are remembered: the guide's are about 3,000, the rest are readers'."""


def _stemmer(algorithm: str) -> Stemmer:
    # Imports all of its languages, about 90 ms: only when the first question comes.
    package = cast(Any, import_module("snowballstemmer"))
    return package.stemmer(algorithm)
