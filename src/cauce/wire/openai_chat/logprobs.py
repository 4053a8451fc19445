"""Log probabilities of tokens, to and from the domain."""

import math
from collections.abc import Sequence
from typing import Any, cast

from cauce.domain.delta import TokenLogprob

_LOWEST = -9999.0
"""What the wire says for a token that has next to no chance: JSON has no infinity (OpenAI, API reference, chat log probabilities)."""


def parse_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """The tokens in a choice's `logprobs`; what has another shape is passed over."""
    content = cast(dict[str, Any], value).get("content") if isinstance(value, dict) else None
    return _tokens(content)


def _tokens(entries: Any) -> tuple[TokenLogprob, ...]:
    if not isinstance(entries, list):
        return ()
    found: list[TokenLogprob] = []
    for entry in cast(list[Any], entries):
        match entry:
            case {"token": str(token), "logprob": int() | float() as logprob}:
                raw = cast(dict[str, Any], entry)
                found.append(TokenLogprob(token, float(logprob), _bytes(raw), _tokens(raw.get("top_logprobs"))))
            case _:
                continue
    return tuple(found)


def _bytes(entry: dict[str, Any]) -> tuple[int, ...] | None:
    value = entry.get("bytes")
    if not isinstance(value, list):
        return None
    numbers = cast(list[Any], value)
    return tuple(numbers) if all([isinstance(number, int) for number in numbers]) else None


def render_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`tokens` as a choice's `logprobs`."""
    return {"content": [{**_entry(token), "top_logprobs": [_entry(top) for top in token.top]} for token in tokens]}


def _entry(token: TokenLogprob) -> dict[str, Any]:
    logprob = token.logprob if math.isfinite(token.logprob) else _LOWEST
    spelt = list(token.bytes) if token.bytes is not None else list(token.token.encode("utf-8", "replace"))
    return {"token": token.token, "logprob": logprob, "bytes": spelt}
