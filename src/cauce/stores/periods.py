"""Periods of the calendar, in UTC: hours and days counted since 1970, months since year 0, and how a span of time is made of them."""

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

HOUR = 3600
DAY = 86400


class Parts(msgspec.Struct, frozen=True):
    """A span of time as whole months, and the days and hours around them: each a list of (first, end), the end exclusive."""

    months: tuple[tuple[int, int], ...]
    days: tuple[tuple[int, int], ...]
    hours: tuple[tuple[int, int], ...]


def parts(first: int, end: int, *, months: bool) -> Parts:
    """The hours from `first` up to `end`, in the fewest periods; without months where days must be told apart."""
    first_day, end_day = -(-first // 24), end // 24
    if first_day >= end_day:
        return Parts((), (), _some((first, end)))
    hours = _some((first, first_day * 24), (end_day * 24, end))
    first_month = month_of(first_day) + (first_day != day_of(month_of(first_day)))
    end_month = month_of(end_day)
    if not months or first_month >= end_month:
        return Parts((), ((first_day, end_day),), hours)
    days = _some((first_day, day_of(first_month)), (day_of(end_month), end_day))
    return Parts(((first_month, end_month),), days, hours)


@lru_cache(1024)
def month_of(day: int) -> int:
    """The month that `day` is in."""
    date = datetime.fromtimestamp(day * DAY, UTC)
    return date.year * 12 + date.month - 1


@lru_cache(1024)
def day_of(month: int) -> int:
    """The first day of `month`."""
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()) // DAY


def date_of(day: int) -> str:
    """`day` as 2026-11-21."""
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()


def _some(*spans: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple([span for span in spans if span[0] < span[1]])
