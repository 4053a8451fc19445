"""Usage of this wire, both ways."""

from typing import Any, cast

from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.figures import amount, count
from cauce.wire.openai_responses.names import WIRE, own

_TICKS = 10_000_000_000
"""Of a US dollar, in which xAI tells costs (docs.x.ai, "Cost Tracking")."""


def parse_usage(usage: dict[str, Any]) -> Usage:
    """Usage in normal form; figures that make no sense count as zero. A cost is the provider's own, in USD."""
    given = _member(usage, "input_tokens_details")
    written = _member(usage, "output_tokens_details")
    cost = amount(usage.get("cost"))
    told = amount(usage.get("cost_in_usd_ticks"))
    dollars = cost if cost is not None else told / _TICKS if told is not None else None
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cached_tokens=_count(given, "cached_tokens"),
        cache_write_tokens=_count(given, "cache_write_tokens"),
        reasoning_tokens=_count(written, "reasoning_tokens"),
        cost=dollars or 0.0,
        cost_source="reported" if dollars is not None else "unpriced",
        extra=Extra(WIRE, usage),
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this wire shows it: the provider's own object where it spoke this wire, with our figures on top."""
    raw = own(usage.extra)
    return {
        **raw,
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            **_member(raw, "input_tokens_details"),
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {
            **_member(raw, "output_tokens_details"),
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "total_tokens": usage.total_tokens,
    }


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    return cast(dict[str, Any], member) if isinstance(member, dict) else {}


def _count(usage: dict[str, Any], name: str) -> int:
    return count(usage.get(name))
