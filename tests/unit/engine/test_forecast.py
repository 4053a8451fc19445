"""The end of the month, on series whose end is known."""

import random
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.engine.forecast import BAND, ENOUGH, Forecast, month_end

TODAY = date(2026, 11, 16)
"""A Monday: fifteen days of its month are over."""


def at(day: date, hour: float = 0.0) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + hour * 3600


def series(values: list[float], last: date = TODAY - timedelta(1)) -> dict[date, float]:
    return {last - timedelta(len(values) - 1 - place): value for place, value in enumerate(values)}


def test_steady_days_go_on_as_they_were() -> None:
    told = month_end(series([10.0] * 60), at(TODAY))
    assert told.so_far == 150.0
    assert (told.low, told.expected, told.high) == pytest.approx((300.0, 300.0, 300.0))


def test_part_of_today_that_is_over_is_not_expected_again() -> None:
    days = {**series([10.0] * 60), TODAY: 5.0}
    assert month_end(days, at(TODAY, 12)).expected == pytest.approx(300.0)


def test_weekends_are_expected_to_be_weekends() -> None:
    def worth(day: date) -> float:
        return 0.0 if day.weekday() >= 5 else 10.0

    days = {day: worth(day) for day in [TODAY - timedelta(back) for back in range(1, 71)]}
    month = [date(2026, 11, number) for number in range(1, 31)]
    assert month_end(days, at(TODAY)).expected == pytest.approx(sum(map(worth, month)), rel=0.03)


def test_steady_rise_goes_on() -> None:
    days = {TODAY - timedelta(back): 100.0 - back for back in range(1, 61)}
    month = [100.0 + (date(2026, 11, number) - TODAY).days for number in range(1, 31)]
    assert month_end(days, at(TODAY)).expected == pytest.approx(sum(month), rel=0.01)


def test_one_odd_day_hardly_moves_it_but_widens_the_band() -> None:
    plain = [10.0 + place % 3 for place in range(60)]
    odd = [*plain[:20], 5000.0, *plain[21:]]
    calm, moved = month_end(series(plain), at(TODAY)), month_end(series(odd), at(TODAY))
    assert calm.expected is not None and moved.expected is not None
    assert moved.expected == pytest.approx(calm.expected, rel=0.05)
    assert moved.high is not None and calm.high is not None and moved.high > calm.high


def test_few_days_give_no_band_and_none_give_nothing() -> None:
    few = month_end(series([10.0] * (ENOUGH - 1)), at(TODAY))
    assert few.expected == pytest.approx(60 + 150) and few.low is None and few.high is None and few.known == ENOUGH - 1
    assert month_end({TODAY: 5.0}, at(TODAY, 12)) == Forecast(5.0, None, None, None, 0)
    assert month_end({}, at(TODAY)).expected is None


def test_days_before_the_first_use_do_not_count() -> None:
    told = month_end({**series([10.0] * 10), TODAY - timedelta(40): 0.0}, at(TODAY))
    assert told.known == 10 and told.expected == pytest.approx(100 + 150)


@pytest.mark.parametrize("noise", ["normal", "lopsided"])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_band_holds_about_as_often_as_it_says(noise: str, slope: float) -> None:
    held = 0
    tries = 100
    for seed in range(tries):
        chance = random.Random(seed)
        days: dict[date, float] = {}
        for back in range(60, -16, -1):
            day = TODAY - timedelta(back)
            factor = chance.gauss(1, 0.25) if noise == "normal" else chance.lognormvariate(0, 0.4)
            days[day] = max(0.0, (100 + slope * (60 - back)) * (0.3 if day.weekday() >= 5 else 1.0) * factor)
        true = sum([value for day, value in days.items() if (day.year, day.month) == (2026, 11)])
        told = month_end({day: value for day, value in days.items() if day < TODAY}, at(TODAY))
        assert told.low is not None and told.high is not None
        held += told.low <= true <= told.high
    assert abs(held / tries - BAND) <= 0.13


amounts = st.lists(st.floats(min_value=0, max_value=1e9), max_size=90)


@given(amounts, st.floats(min_value=0, max_value=23.9), st.integers(min_value=1, max_value=28))
def test_forecast_lies_in_its_band_and_never_below_what_was_spent(values: list[float], hour: float, day: int) -> None:
    today = date(2026, 2, day)
    told = month_end(series(values, today), at(today, hour))
    if told.expected is not None:
        assert told.so_far <= told.expected * (1 + 1e-9)
    if told.low is not None and told.high is not None and told.expected is not None:
        assert told.so_far <= told.low <= told.expected * (1 + 1e-9) and told.expected <= told.high * (1 + 1e-9)


@given(
    st.lists(st.floats(min_value=0.01, max_value=1e4), min_size=8, max_size=80), st.floats(min_value=0.1, max_value=10)
)
def test_forecast_is_the_same_in_any_currency(values: list[float], rate: float) -> None:
    here, there = month_end(series(values), at(TODAY)), month_end(series([value * rate for value in values]), at(TODAY))
    assert here.expected is not None and there.expected == pytest.approx(here.expected * rate, rel=1e-6)
    assert here.high is not None and there.high == pytest.approx(here.high * rate, rel=1e-6)
