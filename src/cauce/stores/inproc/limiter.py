"""The limiter in memory: for one process, or for what one node may do alone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cauce.ports.clock import Clock
from cauce.ports.limiter import Amount, Denial, Limit, Reservation
from cauce.stores.inproc.counts import UNASKED, UNKNOWN, Calendar, Count, count_of, period_of

MOST_IDLE = 4096
"""Limits that are remembered before those without use are looked for."""

MOST_PLANS = 4096
"""Sets of limits that are remembered as a whole."""

Spent = Callable[[Limit, float], Awaitable[float]]
"""From a limit of the calendar and the UNIX time its period began to what the ledger has of it since. Raises `CauceError` where that cannot be told now."""


async def nothing_spent(limit: Limit, since: float) -> float:
    """The answer where nobody keeps a ledger."""
    return 0.0


class InprocLimiter:
    """See `ports.limiter.Limiter`. Between looking and debiting nothing is awaited, so no two calls see the same room."""

    def __init__(self, clock: Clock, spent: Spent = nothing_spent, most_idle: int = MOST_IDLE) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._spent = spent
        self._most_idle = most_idle
        self._sweep_at = most_idle
        self._counts: dict[str, Count] = {}
        self._plans: dict[int, tuple[Sequence[Limit], list[Count]]] = {}
        """What counts under limits that come again and again as the same tuple."""
        self._listeners: list[Callable[[str], None]] = []

    async def reserve(self, limits: Sequence[Limit], amount: Amount) -> Reservation | Denial:
        limits = tuple(limits)
        while True:
            now = self._monotonic()
            counts = self._counting(limits, now)
            for place, count in enumerate(counts):
                if not count.admit(amount, now):
                    for other in counts[:place]:
                        other.retract(amount, now)
                    break
            else:
                return Reservation(limits, amount, now)
            denial = await self._denial(counts, amount, now)
            if denial is not None:
                return denial

    async def _denial(self, counts: list[Count], amount: Amount, now: float) -> Denial | None:
        """What denies `amount`; None: it must be looked again, the ledger has been asked."""
        denier: Count | None = None
        longest = -1.0
        for count in counts:
            wait = count.wait(amount, now)
            if wait == UNASKED:
                await self._ask(count)
                return None
            # A wait that can be told is the better bottleneck: there is no use in coming before it is over.
            known = 0.0 if wait == UNKNOWN else wait
            if wait and known > longest:
                denier, longest = count, known
        return None if denier is None else Denial(denier.limit, longest or None)

    def follow(self, limits: Sequence[Limit], amount: Amount) -> Reservation:
        """Debit `amount` whether there is room or not: somebody else has allowed it."""
        now = self._monotonic()
        for limit in limits:
            (self._counts.get(limit.key) or self._new(limit, now)).take(amount, now)
        return Reservation(tuple(limits), amount, now)

    async def settle(self, reservation: Reservation, amount: Amount) -> None:
        now = self._monotonic()
        held, at = reservation.amount, reservation.at
        for count in self._counted(reservation.limits):
            if count.settle(held, amount, at, now):
                self._tell(count.limit.key)

    async def release(self, reservation: Reservation) -> None:
        now = self._monotonic()
        for count in self._counted(reservation.limits):
            if count.release(reservation.amount, reservation.at, now):
                self._tell(count.limit.key)

    async def tighten(self, limit: Limit, left: float, seconds: float) -> None:
        now = self._monotonic()
        count = self._counts.get(limit.key) or self._new(limit, now)
        count.tighten(left, seconds, now)

    def on_room(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def renew(self) -> None:
        """Have the ledger say anew what was spent: others write into it too. Raises what `spent` raises."""
        now = self._monotonic()
        for count in list(self._counts.values()):
            if isinstance(count, Calendar) and count.stale(now):
                await self._ask(count)

    @property
    def remembered(self) -> int:
        """How many limits are remembered now."""
        return len(self._counts)

    def _counting(self, limits: tuple[Limit, ...], now: float) -> list[Count]:
        """What counts under `limits`."""
        plan = self._plans.get(id(limits))
        if plan is not None and plan[0] is limits:
            return plan[1]
        counts = [self._counts.get(limit.key) or self._new(limit, now) for limit in limits]
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        for limit, count in zip(limits, counts, strict=True):
            # Making room for the last of them may have forgotten the first.
            self._counts[limit.key] = count
        self._plans[id(limits)] = (limits, counts)
        return counts

    def _counted(self, limits: tuple[Limit, ...]) -> list[Count]:
        """What counted under `limits` and has not been forgotten."""
        plan = self._plans.get(id(limits))
        if plan is not None and plan[0] is limits:
            return plan[1]
        return [count for limit in limits if (count := self._counts.get(limit.key)) is not None]

    def _new(self, limit: Limit, now: float) -> Count:
        if len(self._counts) >= self._sweep_at:
            for key in [key for key, count in self._counts.items() if count.idle(now)]:
                del self._counts[key]
            self._plans.clear()
            # Twice what could not be forgotten: looking for more costs nothing then, on average.
            self._sweep_at = max(self._most_idle, 2 * len(self._counts))
        count = self._counts[limit.key] = count_of(limit, self._clock)
        return count

    async def _ask(self, count: Count) -> None:
        """Have the ledger say what was spent, once for all who wait for it. A task: one of them may leave."""
        assert isinstance(count, Calendar), "only sums of the calendar have a past"
        if count.asking is None:
            count.asking = asyncio.create_task(self._begin(count))
        await asyncio.shield(count.asking)

    async def _begin(self, count: Calendar) -> None:
        began, ends = period_of(count.limit, self._clock)
        try:
            count.begin(await self._spent(count.limit, began), ends)
        except BaseException:
            # The next call asks again.
            count.asking = None
            raise

    def _tell(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)
