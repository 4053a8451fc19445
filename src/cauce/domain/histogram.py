"""How values are spread: counts in buckets that grow by a tenth, so that percentiles of any sum of histograms can be told.

A bucket's middle is told for all that fell into it, so a percentile is off by at most `RELATIVE_ERROR` of itself. That, and that
histograms add up without further loss, is the idea of DDSketch (Masson, Rim, Lee: VLDB 2019).
"""

from collections.abc import Iterable, Mapping
from math import ceil, log
from typing import TypeVar

GROWTH = 1.1

RELATIVE_ERROR = (GROWTH - 1) / (GROWTH + 1)
"""4.8 %."""

LEAST = 1e-4
"""What is smaller counts as this: 0.1 ms, where values are seconds."""

_MOST_BUCKET = 400
_SCALE = 1 / log(GROWTH)
_OFFSET = ceil(log(LEAST) * _SCALE)

Counts = dict[int, int]
"""How many values fell into which bucket."""

Key = TypeVar("Key", int, str)


def bucket(value: float) -> int:
    """The bucket of `value`, which must be finite."""
    if value <= LEAST:
        return 0
    index = ceil(log(value) * _SCALE) - _OFFSET
    return index if index < _MOST_BUCKET else _MOST_BUCKET


def middle(index: int) -> float:
    """The value told for everything in a bucket."""
    return 2 * GROWTH ** (index + _OFFSET) / (GROWTH + 1)


def add(into: dict[Key, int], more: Mapping[Key, int]) -> None:
    """Add up two histograms, or counts of anything else."""
    for key, count in more.items():
        into[key] = into.get(key, 0) + count


def percentiles(counts: Mapping[int, int], shares: Iterable[float]) -> tuple[float | None, ...]:
    """The values that those shares of all values (each from 0 to 1) do not exceed; None where there are no values.

    `shares` must rise.
    """
    total = sum(counts.values())
    if total == 0:
        return tuple([None for _ in shares])
    found: list[float | None] = []
    seen = 0
    buckets = iter(sorted(counts.items()))
    index = 0
    for share in shares:
        rank = max(1, ceil(share * total))
        while seen < rank:
            index, count = next(buckets)
            seen += count
        found.append(middle(index))
    return tuple(found)
