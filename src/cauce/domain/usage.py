"""Tokens and money of one answer, in one normal form for all providers."""

from typing import Literal

import msgspec

from cauce.domain.extra import Extra

CostSource = Literal["reported", "priced", "estimated", "unpriced"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens used.

    `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning. `cost` is in USD;
    `cost_source` says where it comes from (`unpriced`: the price is not known, the figure is not a zero price).
    `estimated` is true when the provider reported no usage.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    cost_source: CostSource = "unpriced"
    estimated: bool = False
    extra: Extra | None = None
    """The provider's own usage object, for clients that speak its wire."""
    long_cache_write_tokens: int = 0
    """The part of `cache_write_tokens` that is kept for an hour instead of minutes, at a higher price."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


def summed(first: Usage, second: Usage) -> Usage:
    """What two attempts used together."""
    sources = {first.cost_source, second.cost_source}
    return Usage(
        first.input_tokens + second.input_tokens,
        first.output_tokens + second.output_tokens,
        first.cached_tokens + second.cached_tokens,
        first.cache_write_tokens + second.cache_write_tokens,
        first.reasoning_tokens + second.reasoning_tokens,
        first.cost + second.cost,
        # The least certain of the two.
        next(source for source in ("unpriced", "estimated", "priced", "reported") if source in sources),
        first.estimated or second.estimated,
    )
