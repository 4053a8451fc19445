"""What an answer's headers say about asking again."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date, RFC 9110 10.2.3). Names in lower case."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        date = headers.get("date")
        if date is None:
            return None
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """The upstream's own word on whether asking again makes sense (`x-should-retry`), None where it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
