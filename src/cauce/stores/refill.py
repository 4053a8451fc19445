"""How fast a limit per minute refills, and when days and months begin: the figures that all limiters share."""

from datetime import UTC, datetime

from cauce.ports.limiter import Limit, Per

MINUTE = 61.0
"""Seconds a minute counts here: what was let through may take up to a second to arrive where it is counted again."""

BURST = 0.1
"""The part of a limit that may be used at one moment. The rest refills over a minute."""


def burst(limit: Limit) -> float:
    """Units that may be used at once after a pause: at least one."""
    return max(1.0, BURST * limit.most)


def interval(limit: Limit) -> float:
    """Seconds until one more unit is there, so that no minute, wherever it begins, ever has more than `most`.

    In a minute a bucket gives what it held and what came in: `burst + MINUTE / interval`. Requests are whole, so less than one
    more than `most` is no more than `most`.
    """
    refilled = limit.most - burst(limit)
    if limit.unit == "requests":
        refilled += 1
    return MINUTE / (refilled if refilled > 0 else limit.most)


def period(now: float, per: Per) -> tuple[float, float]:
    """When the day or month that `now` is in began, and when the next one begins: UNIX times, of the calendar in UTC."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        began = today.timestamp()
        return began, began + 86_400
    first = today.replace(day=1)
    december = first.month == 12
    following = first.replace(year=first.year + december, month=1 if december else first.month + 1)
    return first.timestamp(), following.timestamp()
