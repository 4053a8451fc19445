"""What an answer's headers say about asking again."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST = 366 * 86_400.0
"""Seconds. Nobody means to wait longer."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date, RFC 9110 10.2.3). Names in lower case.

    A date counts from that of the answer; the transport says when it came where its server does not.
    """
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return sensible(float(milliseconds) / 1000)
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return sensible(float(value))
        date = headers.get("date")
        if date is None:
            return None
        return sensible((parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return None


def sensible(seconds: float) -> float | None:
    """`seconds` as a time to wait: zero for one below; None for a figure so large, or so odd, that it says nothing."""
    return max(0.0, seconds) if seconds <= LONGEST else None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """The upstream's own word on whether asking again makes sense (`x-should-retry`), None where it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
