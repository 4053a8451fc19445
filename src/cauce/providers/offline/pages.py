"""Pages of the guide, and the sections and units they are read as. Nothing here knows what is asked."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Literal, cast, get_args

import msgspec

from cauce.providers.offline.tongue import Language

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[A-ZÁÉÍÓÚÑ¿¡`*\"(])")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")

Kind = Literal["sentence", "item", "row", "code"]


class Page(msgspec.Struct, frozen=True):
    """A page of Markdown. `name` is its file name without the ending."""

    name: str
    language: Language
    text: str


class Unit(msgspec.Struct, frozen=True):
    """The smallest thing that is quoted, verbatim: a sentence, a list item, a table row or a fenced block.

    `lead` is the place of the sentence that introduces it; `head` are the header lines of a row's table.
    """

    kind: Kind
    text: str
    lead: int | None = None
    head: str = ""


class Section(msgspec.Struct, frozen=True):
    """What stands under one heading of a page."""

    page: str
    title: str
    heading: str
    units: tuple[Unit, ...]


def packaged_pages() -> tuple[Page, ...]:
    """The guide that comes with Cauce, in all its languages."""
    guide = files("cauce").joinpath("guide")
    pages: list[Page] = []
    for language in cast(tuple[Language, ...], get_args(Language)):
        entries = sorted(guide.joinpath(language).iterdir(), key=lambda entry: entry.name)
        pages.extend(
            [
                Page(entry.name.removesuffix(".md"), language, entry.read_text("utf-8"))
                for entry in entries
                if entry.name.endswith(".md")
            ]
        )
    return tuple(pages)


def sections(page: Page) -> list[Section]:
    """The sections of `page`; the first heading is its title."""
    title = page.name
    heading = ""
    found: list[Section] = []
    lines: list[str] = []

    def close() -> None:
        if units := _units(lines):
            found.append(Section(page.name, title, heading or title, units))
        lines.clear()

    fenced = False
    for line in page.text.splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else _HEADING.match(line)
        if match is None:
            lines.append(line)
            continue
        close()
        if match[1] == "#":
            title, heading = match[2], ""
        else:
            heading = match[2]
    close()
    return found


def statements(text: str) -> list[str]:
    """The sentences of running text that is not Markdown."""
    return [sentence for line in text.splitlines() for sentence in _sentences(line)]


def _units(lines: list[str]) -> tuple[Unit, ...]:
    units: list[Unit] = []
    lead: int | None = None
    for kind, block in _blocks(lines):
        if kind == "sentence":
            units.extend([Unit("sentence", sentence) for line in _joined(block) for sentence in _sentences(line)])
            lead = len(units) - 1 if units and units[-1].text.endswith(":") else None
            continue
        if kind == "row":
            head = "\n".join(block[:2])
            units.extend([Unit("row", row, lead, head) for row in block[2:]])
        elif kind == "item":
            units.extend([Unit("item", item, lead) for item in block])
        else:
            units.append(Unit("code", "\n".join(block), lead))
        lead = None
    return tuple(units)


def _blocks(lines: list[str]) -> Iterator[tuple[Kind, list[str]]]:
    """Runs of lines of one kind."""
    block: list[str] = []
    kind: Kind = "sentence"
    fenced = False
    for line in lines:
        if fenced:
            block.append(line)
            if line.startswith("```"):
                fenced = False
                yield "code", block
                block, kind = [], "sentence"
            continue
        this: Kind = _kind(line)
        if block and (not line.strip() or this != kind):
            yield kind, block
            block = []
        if line.strip():
            kind = this
            block.append(line)
            fenced = this == "code"
    if block:
        yield kind, block


def _kind(line: str) -> Kind:
    if line.startswith("```"):
        return "code"
    if line.startswith("|"):
        return "row"
    return "item" if _ITEM.match(line) else "sentence"


def _joined(lines: list[str]) -> list[str]:
    """Lines of a paragraph, those that end within a sentence joined with the next."""
    joined: list[str] = []
    for line in lines:
        if joined and not joined[-1].endswith((".", "!", "?", ":", "…")):
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    return joined


def _sentences(line: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(line.strip()) if sentence]
