"""How much a model thinks: `thinkingConfig`, to and from the domain."""

from typing import Any

from cauce.domain.request import ReasoningOptions
from cauce.wire.dropping import dropped
from cauce.wire.gemini.models import Traits
from cauce.wire.gemini.names import WIRE

_BUDGETS = {"minimal": 512, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
"""Tokens of thinking that stand for an effort, for models that take a budget. 24,576 is the most that all of them take."""

_LEVELS = ("minimal", "low", "medium", "high", "xhigh")


def parse_thinking(config: dict[str, Any]) -> ReasoningOptions | None:
    """What a `thinkingConfig` says."""
    if not config:
        return None
    level, budget, visible = config.get("thinkingLevel"), config.get("thinkingBudget"), config.get("includeThoughts")
    counted = budget if type(budget) is int else None
    return ReasoningOptions(
        level.lower() if isinstance(level, str) else None,
        counted if counted is not None and counted > 0 else None,
        False if counted == 0 else None,
        visible if isinstance(visible, bool) else None,
    )


def render_thinking(options: ReasoningOptions | None, known: Traits) -> dict[str, Any]:
    """`thinkingConfig` for a model of `known` traits; empty where nothing is to be said."""
    if options is None:
        return {}
    if not known.thinks:
        dropped(WIRE, "reasoning, for models that do not think")
        return {}
    config: dict[str, Any] = {}
    if options.visible is not None or options.enabled:
        config["includeThoughts"] = options.visible is not False
    silent = options.enabled is False or options.effort == "none"
    if known.levels:
        if silent:
            # These models always think: the least there is.
            config["thinkingLevel"] = "MINIMAL"
        elif level := _level(options, known.levels):
            config["thinkingLevel"] = level.upper()
    elif silent:
        config["thinkingBudget"] = 0
    elif options.budget_tokens is not None:
        config["thinkingBudget"] = options.budget_tokens
    elif options.effort is not None:
        config["thinkingBudget"] = _BUDGETS.get(options.effort, _BUDGETS["medium"])
    return config


def _level(options: ReasoningOptions, levels: tuple[str, ...]) -> str | None:
    wanted = options.effort
    if wanted is None:
        if options.budget_tokens is None:
            return None
        wanted = next((level for level in _LEVELS if _BUDGETS[level] >= (options.budget_tokens or 0)), "high")
    if wanted == "max":
        return levels[-1]
    return wanted if wanted in levels else "high"
