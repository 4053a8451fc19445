"""Where two attempts meet in the text: what of the new one goes on from what was delivered, and what must not be shown. Pure.

A model that was asked to go on may begin anew, say that it goes on, or repeat the end of what it wrote. So the head of its text is
held back until it can be told which:

| the head | what follows |
|---|---|
| equals the beginning of the answer | the attempt is refused |
| opens by talking about going on | the attempt is refused, if somebody else is left to ask |
| repeats the end of what was delivered | the repetition is dropped |
| begins with the white space that was delivered last | it is dropped |
| anything else | it is the continuation |
"""

import re
from typing import Literal

from cauce.domain.tokens import weigh_text
from cauce.engine.recovery.preamble import talks

HELD = 200
"""Characters that are held back at most, unless they still repeat the end."""

HELD_SECONDS = 2.0
"""Seconds for which they are, from the first one on."""

HELD_REPEATING = 1000
"""Characters that are held back at most while they repeat the end."""

MOST_QUOTED = 1500
"""Characters of the end of what was delivered in which a repetition is looked for."""

LEAST_OVERLAP = 12
"""A shorter repetition may be what the text says."""

LEAST_RESTART = 40
"""Characters, white space and case aside, from which on a head that equals the beginning is a beginning."""

LEAST_TOKENS = 16.0
"""Tokens that stand for them in scripts whose characters are words or syllables: sixteen Han characters say as much as forty letters."""

Verdict = Literal["hold", "go on", "anew", "talk"]
"""What becomes of a head: the last two refuse the attempt."""


def begins_anew(delivered: str, head: str) -> bool | None:
    """Whether `head`, which was to go on from `delivered`, begins the answer anew; None: more of it must be seen to tell."""
    plain, beginning = _plain(head), _plain(delivered[: 2 * HELD])
    least = _telling(beginning)
    # Where the whole answer is short, its beginning is its end: repeating that is no new beginning.
    if len(beginning) < 2 * least and len(_plain(delivered)) < 2 * least:
        return False
    length = min(len(plain), least)
    if plain[:length] != beginning[:length]:
        return False
    return True if len(plain) >= least else None


class Seam:
    """Between `delivered`, the text so far, and the text of an attempt that goes on from it.

    `takes_preamble`: nobody is left to ask instead of a model that talks before it goes on.
    """

    def __init__(self, delivered: str, *, takes_preamble: bool = False) -> None:
        self._delivered = delivered
        self._takes_preamble = takes_preamble
        self._end = delivered[-MOST_QUOTED:]
        self._loose_end = _loose(self._end)
        self._head = ""
        self.dropped = 0
        """Characters of the attempt that are not shown, once it goes on."""

    def feed(self, text: str, *, late: bool = False) -> tuple[Verdict, str]:
        """`go on` comes once, with the text to be shown for all that was held; then nothing is fed any more.

        `late`: it has been held long enough, unless it still repeats the end.
        """
        self._head += text
        return self._decided(final=False, late=late)

    def finish(self) -> tuple[Verdict, str]:
        """The attempt has ended: what is held must be decided on."""
        return self._decided(final=True)

    def _decided(self, *, final: bool, late: bool = False) -> tuple[Verdict, str]:
        head = self._head
        anew = begins_anew(self._delivered, head)
        if anew:
            return "anew", ""
        talk = "no" if self._takes_preamble else talks(self._delivered, head)
        if talk == "yes":
            return "talk", ""
        unclear = not late and len(head) < HELD and (anew is None or talk == "perhaps" or not _is_clear(head))
        if not final and (self._may_yet_repeat(head) or unclear):
            return "hold", ""
        shown = self._continuation(head)
        self.dropped = len(head) - len(shown)
        return "go on", shown

    def _may_yet_repeat(self, head: str) -> bool:
        """Whether `head` stands somewhere in the end, so that more of it may."""
        if len(head) >= HELD_REPEATING:
            return False
        return bool(head.strip()) and _loose(head) in self._loose_end

    def _continuation(self, head: str) -> str:
        overlap = self._overlap(head)
        if overlap:
            return head[overlap:]
        blank = self._delivered[len(self._delivered.rstrip()) :]
        common = 0
        while common < min(len(blank), len(head)) and head[common] == blank[common]:
            common += 1
        return head[common:]

    def _overlap(self, head: str) -> int:
        """Characters at the head that equal the end: exactly, else white space and case aside."""
        end = self._end
        for length in range(min(len(head), len(end)), LEAST_OVERLAP - 1, -1):
            if end.endswith(head[:length]):
                return length
        # A head may be long: the loose form of each of its beginnings is one of the beginnings of its own.
        loose, lengths = _loose_beginnings(head[: len(end)])
        for length, of_loose in lengths:
            if min(length, of_loose) < LEAST_OVERLAP:
                break
            if self._loose_end.endswith(loose[:of_loose]):
                return length
        fragment = re.search(r"\w+\Z", end)
        if fragment is not None and len(fragment[0]) >= 2 and head.startswith(fragment[0]):
            rest = head[len(fragment[0]) :]
            # The word it broke off in, written whole: only what follows of it is new.
            if rest[:1].isalnum():
                return len(fragment[0])
        return 0


def _is_clear(head: str) -> bool:
    """Whether there is enough of it to tell whether it repeats, or talks."""
    return len(head) >= _telling(head)


def _telling(text: str) -> int:
    """Characters of `text` from which on it can be told by them."""
    beginning = text[:LEAST_RESTART]
    if beginning.isascii() or weigh_text(beginning) < LEAST_TOKENS:
        return LEAST_RESTART
    return next(length for length in range(1, LEAST_RESTART + 1) if weigh_text(beginning[:length]) >= LEAST_TOKENS)


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text).casefold()


def _loose(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def _loose_beginnings(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The loose form of `text`, and the beginnings of `text` that end in no white space, the longest first: how long each is, and its form.

    White space behind a repetition is new.
    """
    pieces: list[str] = []
    lengths: list[tuple[int, int]] = []
    size, apart = 0, False
    for length, character in enumerate(text, 1):
        if character.isspace():
            apart = bool(pieces)
            continue
        if apart:
            pieces.append(" ")
            size, apart = size + 1, False
        pieces.append(folded := character.casefold())
        size += len(folded)
        lengths.append((length, size))
    return "".join(pieces), lengths[::-1]
