"""Token figures of this wire: input without the cache beside reads and writes, output with thinking."""

from typing import Any, cast

from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.figures import count

WIRE = "anthropic_messages"


def overwritten(first: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """`first` with the figures of `later` in place of its own, field by field; null leaves a field as it is.

    Counts in `message_delta` are totals. They differ from those in `message_start` where server-side tools ran in between.
    """
    return {**first, **{name: value for name, value in later.items() if value is not None}}


def parse_usage(raw: dict[str, Any]) -> Usage:
    """Usage in normal form; figures that make no sense count as zero."""
    cached = _count(raw, "cache_read_input_tokens")
    written = _count(raw, "cache_creation_input_tokens")
    details: Any = raw.get("output_tokens_details")
    thinking = _count(cast(dict[str, Any], details), "thinking_tokens") if isinstance(details, dict) else 0
    writes: Any = raw.get("cache_creation")
    long = _count(cast(dict[str, Any], writes), "ephemeral_1h_input_tokens") if isinstance(writes, dict) else 0
    return Usage(
        input_tokens=_count(raw, "input_tokens") + cached + written,
        output_tokens=_count(raw, "output_tokens"),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thinking,
        extra=Extra(WIRE, raw),
        long_cache_write_tokens=long,
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this wire shows it: the provider's own object where it spoke this wire, with our figures on top."""
    own: dict[str, Any] = usage.extra.data if usage.extra is not None and usage.extra.wire == WIRE else {}
    shown = dict(own)
    figures = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    shown.update({name: figure for name, figure in figures.items() if not own or figure != _count(own, name)})
    if usage.reasoning_tokens and parse_usage(own).reasoning_tokens != usage.reasoning_tokens:
        shown["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return shown


def _count(raw: dict[str, Any], name: str) -> int:
    return count(raw.get(name))
