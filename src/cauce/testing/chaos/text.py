"""Text that proves where it stands and who wrote it.

It is made of tokens, each its own character offset, one character that names the attempt that wrote it, one that is not ASCII, and a
space: `0一ñ 4一é 8一가 …`. All attempts of a text have their tokens at the same places, so one goes on exactly where another was cut, also
inside of a token. Nothing but the text is needed to see that a piece is missing, came twice, or was written by somebody else.
"""

import re

import msgspec

_LETTERS = "ñé€한ж🌊ß"
_FIRST_NONCE = 0x4E00
_NONCES = 20_000

NAMES = re.compile(f"[{chr(_FIRST_NONCE)}-{chr(_FIRST_NONCE + _NONCES - 1)}]")
"""Finds the names in a text."""


def nonce(number: int) -> str:
    """The character that names attempt `number` of a run, from 0 on. After 20,000 they come again."""
    return chr(_FIRST_NONCE + number % _NONCES)


def is_nonce(character: str) -> bool:
    """Whether it names an attempt."""
    return _FIRST_NONCE <= ord(character) < _FIRST_NONCE + _NONCES


def _token(offset: int, name: str) -> str:
    return f"{offset}{name}{_LETTERS[offset % len(_LETTERS)]} "


def written(length: int, name: str) -> str:
    """A whole text of at least `length` characters, by the attempt that `name` names."""
    tokens: list[str] = []
    offset = 0
    while offset < length:
        tokens.append(_token(offset, name))
        offset += len(tokens[-1])
    return "".join(tokens)


class Reading(msgspec.Struct, frozen=True):
    """What a text says of itself: `runs` are (nonce, first, behind the last) of each stretch by one attempt, in order, from its name to its name.

    `wrong` says where it is not what it should be; empty: nowhere.
    """

    runs: tuple[tuple[str, int, int], ...]
    wrong: str = ""


def read(text: str) -> Reading:
    """Check `text`, which may end anywhere."""
    runs: list[tuple[str, int, int]] = []
    offset = 0
    while offset < len(text):
        digits = str(offset)
        place = offset + len(digits)
        if text[offset:place] != digits[: len(text) - offset]:
            return Reading(tuple(runs), f"at {offset} stands {text[offset : offset + 12]!r}")
        if place >= len(text):
            break
        name = text[place]
        token = _token(offset, name)
        end = min(offset + len(token), len(text))
        if not is_nonce(name) or text[offset:end] != token[: end - offset]:
            return Reading(tuple(runs), f"at {offset} stands {text[offset : offset + 12]!r}")
        # What stands before and behind the name in its token says the same whoever wrote it.
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], place + 1)
        else:
            runs.append((name, place, place + 1))
        offset += len(token)
    return Reading(tuple(runs))
