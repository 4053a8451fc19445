"""Models whose answers are given in a way of their own: what becomes of them when nobody reads, and whether they are shown whole."""

from collections.abc import Mapping

from cauce.config import Config
from cauce.server.leaving import ModelManner, parse_leaving


def manners(config: Config, aliases: Mapping[str, str]) -> dict[str, ModelManner]:
    """By public name and alias; nothing of models that say nothing."""
    found = {
        name: ModelManner(parse_leaving(model.on_disconnect), model.buffer)
        for name, model in config.models.items()
        if model.on_disconnect or model.buffer
    }
    if found:
        for alias in aliases:
            target = alias
            while target in aliases and target not in found:
                target = aliases[target]
            if target in found:
                found[alias] = found[target]
    return found
