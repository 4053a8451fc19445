"""Log probabilities as this wire has them: lists side by side."""

from collections.abc import Sequence
from typing import Any, cast

from cauce.domain.delta import TokenLogprob


def parse_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """The tokens in a choice's `logprobs`; what has another shape is passed over. A prompt's first token has none."""
    if not isinstance(value, dict):
        return ()
    lists = cast(dict[str, Any], value)
    tokens, chances, tops = lists.get("tokens"), lists.get("token_logprobs"), lists.get("top_logprobs")
    if not isinstance(tokens, list) or not isinstance(chances, list):
        return ()
    alternatives = cast(list[Any], tops) if isinstance(tops, list) else []
    found: list[TokenLogprob] = []
    for place, (token, chance) in enumerate(zip(cast(list[Any], tokens), cast(list[Any], chances), strict=False)):
        if isinstance(token, str) and isinstance(chance, int | float):
            top = _tops(alternatives[place]) if place < len(alternatives) else ()
            found.append(TokenLogprob(token, float(chance), None, top))
    return tuple(found)


def _tops(value: Any) -> tuple[TokenLogprob, ...]:
    if not isinstance(value, dict):
        return ()
    return tuple(
        [
            TokenLogprob(str(token), float(chance))
            for token, chance in cast(dict[Any, Any], value).items()
            if isinstance(chance, int | float)
        ]
    )


def render_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """`tokens` as a choice's `logprobs`. `offset` is where in the choice's text the first of them is."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.token: top.logprob for top in token.top} or None for token in tokens],
        "text_offset": offsets,
    }
