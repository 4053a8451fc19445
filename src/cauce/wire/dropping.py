"""Telling, once each, what a request held that the wire it went out on cannot say."""

import logging

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
