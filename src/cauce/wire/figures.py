"""Figures that strangers report: tokens and money. What makes no sense counts as nothing said, so that sums stay sums."""

import math
from typing import Any

LARGEST = 2**53
"""What every reader of JSON still counts exactly (RFC 8259, section 6)."""


def count(value: Any) -> int:
    """`value` as a number of tokens; 0 for what is none."""
    return value if type(value) is int and 0 <= value <= LARGEST else 0


def amount(value: Any) -> float | None:
    """`value` as an amount of money; None for what is none."""
    if type(value) not in (int, float) or not 0 <= value <= LARGEST or math.isnan(value):
        return None
    return float(value)
