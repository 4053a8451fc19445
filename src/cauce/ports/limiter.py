"""Who counts against limits: requests, tokens, calls at once, money.

One atomic call reserves under all limits of a call or under none. What it will really use is not known by then, so an estimate
is debited and corrected when the call has ended.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

SOON = 1.0
"""Seconds to wait where nobody can tell, since some call must end first."""

Unit = Literal["requests", "tokens", "calls", "dollars"]
"""`calls` are those under way at once; `dollars` are USD."""

Per = Literal["minute", "day", "month", "moment"]
"""A minute is any minute (a bucket that refills steadily); a day and a month are those of the calendar, in UTC; `moment` is for `calls`."""


class Limit(msgspec.Struct, frozen=True):
    """At most `most` `unit`s per `per`. Limits with equal `key` are one and the same: it names whose and what, as in `provider:gemini:tokens/minute`."""

    key: str
    unit: Unit
    per: Per
    most: float


class Amount(msgspec.Struct, frozen=True):
    """What a call uses, or is thought to. It is one request and one call under way, whatever it uses."""

    tokens: float = 0.0
    dollars: float = 0.0


class Reservation(msgspec.Struct, frozen=True):
    """Held until it is settled or released, once. `id` is the adapter's own business."""

    limits: tuple[Limit, ...]
    amount: Amount
    at: float
    id: str = ""


class Denial(msgspec.Struct, frozen=True):
    """`limit` has no room now: not before `wait` seconds (None: nobody can tell, some call must end first)."""

    limit: Limit
    wait: float | None


class Limiter(Protocol):
    """Time is the store's own clock. Nothing here waits for room: the queue does."""

    async def reserve(self, limits: Sequence[Limit], amount: Amount) -> Reservation | Denial:
        """Debit `amount` under every one of `limits`, or nothing. Of several that deny, the one with the longest wait is told."""
        ...

    async def settle(self, reservation: Reservation, amount: Amount) -> None:
        """The call has ended and used `amount`: correct what was debited, and let go of its place among the calls under way."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Nobody was asked after all: give everything back."""
        ...

    async def tighten(self, limit: Limit, left: float, seconds: float) -> None:
        """The upstream itself says that `left` units are all there is for the next `seconds`. Never loosens."""
        ...

    def on_room(self, listener: Callable[[str], None]) -> None:
        """Have `listener(key)` called when a limit has room again that time alone would not have brought."""
        ...
