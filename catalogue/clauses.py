"""How `genai-prices` tells models apart, said in exact names and globs.

A clause that no exact name and no glob can say raises `Untranslatable`: a new release is then read by a person before it
is shipped.
"""

import re
from typing import NamedTuple

from genai_prices import types

_PART = r"[a-z0-9_./:@=-]"
_LITERAL = rf"(?:{_PART}|\\[.\[\]])+?"
_DATE = r"(?:-\\d\{8\}|-\\d\{4\}-\\d\{2\}-\\d\{2\}|\[-@\]\\d\{8\})"
_DATED = re.compile(rf"\^(?:\((?P<prefix>{_LITERAL})\)\?)?(?P<name>{_LITERAL})(?:{_DATE}|\(-\\d\{{8\}}\)\?)?\$")
_NUMBERED = re.compile(rf"\^(?P<name>{_LITERAL})-\\d")
_NO_SPEECH = "^(?!.*-[tT][tT][sS](?:$|-))"


class Untranslatable(Exception):
    """A clause of a kind not seen so far."""


class Rules(NamedTuple):
    """Exact names; globs, where `*` stands for anything; globs of names that no glob of this model holds for."""

    names: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()


def rules(clause: types.MatchLogic) -> Rules:
    """`clause` as rules. Dates behind a name are left to the reader of the catalogue, who takes them off."""
    match clause:
        case types.ClauseEquals(name):
            return Rules(names=(name.lower(),))
        case types.ClauseStartsWith(start):
            return Rules(globs=(f"{start.lower()}*",))
        case types.ClauseEndsWith(end):
            return Rules(globs=(f"*{end.lower()}",))
        case types.ClauseContains(middle):
            return Rules(globs=(f"*{middle.lower()}*",))
        case types.ClauseRegex(pattern):
            return _regex(pattern)
        case types.ClauseOr(clauses):
            said = [rules(one) for one in clauses]
            return Rules(*[tuple(dict.fromkeys([rule for one in said for rule in one[place]])) for place in range(3)])
        case types.ClauseAnd([*clauses, types.ClauseRegex(pattern)]) if pattern == _NO_SPEECH and len(clauses) == 1:
            return rules(clauses[0])._replace(exceptions=("*-tts", "*-tts-*"))
        case _:
            raise Untranslatable(repr(clause))


def _regex(pattern: str) -> Rules:
    if dated := _DATED.fullmatch(pattern):
        name = re.sub(r"\\(.)", r"\1", dated["name"])
        return Rules(names=(name, *([f"{dated['prefix']}{name}"] if dated["prefix"] else [])))
    if numbered := _NUMBERED.fullmatch(pattern):
        name = re.sub(r"\\(.)", r"\1", numbered["name"])
        return Rules(globs=tuple([f"{name}-{digit}*" for digit in range(10)]))
    raise Untranslatable(pattern)
