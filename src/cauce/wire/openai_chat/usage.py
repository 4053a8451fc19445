"""Usage objects of the chat wire, to and from the normal form."""

from typing import Any

from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.figures import amount, count
from cauce.wire.openai_chat.extras import WIRE, member, own

_BARE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
"""All that many servers tell."""


def parse_usage(usage: dict[str, Any]) -> Usage:
    """Usage in normal form; figures that make no sense count as zero.

    A `cost` is the provider's own, in USD: a number (OpenRouter) or an object with a sum (Perplexity). Thinking that stands
    beside the completion instead of inside it (xAI) is told by the total, and added.
    """
    if usage.keys() == _BARE:
        return Usage(count(usage["prompt_tokens"]), count(usage["completion_tokens"]), extra=Extra(WIRE, usage))
    prompt = member(usage, "prompt_tokens_details")
    completion = member(usage, "completion_tokens_details")
    cost = amount(member(usage, "cost").get("total_cost", usage["cost"])) if "cost" in usage else None
    asked, written = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    thought = count(completion.get("reasoning_tokens"))
    if thought > 0 and (thought > written or asked + written + thought == usage.get("total_tokens")):
        written += thought
    return Usage(
        input_tokens=asked,
        output_tokens=written,
        cached_tokens=count(prompt.get("cached_tokens")) or count(usage.get("prompt_cache_hit_tokens")),
        cache_write_tokens=count(prompt.get("cache_write_tokens")),
        reasoning_tokens=thought,
        cost=cost or 0.0,
        cost_source="reported" if cost is not None else "unpriced",
        extra=Extra(WIRE, usage),
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this wire shows it: the provider's own object where it says the same, else with our figures on top of it."""
    kept = own(usage.extra)
    if (
        kept.keys() == _BARE
        and (kept["prompt_tokens"], kept["completion_tokens"])
        == (
            usage.input_tokens,
            usage.output_tokens,
        )
        and not (usage.cached_tokens or usage.cache_write_tokens or usage.reasoning_tokens)
    ):
        return kept
    if kept and "total_tokens" in kept and (_tells(kept, usage) or _figures(parse_usage(kept)) == _figures(usage)):
        return kept
    return {
        **kept,
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            **member(kept, "prompt_tokens_details"),
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {
            **member(kept, "completion_tokens_details"),
            "reasoning_tokens": usage.reasoning_tokens,
        },
    }


def _tells(kept: dict[str, Any], usage: Usage) -> bool:
    """Whether `kept` says `usage` in the words everybody uses; False: it may still, in others."""
    prompt, completion = member(kept, "prompt_tokens_details"), member(kept, "completion_tokens_details")
    return (
        kept.get("prompt_tokens") == usage.input_tokens
        and kept.get("completion_tokens") == usage.output_tokens
        and prompt.get("cached_tokens", 0) == usage.cached_tokens
        and prompt.get("cache_write_tokens", 0) == usage.cache_write_tokens
        and completion.get("reasoning_tokens", 0) == usage.reasoning_tokens
    )


def _figures(usage: Usage) -> tuple[int, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
