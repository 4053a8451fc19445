"""Usage of this wire, to and from the normal form."""

from typing import Any

from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.figures import count
from cauce.wire.gemini.names import WIRE


def parse_usage(raw: dict[str, Any]) -> Usage | None:
    """Usage in normal form; None where `raw` counts nothing (some answers say only what kind of traffic they were)."""
    if not any([name.endswith("TokenCount") for name in raw]):
        return None
    thoughts = _count(raw, "thoughtsTokenCount")
    return Usage(
        input_tokens=_count(raw, "promptTokenCount") + _count(raw, "toolUsePromptTokenCount"),
        output_tokens=_count(raw, "candidatesTokenCount") + thoughts,
        cached_tokens=_count(raw, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        extra=Extra(WIRE, raw),
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """Usage as this wire shows it: the provider's own object where it spoke this wire, with our figures on top where it counted none."""
    own: dict[str, Any] = usage.extra.data if usage.extra is not None and usage.extra.wire == WIRE else {}
    told = parse_usage(own)
    if told is not None and (told.input_tokens, told.output_tokens) == (usage.input_tokens, usage.output_tokens):
        return own
    metadata = {
        **own,
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(0, usage.output_tokens - usage.reasoning_tokens),
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_tokens:
        metadata["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        metadata["thoughtsTokenCount"] = usage.reasoning_tokens
    return metadata


def _count(raw: dict[str, Any], name: str) -> int:
    return count(raw.get(name))
