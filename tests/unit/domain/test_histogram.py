"""Percentiles of histograms, and of sums of them, against the values themselves."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.histogram import LEAST, RELATIVE_ERROR, Counts, add, bucket, middle, percentiles

values = st.floats(min_value=LEAST, max_value=1e6)


def counted(some: list[float]) -> Counts:
    counts: Counts = {}
    for value in some:
        add(counts, {bucket(value): 1})
    return counts


@given(values)
def test_bucket_tells_a_value_within_the_stated_error(value: float) -> None:
    assert middle(bucket(value)) == pytest.approx(value, rel=RELATIVE_ERROR * 1.0001)


def test_stated_error_is_at_most_five_percent() -> None:
    assert RELATIVE_ERROR <= 0.05


@given(st.lists(values, min_size=1), st.lists(values))
def test_percentiles_of_a_sum_are_those_of_all_values_within_the_error(some: list[float], more: list[float]) -> None:
    counts = counted(some)
    add(counts, counted(more))
    ordered = sorted([*some, *more])
    for share, told in zip((0.5, 0.95, 0.99), percentiles(counts, (0.5, 0.95, 0.99)), strict=True):
        exact = ordered[max(1, ceil(share * len(ordered))) - 1]
        assert told == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001)


@given(st.floats(min_value=0, allow_infinity=False))
def test_any_value_has_a_bucket(value: float) -> None:
    assert 0 <= bucket(value) <= 400


def test_nothing_has_no_percentiles() -> None:
    assert percentiles({}, (0.5, 0.99)) == (None, None)
