"""Telling, once each, what a request held that the wire it went out on cannot say."""

import logging

from cauce.domain.errors import Unsupported
from cauce.domain.tool import OpaqueTool, Tool

logger = logging.getLogger("cauce.wire")

_MOST = 1000
"""Pairs remembered. Fields have names of ours, so there are few; the bound is for safety."""

_told: set[tuple[str, str]] = set()


def dropped(wire: str, field: str) -> None:
    """`field` of a request was left out, because `wire` has no place for it. Logged once per field and wire."""
    if (wire, field) in _told or len(_told) >= _MOST:
        return
    _told.add((wire, field))
    logger.warning("%s is not sent to upstreams of the wire %s: it has no such field", field, wire)


def known_tools(tools: tuple[Tool | OpaqueTool, ...], wire: str) -> tuple[Tool | OpaqueTool, ...]:
    """`tools` without those that only servers of another wire run.

    Beside functions such a tool is an offer that the model does without: it is left out, and told. Alone it is what the answer
    was to come from: raises `Unsupported`.
    """
    known = tuple([tool for tool in tools if isinstance(tool, Tool) or tool.wire == wire])
    for tool in tools:
        if isinstance(tool, OpaqueTool) and tool.wire != wire:
            if not known:
                raise Unsupported(
                    f"tools of type {tool.kind} cannot be used with this model: only its own maker runs them",
                    field="tools",
                )
            dropped(wire, f"tools of type {tool.kind}")
    return known
