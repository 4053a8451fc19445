"""What schemathesis sends, with time enough: a client that gives a busy machine a tenth of a second is told 504, and rightly."""

from typing import Any

import schemathesis

from cauce.wire.native.request import SHORTEST

ENOUGH = 60.0
"""Seconds."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    given = (case.headers or {}).get("X-Cauce-Timeout")
    if given is not None and _seconds(given) < ENOUGH:
        case.headers["X-Cauce-Timeout"] = str(ENOUGH)
    if isinstance(case.body, dict) and _seconds(case.body.get("timeout")) < ENOUGH:
        case.body["timeout"] = ENOUGH


def _seconds(value: object) -> float:
    """What it says where that is a time a server would take, else no end."""
    try:
        seconds = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return float("inf")
    return seconds if seconds >= SHORTEST else float("inf")
