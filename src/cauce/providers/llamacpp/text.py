"""Tokens to text: bytes in, whole characters out, and never a character of a stop sequence."""

import codecs
from collections.abc import Sequence


class Writer:
    """State of one answer being written. `ended` is true once a stop sequence has come; what stands before it was the rest."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.ended = False
        self._stops = [stop for stop in stops if stop]
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        """Characters that a stop sequence may begin with."""

    def feed(self, data: bytes) -> str:
        """The text that `data`, the bytes of one more token, makes certain."""
        text = self._held + self._decode(data)
        if not self._stops:
            return text
        found = min([place for stop in self._stops if (place := text.find(stop)) >= 0], default=-1)
        if found >= 0:
            self.ended, self._held = True, ""
            return text[:found]
        held = max([_begun(text, stop) for stop in self._stops])
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, when no more comes. Bytes of a character that is not whole are left out."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
