"""A summary of messages in their own words: the sentences that say most, in the order they were said. No model, deterministic.

A sentence says much if it is made of the words that the conversation comes back to (H. P. Luhn, "The Automatic Creation of Literature
Abstracts", 1958), if it opens a message, if it was the user who said it, and if there are figures or names in it.
"""

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from cauce.domain.message import Message
from cauce.domain.tokens import weigh_text

MOST_READ = 200_000
"""Characters that are read, the newest ones."""

_LONGEST = 400
"""Characters of a sentence that are kept."""

_OPENS, _ASKED, _FIGURES, _NAMES = 0.25, 0.35, 0.2, 0.15

_ENDS = re.compile(r"(?<=[.!?…])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_FIGURE = re.compile(r"\d")
_NAME = re.compile(r"(?<=\w\s)[A-ZÁÉÍÓÚÑ]\w+")

_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "are",
        "was",
        "were",
        "with",
        "that",
        "this",
        "from",
        "have",
        "has",
        "had",
        "not",
        "but",
        "you",
        "your",
        "can",
        "will",
        "would",
        "should",
        "could",
        "what",
        "when",
        "which",
        "who",
        "how",
        "why",
        "there",
        "their",
        "they",
        "them",
        "then",
        "than",
        "its",
        "it's",
        "into",
        "over",
        "also",
        "about",
        "been",
        "being",
        "one",
        "all",
        "any",
        "our",
        "out",
        "please",
        "thanks",
        "thank",
        "yes",
        "let's",
        "i'm",
        "los",
        "las",
        "una",
        "uno",
        "unos",
        "unas",
        "del",
        "que",
        "con",
        "por",
        "para",
        "como",
        "más",
        "pero",
        "sus",
        "este",
        "esta",
        "estos",
        "estas",
        "eso",
        "esto",
        "ese",
        "esa",
        "hay",
        "son",
        "era",
        "fue",
        "ser",
        "está",
        "están",
        "muy",
        "sin",
        "sobre",
        "entre",
        "cuando",
        "donde",
        "quien",
        "qué",
        "cuál",
        "cómo",
        "también",
        "porque",
        "desde",
        "hasta",
        "todo",
        "toda",
        "todos",
        "todas",
        "nos",
        "les",
        "mis",
        "tus",
        "gracias",
        "favor",
    ]
)

_SPEAKERS = {"user": "User", "assistant": "Assistant"}


class _Sentence(msgspec.Struct):
    place: int
    speaker: str
    text: str
    words: list[str]
    extra: float
    score: float = 0.0


def summary(messages: Sequence[Message], most: float) -> str:
    """Lines `Speaker: sentence` of `messages`, weighing at most `most` tokens; empty if not even one fits. Tools do not speak."""
    sentences = _sentences(messages)
    counts = Counter([word for sentence in sentences for word in set(sentence.words)])
    for sentence in sentences:
        known = sum([counts[word] for word in sentence.words])
        sentence.score = known / (len(sentence.words) + 3) * (1 + sentence.extra)
    chosen: list[_Sentence] = []
    said: set[str] = set()
    telling = [sentence for sentence in sentences if len(sentence.words) > 1 or _FIGURE.search(sentence.text)]
    for sentence in sorted(telling, key=lambda one: (-one.score, one.place)):
        weight = weigh_text(sentence.text) + 3
        if weight <= most and sentence.text.lower() not in said:
            most -= weight
            said.add(sentence.text.lower())
            chosen.append(sentence)
    chosen.sort(key=lambda one: one.place)
    return "\n".join([f"{sentence.speaker}: {sentence.text}" for sentence in chosen])


def _sentences(messages: Sequence[Message]) -> list[_Sentence]:
    found: list[_Sentence] = []
    left = MOST_READ
    for message in reversed(messages):
        speaker = _SPEAKERS.get(message.role)
        text = message.text[:left] if speaker is not None else ""
        left -= len(text)
        pieces = [piece.strip() for piece in _ENDS.split(text) if piece.strip()]
        told = [_sentence(piece, speaker or "", opens=number == 0) for number, piece in enumerate(pieces)]
        found.extend(reversed(told))
        if left <= 0:
            break
    found.reverse()
    for place, sentence in enumerate(found):
        sentence.place = place
    return found


def _sentence(text: str, speaker: str, *, opens: bool) -> _Sentence:
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1].rsplit(" ", 1)[0] + "…"
    words = [word for word in [found.lower() for found in _WORD.findall(text)] if word not in _COMMON]
    extra = (
        _OPENS * opens
        + _ASKED * (speaker == "User")
        + _FIGURES * bool(_FIGURE.search(text))
        + _NAMES * bool(_NAME.search(text))
    )
    return _Sentence(0, speaker, text, words, extra)
