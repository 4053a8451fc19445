"""Finding the JSON in what a model wrote: alone, inside a code fence, or with words around it. Nothing in it is mended."""

import json
import re
from collections.abc import Iterator

_FENCED = re.compile(r"```[^\S\n]*[\w+-]*[^\S\n]*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_MOST_TRIES = 16
_BLANK = " \t\r\n\ufeff"

_decoder = json.JSONDecoder()


def candidates(text: str) -> Iterator[str]:
    """The parts of `text` that may be the JSON that was asked for, the likeliest first."""
    # Some local servers leave the reasoning in the text.
    answer = text.rpartition("</think>")[2].strip(_BLANK)
    yield answer
    for match in _FENCED.finditer(answer):
        yield match.group(1).strip()
    yield from _between_words(answer)


def _between_words(text: str) -> Iterator[str]:
    """The objects and arrays that stand in `text`, outermost ones only."""
    place = 0
    for _ in range(_MOST_TRIES):
        opening = _OPENING.search(text, place)
        if opening is None:
            return
        place = opening.end()
        try:
            _, end = _decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        yield text[opening.start() : end]
        place = end
