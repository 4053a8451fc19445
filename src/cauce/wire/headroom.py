"""What the headers of an answer say of the upstream's own limits.

Sources: OpenAI, "Rate limits in headers" (also Groq and others, with the same names); Mistral, "Rate limits"; Anthropic, "Rate limits:
response headers"; OpenRouter, "Limits" (`x-ratelimit-remaining` and `-reset`, milliseconds since 1970).
"""

from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from cauce.domain.headroom import Headroom, Left
from cauce.wire.openai_chat.delays import duration
from cauce.wire.retrying import sensible

_MINUTE = 60.0
_EPOCH = 1e9
"""From here on a figure is a time, not a duration: seconds since 1970, or milliseconds."""
_MILLISECONDS = 1e11

_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "requests": (
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
        ("x-ratelimit-remaining-req-minute", ""),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ),
    "tokens": (
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
        ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
        ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
        ("x-ratelimit-remaining-tokens-minute", ""),
    ),
}
"""What is left, and when it is whole again (empty: within a minute). Of several the smallest is told."""

_TELLING = frozenset([left for names in _NAMES.values() for left, _ in names])


def headroom(headers: Mapping[str, str]) -> Headroom | None:
    """What is left, None where nothing is said. Names in lower case."""
    if _TELLING.isdisjoint(headers):
        return None
    told = Headroom(_least(headers, "requests"), _least(headers, "tokens"))
    return None if told.requests is None and told.tokens is None else told


def _least(headers: Mapping[str, str], kind: str) -> Left | None:
    found: list[Left] = []
    for remaining, reset in _NAMES[kind]:
        left = _number(headers.get(remaining, ""))
        seconds = _MINUTE if not reset else _seconds(headers.get(reset, ""), headers.get("date"))
        # Servers that do not count say -1, or a reset that has passed.
        if left is not None and left >= 0 and seconds:
            found.append(Left(left, seconds))
    return min(found, key=lambda each: each.left) if found else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _seconds(text: str, date: str | None) -> float | None:
    """Seconds from `date` to `text`: a duration, a number of seconds, a time since 1970, or one of RFC 3339."""
    figure = _number(text)
    try:
        if figure is not None and figure < _EPOCH:
            return sensible(figure)
        if figure is None and "T" not in text:
            return duration(text)
        if date is None:
            return None
        if figure is None:
            when = datetime.fromisoformat(text).timestamp()
        else:
            when = figure / 1000 if figure >= _MILLISECONDS else figure
        return sensible(when - parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
