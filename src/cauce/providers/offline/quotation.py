"""Choosing what to quote: from the sections that were found, the few units that answer, in the order of the page."""

from collections.abc import Sequence

import msgspec

from cauce.providers.offline.index import Index, Match, Term
from cauce.providers.offline.pages import Section, Unit

COVERAGE = 0.6
"""Share of the question a section must speak of to be quoted at all."""

_CLOSEST = 0.4
"""Share of the question that its heading or one unit of it must speak of."""

_ABOUT = 0.6
"""Share of the question in a heading from which on the section is about it: it is read from its beginning."""

_WHOLE = 0.75
"""Share of the question in a heading from which on its whole list is asked for."""

_NEAR = 0.75
"""Share of a unit, in terms of the best unit's, from which on it is quoted beside it."""

_EQUAL = 0.9
"""The same for the best unit of a second section."""

_BESIDE = 0.6
"""Score of a second section, in terms of the first's, from which on it is quoted too."""

_MOST_PROSE = 4
_MOST_ITEMS = 5
_MOST_LISTED = 20


class Quotation(msgspec.Struct, frozen=True):
    """Units of one section, in its order."""

    section: Section
    units: tuple[Unit, ...]


def quotations(
    sections: Sequence[Section], index: Index, terms: Sequence[Term], *, defining: bool = False
) -> list[Quotation]:
    """What answers `terms`, from one section or two; empty when nothing matches well."""
    matches = [match for match in index.search(terms, defining=defining) if match.coverage >= COVERAGE]
    matches = [match for match in matches if match.closest >= _CLOSEST]
    if not matches:
        return []
    first = _quoted(sections[matches[0].place], index, matches[0], terms)
    if len(matches) > 1 and _wants_more(first, matches[0], matches[1]):
        second = _quoted(sections[matches[1].place], index, matches[1], terms)
        known = {unit.text for unit in first.units}
        units = tuple([unit for unit in second.units if unit.text not in known])
        if units:
            return [first, Quotation(second.section, units)]
    return [first]


def _wants_more(first: Quotation, best: Match, other: Match) -> bool:
    """Whether a second section adds to the first: it is nearly as good, and the first says little."""
    return (
        len(first.units) <= 2
        and other.score >= _BESIDE * best.score
        and other.coverage >= best.coverage - 0.1
        and other.closest >= _EQUAL * best.closest
    )


def _quoted(section: Section, index: Index, match: Match, terms: Sequence[Term]) -> Quotation:
    shares = index.shares(match.place, terms)
    headed = max(index.headed(match.place, terms), _ABOUT if match.defines else 0.0)
    units = section.units
    chosen = _prose(units, shares, headed) | _listed(units, shares, headed)
    # What a sentence introduces belongs to it, and the other way round.
    chosen.update([place for place in range(len(units)) if units[place].kind == "code" and units[place].lead in chosen])
    if not chosen:
        chosen.add(shares.index(max(shares)))
    chosen.update([lead for place in list(chosen) if (lead := units[place].lead) is not None])
    return Quotation(section, tuple([units[place] for place in sorted(chosen)]))


def _prose(units: Sequence[Unit], shares: Sequence[float], headed: float) -> set[int]:
    """Places of the sentences to quote. A block speaks through the sentence that introduces it."""
    spoken = list(shares)
    for place, unit in enumerate(units):
        if unit.kind == "code" and unit.lead is not None:
            spoken[unit.lead] = max(spoken[unit.lead], shares[place])
    prose = [place for place, unit in enumerate(units) if unit.kind == "sentence"]
    ranked = sorted(prose, key=lambda place: (-spoken[place], place))[:_MOST_PROSE]
    best = max(shares, default=0.0)
    if headed < _ABOUT:
        return {place for place in ranked if spoken[place] >= _NEAR * best and spoken[place] > 0}
    return {*ranked[: _MOST_PROSE - 1], *prose[:1]}


def _listed(units: Sequence[Unit], shares: Sequence[float], headed: float) -> set[int]:
    """Places of the list items and table rows to quote: all if the list is asked for, else those that answer."""
    listed = [place for place, unit in enumerate(units) if unit.kind in ("item", "row")]
    if not listed:
        return set()
    if headed >= _WHOLE:
        return set(listed[:_MOST_LISTED])
    best = max(shares)
    near = [place for place in listed if shares[place] >= _NEAR * best]
    if near:
        return set(near[:_MOST_ITEMS])
    introduced = [place for place in listed if (lead := units[place].lead) is not None and shares[lead] >= _NEAR * best]
    return set(introduced[:_MOST_LISTED])
