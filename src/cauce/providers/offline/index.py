"""Full-text search over passages with SQLite's FTS5, in memory: BM25 finds them, the share of the question they cover judges them.

Stemming happens here and not in FTS5, whose own stemmer knows English only; stems are handed over as quoted strings, so no
question can be FTS5 syntax.
"""

import math
import sqlite3
from collections.abc import Collection, Sequence

import msgspec

from cauce.providers.offline.tongue import Stems, fold, words

_WEIGHTS = "2.0, 5.0, 1.0"
"""BM25 weights of title, heading and body."""

_MOST_HITS = 60
_MOST_TERMS = 40

# What follows was tuned on the questions of the tests. Weights of words:
_UNKNOWN = 1.25
"""One that no passage has, in terms of the rarest that one has: a question about it is not for us."""

_WEAK = 0.3
_MOST_WEAK = 0.4
"""One that any question may contain, in terms of its own rarity, and at most."""

_SYNONYM = 0.75
"""One that is met by a synonym, in terms of its own weight."""

_EXAMPLE = 0.7
"""One that is met in a block of code."""

# And of places:
_OPENING = 0.1
"""Added to a unit that begins with a word of the question."""

_DEFINING = 1.5
"""Factor of a section that promises to say what something is, when that is asked."""

_STRANGE_WEAK = 0.5
"""How much a weak word of a heading that is not asked for counts against it."""


class Passage(msgspec.Struct, frozen=True):
    """What is found as one. `units` are the pieces it may be quoted in; those at the places `examples` are blocks of code."""

    title: str
    heading: str
    units: tuple[str, ...]
    examples: frozenset[int] = frozenset()


class Term(msgspec.Struct, frozen=True):
    """A word of the question: its stem, those of its synonyms, and how much it says."""

    stem: str
    synonyms: tuple[str, ...]
    weight: float

    def share(self, stems: Collection[str]) -> float:
        """Weight that is found in `stems`."""
        if self.stem in stems:
            return self.weight
        if any([synonym in stems for synonym in self.synonyms]):
            return self.weight * _SYNONYM
        return 0.0


class Match(msgspec.Struct, frozen=True):
    """A passage that was found. `coverage` is the share of the question it speaks of, `closest` that
    of its heading or its best unit. `defines`: what something is, is asked, and its heading promises to say so."""

    place: int
    score: float
    coverage: float
    closest: float
    defines: bool


class _Entry(msgspec.Struct, frozen=True):
    """A passage as stems. `openings` are the first stems of its units."""

    heading: frozenset[str]
    units: tuple[frozenset[str], ...]
    openings: tuple[str, ...]
    examples: frozenset[int]
    all: frozenset[str]
    defining: bool


