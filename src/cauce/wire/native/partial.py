"""JSON that is still being written, and JSON that has been: what readers of structured answers are shown beside the text."""

from array import array
from bisect import bisect_left
from typing import Any

import jiter
import msgspec

STEP = 64
"""Bytes that come between two looks at least."""

GROWTH = 8
"""The text must have grown by this part of itself since the last look: all looks together read it some nine times, however long."""

MAX_TEXT = 256 * 1024
"""Bytes of text after which no more looks are taken."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class PartialJSON:
    """The object or array that a text holds so far: a fold, so that the same pieces always give the same looks.

    Strings are shown as far as they have come; a name, number or word that may still go on is not shown, except a number of
    which the digits so far are one.
    """

    __slots__ = ("_next", "_numbers", "_shown", "_starts", "_text")

    def __init__(self) -> None:
        self._text = bytearray()
        self._next = 1
        self._shown = b""
        self._numbers = array("I")
        self._starts = array("I")
        """Of each piece, in bytes."""

    def feed(self, seq: int, text: str) -> bytes:
        """The JSON of what there is now, where it is time for a look and something new is seen; else nothing."""
        self._numbers.append(seq)
        self._starts.append(len(self._text))
        self._text += text.encode(errors="replace")
        size = len(self._text)
        if not self._next <= size <= MAX_TEXT:
            return b""
        self._next = size + max(STEP, size // GROWTH)
        try:
            value = jiter.from_json(bytes(self._text), partial_mode="trailing-strings", allow_inf_nan=False)
        except ValueError:
            return b""
        if not isinstance(value, dict | list):
            return b""
        shown = _encode(value)
        if shown == self._shown:
            return b""
        self._shown = shown
        return shown

    def restart(self, from_seq: int) -> None:
        """Forget the pieces from sequence number `from_seq` on."""
        kept = bisect_left(self._numbers, from_seq)
        if kept < len(self._numbers):
            del self._text[self._starts[kept] :]
            del self._numbers[kept:], self._starts[kept:]
            self._next = len(self._text) + 1


def whole(text: str) -> Any:
    """The value of `text`, if it is JSON that can be written again; else None."""
    try:
        value = _decode(text)
        # One level deeper than it will stand.
        _encode([[value]])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return value
