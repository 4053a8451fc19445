"""What tokens cost: prices of a model, and the plain arithmetic that makes a cost of them.

Price classes do not overlap: what is read from or written to a cache is taken out of the input, and thinking out of the
output where it has a price of its own.
"""

from math import inf

import msgspec

from cauce.domain.usage import Usage

_MILLION = 1_000_000


class Rates(msgspec.Struct, frozen=True):
    """USD per million tokens. `long_cache_write` is for what is kept for an hour instead of minutes."""

    input: float
    output: float
    cached: float
    cache_write: float
    long_cache_write: float
    reasoning: float

    @classmethod
    def given(
        cls,
        input: float,
        output: float,
        cached: float | None = None,
        cache_write: float | None = None,
        long_cache_write: float | None = None,
        reasoning: float | None = None,
    ) -> "Rates":
        """Rates where None stands for: not priced apart, so the price of the whole it is a part of."""
        written = input if cache_write is None else cache_write
        return cls(
            input,
            output,
            input if cached is None else cached,
            written,
            written if long_cache_write is None else long_cache_write,
            output if reasoning is None else reasoning,
        )


class Tier(msgspec.Struct, frozen=True):
    """Rates of a whole call whose input is more than `above` tokens."""

    above: int
    rates: Rates


class Prices(msgspec.Struct, frozen=True):
    """What a model costs. `tiers` rise; `per_request` is in USD; `snapshot` names the price list."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    per_request: float = 0.0
    snapshot: str = ""


FREE = Prices(Rates.given(0.0, 0.0))
"""Of what runs here, where nobody has given it a price. It is told by identity: a price of 0 that somebody has given is a price."""


def cost(usage: Usage, prices: Prices) -> float:
    """USD for one call, never below zero. Parts that are larger than their whole count as the whole."""
    rates = prices.rates
    whole = usage.input_tokens
    for tier in prices.tiers:
        if whole <= tier.above:
            break
        rates = tier.rates
    dollars = prices.per_request * _MILLION
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    if cached or written:
        cached = min(cached, whole)
        written = min(written, whole - cached)
        kept = min(usage.long_cache_write_tokens, written)
        whole -= cached + written
        dollars += cached * rates.cached + (written - kept) * rates.cache_write + kept * rates.long_cache_write
    answered = usage.output_tokens
    if rates.reasoning != rates.output:
        thought = min(usage.reasoning_tokens, answered)
        answered -= thought
        dollars += thought * rates.reasoning
    dollars += whole * rates.input + answered * rates.output
    return dollars / _MILLION if dollars > 0 else 0.0


def settled(usage: Usage, prices: Prices | None) -> Usage:
    """`usage` with its cost, where nobody who knows has told it: a provider's own figure stays, if it can be one."""
    if usage.cost_source != "unpriced" and not 0 <= usage.cost < inf:
        usage = msgspec.structs.replace(usage, cost=0.0, cost_source="unpriced")
    if prices is None or usage.cost_source != "unpriced":
        return usage
    # Nothing is no estimate, however many tokens it is paid for.
    source = "estimated" if usage.estimated and prices is not FREE else "priced"
    return msgspec.structs.replace(usage, cost=cost(usage, prices), cost_source=source)
