"""Reading the chunks that differ from each other in one string only, which is nearly all of a stream, without reading the rest.

From one chunk that was read in full the bytes before and after its string are kept. A later chunk that begins and ends with
them, and has exactly one JSON string between, has the same meaning but for that string: nothing is guessed. Reading it costs
a comparison and one string instead of a whole JSON object.
"""

import re
from collections.abc import Sequence
from itertools import islice

import msgspec

from cauce.wire.sse import Event

_STRING = rb'"\s*:\s*("(?:[^"\\]|\\.)*")'
_MOST_LESSONS = 32
"""Chunks of one stream a template is taken from. A server that puts something new into each chunk is read in full."""

_SHORTEST = 3
"""Bytes of a string that says something, with its quotes."""

_decoder = msgspec.json.Decoder(str)


class Field:
    """A member whose value is the string that differs."""

    __slots__ = ("key", "pattern")

    def __init__(self, name: str) -> None:
        self.key = b'"' + name.encode() + b'"'
        self.pattern = re.compile(b'"' + name.encode() + _STRING)


class Template:
    """The bytes around the string of a stream's chunks."""

    __slots__ = ("_after", "_before", "_lessons")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._lessons = 0

    def learn(self, chunk: bytes, field: Field, text: str) -> bool:
        """Take the template from `chunk`, which was read in full and holds `text` in `field` and nothing else that is new.

        False: it cannot be taken, and what was known before stays.
        """
        if self._lessons == _MOST_LESSONS or chunk.count(field.key) != 1:
            return False
        self._lessons += 1
        match = field.pattern.search(chunk)
        if match is None or _decoder.decode(match[1]) != text:
            return False
        self._before = chunk[: match.start(1)]
        self._after = chunk[match.end(1) :]
        return True

    def texts(self, events: Sequence[Event], start: int) -> list[str]:
        """The strings of the events from `start` on that differ from the template in nothing else, up to the first that does.

        Empty where that is the one at `start`, or says nothing, or where one of them is not as it looks: it is to be read in full.
        """
        before, after = self._before, self._after
        if not before:
            return []
        opening, skipped, left = before + b'"', len(before), -len(after)
        strings: list[bytes] = []
        for event in islice(events, start, None) if start else events:
            chunk = event.data
            if not chunk.startswith(opening) or not chunk.endswith(after):
                break
            string = chunk[skipped:left]
            if len(string) < _SHORTEST:
                break
            strings.append(string)
        if not strings:
            return []
        try:
            # Each of them begins one string at least, and none holds a line end: as many as there are means one in each.
            texts = _decoder.decode_lines(b"\n".join(strings))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return []
        return texts if len(texts) == len(strings) else []

    def forget(self) -> None:
        """Take no chunk for known any more."""
        self._before = b""