class Index:
    """Passages of one language."""

    def __init__(self, stems: Stems, passages: Sequence[Passage]) -> None:
        self._stems = stems
        self._entries: list[_Entry] = []
        self._frequency: dict[str, int] = {}
        # The connection is made in a worker thread and used on the event loop, never by both at once.
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5(title, heading, body, tokenize=\"unicode61 remove_diacritics 0 tokenchars '_'\")"
        )
        self._database.executemany(
            "INSERT INTO passages (rowid, title, heading, body) VALUES (?, ?, ?, ?)",
            [(place, *self._enter(passage)) for place, passage in enumerate(passages)],
        )
        self._rarest = self._rarity(1)

    def terms(self, text: str) -> tuple[Term, ...]:
        """What `text` asks for, each word once. Words of questions about the conversation ask for nothing."""
        tongue = self._stems.tongue
        found: dict[str, Term] = {}
        for word in words(text):
            if word in tongue.stop or word in tongue.recall:
                continue
            for part in self._parts(word):
                stem = self._stems.of(part)
                if stem not in found and len(found) < _MOST_TERMS:
                    synonyms = self._stems.synonyms.get(stem, ())
                    weight = self._weight(stem, synonyms)
                    if part in tongue.weak:
                        # Such a word cannot make a question foreign to the guide.
                        if not self._knows(stem, synonyms):
                            continue
                        weight = min(weight * _WEAK, _MOST_WEAK)
                    found[stem] = Term(stem, synonyms, weight)
        return tuple(found.values())

    def search(self, terms: Sequence[Term], *, defining: bool = False) -> list[Match]:
        """Passages that speak of `terms`, best first. `defining`: what something is, is asked."""
        if not terms:
            return []
        forms = dict.fromkeys([form for term in terms for form in (term.stem, *term.synonyms)])
        query = " OR ".join([f'"{form}"' for form in forms])
        rows = self._database.execute(
            f"SELECT rowid, -bm25(passages, {_WEIGHTS}) FROM passages WHERE passages MATCH ? ORDER BY 2 DESC, rowid LIMIT ?",  # noqa: S608
            (query, _MOST_HITS),
        ).fetchall()
        matches = [self._judged(place, relevance, terms, defining) for place, relevance in rows]
        matches.sort(key=lambda match: (-match.score, match.place))
        return matches

    def headed(self, place: int, terms: Sequence[Term]) -> float:
        """The share of `terms` that the heading of a passage speaks of."""
        return _share(terms, self._entries[place].heading)

    def shares(self, place: int, terms: Sequence[Term]) -> list[float]:
        """The share of `terms` that each unit of a passage speaks of, more for one that begins with them."""
        entry = self._entries[place]
        shares: list[float] = []
        for unit, stems in enumerate(entry.units):
            share = _share(terms, stems)
            if unit in entry.examples:
                share *= _EXAMPLE
            elif any([term.stem == entry.openings[unit] for term in terms]):
                share += _OPENING
            shares.append(share)
        return shares

    def close(self) -> None:
        """Free the database."""
        self._database.close()

    def _enter(self, passage: Passage) -> tuple[str, str, str]:
        """Keep `passage`; returns its title, heading and body as text of stems."""
        stems = self._stems
        title = stems.content(passage.title)
        heading = stems.content(passage.heading)
        units = [stems.content(unit) for unit in passage.units]
        entry = _Entry(
            frozenset(heading),
            tuple([frozenset(unit) for unit in units]),
            tuple([unit[0] if unit else "" for unit in units]),
            passage.examples,
            frozenset(title).union(heading, *units),
            stems.tongue.defines.search(fold(passage.heading)) is not None,
        )
        self._entries.append(entry)
        for stem in entry.all:
            self._frequency[stem] = self._frequency.get(stem, 0) + 1
        return " ".join(title), " ".join(heading), " ".join([stem for unit in units for stem in unit])

    def _judged(self, place: int, relevance: float, terms: Sequence[Term], defining: bool) -> Match:
        """BM25 knows nothing of words that stand together: one sentence about all of a question beats five about its parts."""
        entry = self._entries[place]
        headed = self.headed(place, terms)
        coverage = _share(terms, entry.all)
        closest = max([headed, *self.shares(place, terms)])
        defines = defining and headed > 0 and entry.defining
        about = (0.5 + closest) * (0.5 + headed * self._precision(entry.heading, terms))
        score = relevance * coverage * coverage * about * (_DEFINING if defines else 1.0)
        return Match(place, score, coverage, closest, defines)

    def _precision(self, heading: frozenset[str], terms: Sequence[Term]) -> float:
        """How little `heading` speaks of anything else, 0 to 1."""
        asked = {form for term in terms for form in (term.stem, *term.synonyms)}
        strange = sum([_STRANGE_WEAK if stem in self._stems.weak else 1.0 for stem in heading if stem not in asked])
        return 1.0 - strange / len(heading) if heading else 1.0

    def _parts(self, word: str) -> list[str]:
        """A name with underscores that nobody knows asks for its parts."""
        if "_" not in word or self._stems.of(word) in self._frequency:
            return [word]
        return [part for part in word.split("_") if part]

    def _knows(self, stem: str, synonyms: tuple[str, ...]) -> bool:
        return any([form in self._frequency for form in (stem, *synonyms)])

    def _weight(self, stem: str, synonyms: tuple[str, ...]) -> float:
        frequency = self._frequency.get(stem) or max(
            [self._frequency.get(synonym, 0) for synonym in synonyms], default=0
        )
        return self._rarity(frequency) if frequency else self._rarest * _UNKNOWN

    def _rarity(self, frequency: int) -> float:
        return math.log(1 + (len(self._entries) + 0.5) / (frequency + 0.5))


def _share(terms: Sequence[Term], stems: Collection[str]) -> float:
    total = sum([term.weight for term in terms])
    return sum([term.share(stems) for term in terms]) / total if total else 0.0
