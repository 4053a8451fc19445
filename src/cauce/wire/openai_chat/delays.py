"""How long an upstream of this wire wants to be left alone, as far as it says."""

import re
from collections.abc import Mapping

from cauce.wire.retrying import retry_after, sensible

_SECONDS = {
    "ms": 0.001,
    "mi": 60.0,
    "m": 60.0,
    "s": 1.0,
    "se": 1.0,
    "h": 3600.0,
    "ho": 3600.0,
    "d": 86_400.0,
    "da": 86_400.0,
}
_UNIT = r"(ms|milliseconds?|minutes?|mins?|m|hours?|h|seconds?|secs?|s|days?|d)"
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)\s*{_UNIT}(?![a-z])", re.I)
_SAID = re.compile(
    rf"(?:try again|retry|retryDelay\W+)(?:\s+(?:after|in))?\s*((?:\d+(?:\.\d+)?\s*{_UNIT}(?![a-z])\s*)+)", re.I
)
_KINDS = ("requests", "tokens")


def duration(text: str) -> float | None:
    """Seconds in `text`: a Go duration (`6m0s`, `120ms`), words (`26 seconds`), or a bare number. None if it is none of them."""
    parts = _DURATION.findall(text)
    if not parts:
        return sensible(float(text)) if re.fullmatch(r"\d+(?:\.\d+)?", text.strip()) else None
    return sensible(sum([float(number) * _factor(unit.lower()) for number, unit in parts]))


def _factor(unit: str) -> float:
    return _SECONDS["ms"] if unit.startswith("mil") else _SECONDS.get(unit[:2], _SECONDS.get(unit[:1], 1.0))


def said_delay(message: str) -> float | None:
    """Seconds that `message` asks to wait, as in "Please try again in 1.2s"."""
    match = _SAID.search(message)
    return duration(match[1]) if match is not None else None


def told_delay(headers: Mapping[str, str], message: str) -> float | None:
    """Seconds to wait before the next try: by the headers made for it, the limits that are used up, or the message's words."""
    told = retry_after(headers)
    if told is not None:
        return told
    resets = [reset for kind in _KINDS if (reset := _reset(headers, kind)) is not None]
    return max(resets) if resets else said_delay(message)


def _reset(headers: Mapping[str, str], kind: str) -> float | None:
    """Seconds until the limit of `kind` is open again, if it is used up. Servers that do not count say -1 or 0: unknown."""
    if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() != "0":
        return None
    seconds = duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    return seconds or None
