"""From a conversation to the pieces of its answer: what is quoted, with citations, and the words around it."""

from collections.abc import Sequence

import msgspec

from cauce.domain.message import Message
from cauce.providers.offline.conversation import Statement, recall
from cauce.providers.offline.index import Index, Passage, Term
from cauce.providers.offline.pages import Page, Section, Unit, sections
from cauce.providers.offline.question import TONGUES, Question, question
from cauce.providers.offline.quotation import Quotation, quotations
from cauce.providers.offline.tongue import Language, Phrases, Stems, Tongue

_TELLING_DIGITS = 3


class Shelf(msgspec.Struct, frozen=True):
    """The pages of one language, ready to be searched."""

    stems: Stems
    sections: tuple[Section, ...]
    index: Index


class Library:
    """All pages. Building it takes about a tenth of a second, an answer a few milliseconds at most."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._shelves: dict[Language, Shelf] = {
            language: _shelf(tongue, [page for page in pages if page.language == language])
            for language, tongue in TONGUES.items()
        }

    def answer(self, messages: Sequence[Message], *, instead: bool = False) -> list[str]:
        """The answer to what `messages` end with, in pieces that joined are its text; `instead` of models that failed."""
        asked = question(messages)
        phrases = asked.tongue.phrases
        if asked.greets:
            return _spaced([phrases.introduction, phrases.failed if instead else phrases.connect])
        if asked.thanks:
            return [phrases.welcome]
        shelf = self._shelves[asked.tongue.language]
        terms = _terms(asked, shelf)
        if asked.replied and (statement := recall(asked, messages, terms, shelf.stems, "assistant")):
            return _retold(phrases, phrases.answered, statement)
        private = asked.remembers or asked.personal
        if _looks_back(asked, terms) and (statement := recall(asked, messages, terms, shelf.stems, "user")):
            return _retold(phrases, phrases.told, statement)
        if not private and not asked.writes and terms:
            if found := quotations(shelf.sections, shelf.index, terms, defining=asked.defines):
                return _quoted(phrases, found)
            if statement := recall(asked, messages, terms, shelf.stems, "user"):
                return _retold(phrases, phrases.told, statement)
        way = (phrases.failed,) if instead else (phrases.connect, phrases.check)
        return _spaced([*phrases.unknown, *way])

    def close(self) -> None:
        """Free the indexes."""
        for shelf in self._shelves.values():
            shelf.index.close()


def _spaced(sentences: Sequence[str]) -> list[str]:
    """`sentences`, one after the other."""
    return [*[f"{sentence} " for sentence in sentences[:-1]], sentences[-1]]


def _shelf(tongue: Tongue, pages: Sequence[Page]) -> Shelf:
    stems = Stems(tongue)
    found = tuple([section for page in pages for section in sections(page)])
    passages = [
        Passage(
            section.title,
            section.heading,
            tuple([_searched(unit) for unit in section.units]),
            frozenset([place for place, unit in enumerate(section.units) if unit.kind == "code"]),
        )
        for section in found
    ]
    return Shelf(stems, found, Index(stems, passages))


def _searched(unit: Unit) -> str:
    """What of a unit is found: not the language its block is written in."""
    return unit.text.partition("\n")[2] if unit.kind == "code" else unit.text


def _terms(asked: Question, shelf: Shelf) -> tuple[Term, ...]:
    """What is asked for."""
    if asked.goes_on:
        return shelf.index.terms(f"{asked.before[-1]} {asked.text}")
    terms = shelf.index.terms(asked.text)
    # A small number alone is arithmetic, not a status code or a port.
    return terms if any([_tells(term.stem) for term in terms]) else ()


def _tells(stem: str) -> bool:
    """Whether a word can say what is asked about: one letter or a short number cannot."""
    return len(stem) >= (_TELLING_DIGITS if stem.isdigit() else 2)


def _looks_back(asked: Question, terms: Sequence[Term]) -> bool:
    """Whether the conversation, or text that came with the question, is to be searched before the guide."""
    if asked.remembers:
        return True
    return bool(terms) and (asked.personal or (asked.material != "" and not asked.instructs))


def _retold(phrases: Phrases, frame: str, statement: Statement) -> list[str]:
    source = phrases.conversation.format(statement.message)
    return [f"{frame.format(statement.text)} [1]", f"\n\n{phrases.sources}\n- [1] {source}"]


def _quoted(phrases: Phrases, found: Sequence[Quotation]) -> list[str]:
    pieces: list[str] = []
    for number, quotation in enumerate(found, 1):
        pieces.extend(_laid_out(quotation.units, number, opening=not pieces))
    sources = [f"- [{number}] {_source(quotation.section)}" for number, quotation in enumerate(found, 1)]
    pieces.append("\n\n" + "\n".join([phrases.sources, *sources]))
    return pieces


def _laid_out(units: Sequence[Unit], number: int, *, opening: bool) -> list[str]:
    """`units` as Markdown, the last sentence or item followed by the citation."""
    cited = max([place for place, unit in enumerate(units) if unit.kind in ("sentence", "item")], default=None)
    pieces: list[str] = []
    before: Unit | None = None
    for place, unit in enumerate(units):
        text = unit.text
        if unit.kind == "row" and (before is None or before.head != unit.head):
            text = f"{unit.head}\n{text}"
        if place == cited:
            text = f"{text} [{number}]"
        pieces.append(_gap(before, unit, opening=opening) + text)
        before = unit
    if cited is None:
        pieces.append(f"\n\n[{number}]")
    return pieces


def _gap(before: Unit | None, unit: Unit, *, opening: bool) -> str:
    if before is None:
        return "" if opening else "\n\n"
    if before.kind == unit.kind:
        return {"sentence": " ", "code": "\n\n"}.get(unit.kind, "\n")
    return "\n\n"


def _source(section: Section) -> str:
    return section.title if section.title == section.heading else f"{section.title} — {section.heading}"
