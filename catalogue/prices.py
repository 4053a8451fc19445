"""The prices of one model in `genai-prices`, as they stood on one day, in the classes that the server tells apart."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from genai_prices import types

CLASSES = (
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "output_reasoning_mtok",
)
"""USD per million tokens, in the order in which the catalogue lists them."""

_PER_REQUEST = "requests_kcount"
_LEFT_OUT = {
    "web_searches_kcount",
    "storage_searches_kcount",
    "input_audio_mtok",
    "cache_audio_read_mtok",
    "input_image_mtok",
    "cache_image_read_mtok",
    "input_video_mtok",
}
"""Fees for tools that providers run, and inputs that are no text: no usage tells how much of a call they are."""


class Listed(NamedTuple):
    """`base` has an entry per class (None: not priced apart); so has each tier, which holds above that many input tokens."""

    base: tuple[float | None, ...]
    tiers: tuple[tuple[int, tuple[float | None, ...]], ...] = ()
    per_request: float = 0.0


def listed(model: types.ModelInfo, day: date) -> Listed | None:
    """The prices of `model` on `day`.

    None where there are none, or where something else than tokens is paid for as well (seconds, pages, images made): a part of
    a price would be a wrong one.
    """
    prices = {name: value for name, value in _holding(model, day).__dict__.items() if value is not None}
    if not prices and model.id.endswith(":free"):
        return Listed((0, 0))
    if not prices.keys() <= {*CLASSES, _PER_REQUEST, *_LEFT_OUT} or not prices.keys() & set(CLASSES[:2]):
        return None
    starts = sorted(
        {tier.start for value in prices.values() if isinstance(value, types.TieredPrices) for tier in value.tiers}
    )
    return Listed(
        _rates(prices, -1),
        tuple([(start, _rates(prices, start)) for start in starts]),
        float(prices.get(_PER_REQUEST, 0)) / 1000,
    )


def _holding(model: types.ModelInfo, day: date) -> types.ModelPrice:
    """The prices that hold for the most hours of `day`: some vendors charge another price at busy hours."""
    moments = [datetime.combine(day, time(), UTC) + timedelta(minutes=30 * half) for half in range(48)]
    held = [model.get_prices(moment) for moment in moments]
    return max(held, key=lambda prices: sum([other is prices for other in held]))


def _rates(prices: dict[str, Any], start: int) -> tuple[float | None, ...]:
    """What each class costs in the tier that begins at `start` (-1: below all tiers)."""
    rates: list[float | None] = []
    for name in CLASSES:
        value = prices.get(name)
        if isinstance(value, types.TieredPrices):
            reached = [tier.price for tier in value.tiers if tier.start <= start]
            value = reached[-1] if reached else value.base
        rates.append(_number(value))
    rates[0] = rates[0] or 0
    rates[1] = rates[1] or 0
    while len(rates) > 2 and rates[-1] is None:
        rates.pop()
    return tuple(rates)


def _number(value: Decimal | None) -> float | int | None:
    if value is None:
        return None
    return int(value) if value == int(value) else float(value)
