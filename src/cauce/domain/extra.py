"""What one wire knows and no other: carried along raw, so that nothing is lost between equal wires."""

from typing import Any, cast

import msgspec


class Extra(msgspec.Struct, frozen=True):
    """Unknown fields of one wire. `data` is that wire's own JSON, keyed the way its codec decides."""

    wire: str
    data: dict[str, Any]


def joined(first: Extra | None, second: Extra | None) -> Extra | None:
    """Both as one: objects are merged, lists put one after the other, of other values the second wins.

    Of two wires the second wins: an answer comes from one of them only.
    """
    if first is None or second is None or first.wire != second.wire:
        return second or first
    return Extra(first.wire, _merged(first.data, second.data))


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    whole = dict(first)
    for name, value in second.items():
        there = whole.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            whole[name] = _merged(cast(dict[str, Any], there), cast(dict[str, Any], value))
        elif isinstance(there, list) and isinstance(value, list):
            whole[name] = [*cast(list[Any], there), *cast(list[Any], value)]
        else:
            whole[name] = value
    return whole
