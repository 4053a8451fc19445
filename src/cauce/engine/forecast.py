"""What a month will have come to at its end, from what each day came to so far. Plain arithmetic: no clock, no randomness.

A day is a level that may rise or fall steadily, times a factor of its weekday. Level and slope are medians (Theil 1950, Sen 1968), so
that a few odd days do not move them; the slope counts only where days really rise or fall (Kendall's test). How far the days were
from that makes the band.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from math import sqrt
from statistics import fmean, median

import msgspec

HISTORY = 84
"""Days that are looked at: twelve weeks."""

ENOUGH = 7
"""Whole days that must be known for a band to mean anything."""

_WEEKS = 14
"""Whole days that must be known for weekdays and a slope to be told."""

BAND = 0.8
_BAND_DEVIATIONS = 1.2816
"""Standard deviations to either side that hold that share of a normal distribution."""

_FAR = 10 * 1.4826
"""Median deviations from which on a day is odd: it counts as one that is just so far away (ten standard deviations)."""

_FAINT = 0.05
_MOST_CORRELATION = 0.8


class Forecast(msgspec.Struct, frozen=True):
    """`expected` at the end of the month, and the band that holds it with a probability of `BAND`; None where too little is known.

    `known` counts the whole days it was made of.
    """

    so_far: float
    expected: float | None
    low: float | None
    high: float | None
    known: int


def month_end(days: Mapping[date, float], now: float) -> Forecast:
    """The forecast for the UTC month of `now` (UNIX time). `days` says what each day came to; a day it lacks came to nothing."""
    moment = datetime.fromtimestamp(now, UTC)
    today = moment.date()
    so_far = sum([value for day, value in days.items() if (day.year, day.month) == (today.year, today.month)])
    used = [day for day, value in days.items() if value > 0 and day < today]
    first = max(min(used), today - timedelta(HISTORY)) if used else today
    known = [days.get(first + timedelta(number), 0.0) for number in range((today - first).days)]
    ends = (today.replace(day=1) + timedelta(32)).replace(day=1)
    share = 1 - (moment - datetime(today.year, today.month, today.day, tzinfo=UTC)).total_seconds() / 86400
    ahead = [share, *[1.0] * ((ends - today).days - 1)]
    if not known:
        return Forecast(so_far, None, None, None, 0)
    fit = _Fit(known, first.weekday())
    expected = so_far + fit.ahead(ahead)
    if len(known) < ENOUGH:
        return Forecast(so_far, expected, None, None, len(known))
    reach = _BAND_DEVIATIONS * fit.deviation(ahead)
    return Forecast(so_far, expected, max(so_far, expected - reach), expected + reach, len(known))


class _Fit:
    """What the days `known` are like; the first of them is a `weekday` (Monday is 0)."""

    def __init__(self, known: Sequence[float], weekday: int) -> None:
        self._weekday = weekday
        self._count = len(known)
        self._factors = _weekdays(known, weekday) if len(known) >= _WEEKS else [1.0] * 7
        points = [
            (float(place), value / factor)
            for place, value in enumerate(known)
            if (factor := self._factor(place)) > _FAINT
        ]
        self._slope = _slope(points) if len(known) >= _WEEKS else 0.0
        self._level = median([value - self._slope * place for place, value in points]) if points else 0.0
        factors = [self._factor(place) for place in range(self._count)]
        rests = [value - self._day(place) for place, value in enumerate(known)]
        # Medians of lopsided days lie beside their mean, and sums are made of means.
        self._level += sum(_tamed(rests)) / sum(factors)
        self._rests = [value - self._day(place) for place, value in enumerate(known)]

    def ahead(self, shares: Sequence[float]) -> float:
        """What the days from now on come to, of each the share that is left."""
        return sum([self._day(self._count + number) * share for number, share in enumerate(shares)])

    def deviation(self, shares: Sequence[float]) -> float:
        """The standard deviation of `ahead`: of the days themselves, which vary as they grow, and of level and slope."""
        days = sum(shares)
        fitted = sum([self._day(place) for place in range(self._count)]) / self._count
        growth = self.ahead(shares) / (days * fitted) if days and fitted else 1.0
        spread = growth**2 * sum([rest * rest for rest in self._rests]) / max(1, self._count - 1)
        alike = _correlation(self._rests)
        unsure = 1 / self._count
        if self._count >= _WEEKS:
            unsure += 3 * (self._count + days) ** 2 / self._count**3
        return sqrt(spread * (days + days * days * unsure) * (1 + alike) / (1 - alike))

    def _factor(self, place: int) -> float:
        return self._factors[(self._weekday + place) % 7]

    def _at(self, place: float) -> float:
        return self._level + self._slope * place

    def _day(self, place: int) -> float:
        return max(0.0, self._at(place)) * self._factor(place)


def _weekdays(known: Sequence[float], weekday: int) -> list[float]:
    """How much more or less than others each weekday comes to, the less sure the nearer to 1."""
    shares: list[list[float]] = [[] for _ in range(7)]
    for place in range(3, len(known) - 3):
        around = fmean(known[place - 3 : place + 4])
        if around > 0:
            shares[(weekday + place) % 7].append(known[place] / around)
    factors = [1 + (median(some) - 1) * len(some) / (len(some) + 0.5) if some else 1.0 for some in shares]
    mean = fmean(factors)
    return [factor / mean for factor in factors] if mean > 0 else [1.0] * 7


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """The median rise per day; 0 where it may as well be chance."""
    if len(points) < ENOUGH:
        return 0.0
    rises = [(there[1] - here[1]) / (there[0] - here[0]) for here, there in combinations(points, 2)]
    order = sum([(rise > 0) - (rise < 0) for rise in rises])
    count = len(points)
    chance = sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return median(rises) if abs(order) > 1.2816 * chance else 0.0


def _tamed(rests: Sequence[float]) -> list[float]:
    """`rests`, the odd ones among them moved to where odd begins."""
    if not rests:
        return []
    middle = median(rests)
    far = _FAR * median([abs(rest - middle) for rest in rests])
    return [min(max(rest, middle - far), middle + far) for rest in rests] if far > 0 else list(rests)


def _correlation(rests: Sequence[float]) -> float:
    """How alike neighbours are, from 0 to `_MOST_CORRELATION`."""
    whole = sum([rest * rest for rest in rests])
    if whole <= 0:
        return 0.0
    pairs = sum([rests[place] * rests[place + 1] for place in range(len(rests) - 1)])
    return min(_MOST_CORRELATION, max(0.0, pairs / whole))
