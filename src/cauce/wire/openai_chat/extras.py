"""What this wire keeps of fields that nobody else knows."""

from typing import Any, cast

from cauce.domain.extra import Extra
from cauce.wire.fields import rest

WIRE = "openai_chat"

_NO_FIELDS = frozenset({"chunk", "choice", "delta", "call", "field", "annotation", "custom", "legacy", "detail"})
"""Members with a meaning of ours. See the package."""


def own(extra: Extra | None) -> dict[str, Any]:
    """What `extra` holds of this wire."""
    return extra.data if extra is not None and extra.wire == WIRE else {}


def fields(extra: Extra | None) -> dict[str, Any]:
    """What `extra` holds of fields that stood in a request: an answer's levels mean nothing there."""
    kept = own(extra)
    if kept.keys().isdisjoint(_NO_FIELDS):
        return kept
    return {name: value for name, value in kept.items() if name not in _NO_FIELDS}


def unknown(raw: dict[str, Any], known: frozenset[str]) -> Extra | None:
    """The members of `raw` that are not `known`; None if there are none."""
    left = rest(raw, known)
    return Extra(WIRE, left) if left else None


def member(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The object that is `value`'s member `name`; empty if it is no object."""
    found = value.get(name)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def with_level(extra: Extra | None, level: str, fields: dict[str, Any]) -> Extra | None:
    """`extra` with the unknown `fields` of a level."""
    if not fields:
        return extra
    return Extra(WIRE, {**(extra.data if extra is not None else {}), level: fields})
