"""How much a model thinks: `thinking` and `output_config.effort`, to and from the domain."""

from typing import Any, cast

from cauce.domain.request import ReasoningOptions, Request
from cauce.wire.anthropic_messages.blocks import REDACTED, own
from cauce.wire.anthropic_messages.models import Traits
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.dropping import dropped

LEAST_BUDGET = 1024
"""The smallest budget the API takes (Anthropic, "Extended thinking")."""

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
"""Tokens of thinking that stand for an effort, for models that take a budget. Ours: nobody publishes such a table."""

_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")


def parse_reasoning(raw: dict[str, Any]) -> ReasoningOptions | None:
    """What `thinking` and `output_config.effort` of a body say. A kind of thinking unknown here counts as thinking."""
    thinking, effort = raw.get("thinking"), None
    match raw:
        case {"output_config": {"effort": str(word)}}:
            effort = word
        case _:
            pass
    if not isinstance(thinking, dict):
        return ReasoningOptions(effort=effort) if effort is not None else None
    options = cast(dict[str, Any], thinking)
    budget = options.get("budget_tokens")
    return ReasoningOptions(
        effort,
        budget if type(budget) is int else None,
        options.get("type") != "disabled",
        {"summarized": True, "omitted": False}.get(str(options.get("display"))),
    )


def shows_thinking(request: Request) -> bool:
    """Whether a client wants to see reasoning: only one that asked for it knows what to do with such blocks."""
    reasoning = request.reasoning
    return reasoning is not None and reasoning.enabled is True and reasoning.visible is not False


def is_proven(messages: list[dict[str, Any]]) -> bool:
    """Whether the turn that `messages` end with, if the assistant has begun it, begins with thinking.

    With a thinking budget the API refuses one that does not: it calls tools and nobody kept its thinking, or another model
    made it, or the model is to go on from it (Anthropic, "Extended thinking").
    """
    begun: Any = None
    for message in reversed(messages):
        if message["role"] == "assistant":
            begun = message["content"]
        elif not _answers_tools(message["content"]):
            break
    if begun is None:
        return True
    return isinstance(begun, list) and cast(list[Any], begun)[0].get("type") in ("thinking", REDACTED)


def _answers_tools(content: Any) -> bool:
    return isinstance(content, list) and cast(list[Any], content)[0].get("type") == "tool_result"


def render_reasoning(request: Request, known: Traits, *, proven: bool = True) -> dict[str, Any]:
    """`thinking` and `output_config` (effort only) for a model of `known` traits, as far as they are needed.

    What a client of this wire said goes out as it was said. For others the model's own form is chosen. A budget that
    `max_tokens` leaves no room for, or for a turn that is not `proven`, and thinking beside a forced tool, all of which the
    API refuses, are left out.
    """
    body = own(request.extra, "body")
    if "thinking" in body or "output_config" in body:
        return {name: body[name] for name in ("thinking", "output_config") if name in body}
    reasoning = request.reasoning
    if reasoning is None:
        return {}
    if reasoning.enabled is False or reasoning.effort == "none":
        return _silent(known)
    effort = _effort(reasoning, known)
    said: dict[str, Any] = {"output_config": {"effort": effort}} if effort is not None else {}
    forced = request.tool_choice is not None and request.tool_choice.mode in ("required", "tool")
    missing = known.thinking == "budget" and not proven
    thinking = None if forced or missing else _thinking(reasoning, known, request.sampling.max_tokens)
    if thinking is None:
        why = (
            "beside a forced tool"
            if forced
            else "in a turn whose thinking is missing"
            if missing
            else "for some models"
        )
        dropped(WIRE, f"reasoning, {why}")
        return said
    if reasoning.visible is not None:
        thinking["display"] = "summarized" if reasoning.visible else "omitted"
    return {"thinking": thinking, **said}


def _silent(known: Traits) -> dict[str, Any]:
    if known.thinking != "adaptive":
        return {}
    if known.silence:
        return {"thinking": {"type": "disabled"}}
    dropped(WIRE, "reasoning effort none, for models that always think")
    return {"output_config": {"effort": "low"}}


def _thinking(reasoning: ReasoningOptions, known: Traits, max_tokens: int | None) -> dict[str, Any] | None:
    if known.thinking == "adaptive":
        return {"type": "adaptive"}
    if known.thinking == "none":
        return None
    budget = reasoning.budget_tokens or _BUDGETS.get(reasoning.effort or "medium", _BUDGETS["medium"])
    if max_tokens is not None:
        # `max_tokens` counts thinking too, and has to be the larger one.
        budget = min(budget, max_tokens - 1)
    return {"type": "enabled", "budget_tokens": budget} if budget >= LEAST_BUDGET else None


def _effort(reasoning: ReasoningOptions, known: Traits) -> str | None:
    """The model's word for the effort that was asked for: the nearest one not above it, or else its lowest."""
    if not known.efforts:
        return None
    wanted = reasoning.effort
    if wanted is None:
        budget = reasoning.budget_tokens
        if budget is None:
            return None
        wanted = next((level for level in _LEVELS if _BUDGETS[level] >= budget), "max")
    if wanted not in _LEVELS:
        return wanted
    not_above = [level for level in _LEVELS[: _LEVELS.index(wanted) + 1] if level in known.efforts]
    return not_above[-1] if not_above else known.efforts[0]
