"""What the oracle says, piece by piece: what leads to it, its text, and its calls of tools."""

import random
import re
from collections.abc import Iterator
from typing import Any, Literal

from cauce.domain.tokens import weigh_text
from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.calls import TOOL, arguments, call_id

Place = Literal["the text", "arguments", "calls", "ready calls"]
"""Where an answer breaks: in its text, inside the arguments of a call, behind a whole call, and when all of them are known to be whole."""

LEAST_REPEATED = 12
"""Characters that are repeated at least, where the end is."""


def lead(attempt: Attempt, text: str, chance: random.Random) -> str:
    """What is said before the answer goes on: nothing, its end once more, or its beginning."""
    prefix = attempt.prefix
    if attempt.fault == "begin anew":
        return prefix[:150]
    if attempt.fault == "repeat the end" or (attempt.kind == "prompt" and _ambiguous(prefix, text[len(prefix) :])):
        return prefix[-chance.randint(LEAST_REPEATED, min(120, len(prefix))) :] if len(prefix) >= LEAST_REPEATED else ""
    return ""


def _ambiguous(prefix: str, rest: str) -> bool:
    """Whether the rest of a word looks like the word written once more."""
    fragment = re.search(r"\w+\Z", prefix)
    return fragment is not None and len(fragment[0]) >= 2 and rest.startswith(fragment[0])


def said(attempt: Attempt, text: str, size: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """What is left of `text`, in pieces of about `size` characters."""
    while attempt.served < len(text):
        end = min(len(text), attempt.served + chance.randint(1, 2 * size))
        piece, attempt.served = text[attempt.served : end], end
        yield {"delta": {"content": piece}}


def called(attempt: Attempt, calls: int, place: Place | None, chance: random.Random) -> Iterator[dict[str, Any]]:
    """So many calls in pieces, up to where they break, and the reason why the answer ends."""
    last = chance.randrange(max(1, calls))
    for number in range(calls):
        whole = arguments(number, attempt.nonce)
        broken = place == "arguments" and number == last
        end, at = chance.randrange(len(whole)) if broken else len(whole), 0
        yield _call(number, {"name": TOOL, "arguments": ""}, id=call_id(number), type="function")
        while at < end:
            piece = whole[at : min(end, at + chance.randint(1, 40))]
            at += len(piece)
            attempt.called += at == len(whole)
            yield _call(number, {"arguments": piece})
        if broken or (place == "calls" and number == last):
            return
    attempt.told = True
    yield {"delta": {}, "finish_reason": "tool_calls" if calls else "stop"}


def weigh(choice: dict[str, Any]) -> float:
    """Tokens of what a piece says, as whoever has to guess them counts."""
    delta = choice["delta"]
    calls = [call["function"]["arguments"] for call in delta.get("tool_calls", ())]
    return weigh_text("".join([delta.get("content") or "", *calls]))


def _call(number: int, function: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": number, **more, "function": function}]}}
