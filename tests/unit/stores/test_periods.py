"""Any span of hours is made of whole periods that neither overlap nor leave anything out."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cauce.stores.periods import HOUR, date_of, day_of, month_of, parts

hours = st.integers(min_value=0, max_value=24 * 365 * 120)


@given(hours, st.integers(min_value=0, max_value=24 * 800), st.booleans())
def test_parts_make_up_the_span_exactly(first: int, length: int, months: bool) -> None:
    made = parts(first, first + length, months=months)
    covered: list[int] = []
    for begin, end in made.months:
        covered += range(day_of(begin) * 24, day_of(end) * 24)
    for begin, end in made.days:
        covered += range(begin * 24, end * 24)
    for begin, end in made.hours:
        covered += range(begin, end)
    assert sorted(covered) == list(range(first, first + length))
    assert months or not made.months


@given(hours, st.integers(min_value=24 * 70, max_value=24 * 800))
def test_long_spans_take_few_periods(first: int, length: int) -> None:
    made = parts(first, first + length, months=True)
    assert sum([end - begin for begin, end in made.hours]) < 48
    assert sum([end - begin for begin, end in made.days]) < 62


@given(st.integers(min_value=0, max_value=365 * 200))
def test_months_and_days_are_those_of_the_calendar(day: int) -> None:
    date = datetime.fromtimestamp(day * 24 * HOUR, UTC)
    assert divmod(month_of(day), 12) == (date.year, date.month - 1)
    assert day_of(month_of(day)) <= day < day_of(month_of(day) + 1)
    assert date_of(day) == f"{date:%Y-%m-%d}"
