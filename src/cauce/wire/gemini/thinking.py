"""How much a model thinks: `thinkingConfig`, to and from the domain."""

from typing import Any

from cauce.domain.request import ReasoningOptions
from cauce.wire.dropping import dropped
from cauce.wire.gemini.models import Traits
from cauce.wire.gemini.names import WIRE

_BUDGETS = {"minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
"""Tokens of thinking that stand for an effort: of low, medium and high those of Google's own endpoint for OpenAI's clients (Google,
"OpenAI compatibility"), as far as a model takes them."""

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
            config["thinkingLevel"] = known.levels[0].upper()
        elif level := _level(options, known.levels):
            config["thinkingLevel"] = level.upper()
    elif silent:
        config["thinkingBudget"] = 0 if known.off else known.least
    elif (budget := _budget(options)) is not None:
        config["thinkingBudget"] = min(max(budget, known.least), known.most)
    return config


def _budget(options: ReasoningOptions) -> int | None:
    if options.budget_tokens is None and options.effort is not None:
        return _BUDGETS.get(options.effort, _BUDGETS["medium"])
    return options.budget_tokens


def _level(options: ReasoningOptions, levels: tuple[str, ...]) -> str | None:
    wanted = options.effort
    if wanted is None:
        if options.budget_tokens is None:
            return None
        wanted = next((level for level in _LEVELS if _BUDGETS[level] >= options.budget_tokens), "max")
    if wanted not in _LEVELS:
        return levels[-1] if wanted == "max" else "high"
    # The next one up, as far as there is one.
    above = _LEVELS[_LEVELS.index(wanted) :]
    return next((level for level in above if level in levels), levels[-1])
