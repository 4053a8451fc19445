"""Reading the chunks that differ from each other in one string only, which is nearly all of a stream, without reading the rest.

From one chunk that was read in full the bytes before and after its string are kept. A later chunk that begins and ends with
them, and has exactly one JSON string between, has the same meaning but for that string: nothing is guessed. Reading it costs
a comparison and one string instead of a whole JSON object.
"""

import re

import msgspec

_STRING = rb'"\s*:\s*("(?:[^"\\]|\\.)*")'
_MOST_LESSONS = 32
"""Chunks of one stream a template is taken from. A server that puts something new into each chunk is read in full."""

_decode_text = msgspec.json.Decoder(str).decode


class Field:
    """A member whose value is the string that differs."""

    __slots__ = ("key", "pattern")

    def __init__(self, name: str) -> None:
        self.key = b'"' + name.encode() + b'"'
        self.pattern = re.compile(b'"' + name.encode() + _STRING)


class Template:
    """The bytes around the string of a stream's chunks."""

    __slots__ = ("_after", "_before", "_edges", "_lessons")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._edges = 0
        self._lessons = 0

    def learn(self, chunk: bytes, field: Field, text: str) -> bool:
        """Take the template from `chunk`, which was read in full and holds `text` in `field` and nothing else that is new.

        False: it cannot be taken, and what was known before stays.
        """
        if self._lessons == _MOST_LESSONS or chunk.count(field.key) != 1:
            return False
        self._lessons += 1
        match = field.pattern.search(chunk)
        if match is None or _decode_text(match[1]) != text:
            return False
        self._before = chunk[: match.start(1)]
        self._after = chunk[match.end(1) :]
        self._edges = len(self._before) + len(self._after)
        return True

    def text(self, chunk: bytes) -> str | None:
        """The string of `chunk` if it differs from the template in nothing else, else None."""
        if (
            not self._edges
            or len(chunk) < self._edges
            or not chunk.startswith(self._before)
            or not chunk.endswith(self._after)
        ):
            return None
        try:
            return _decode_text(chunk[len(self._before) : len(chunk) - len(self._after)])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def forget(self) -> None:
        """Take no chunk for known any more."""
        self._edges = 0
