"""What is counted under one limit, in memory: a bucket that refills, a sum of the calendar, calls under way.

Each has the same functions. `admit` takes where there is room, and is taken back by `retract` while nothing else has happened. `wait` is 0 where there is room, the seconds until there may be, `UNKNOWN` where some call must end
first, or `UNASKED`. `settle` and `release` tell whether somebody was denied before, to whom there is room now. Times (`now`,
`at`) are of the monotonic clock.
"""

import asyncio
from math import inf

from cauce.ports.clock import Clock
from cauce.ports.limiter import Amount, Limit
from cauce.stores.refill import burst, interval, period

UNKNOWN = inf
UNASKED = -1.0
"""What has been spent so far is not known yet: ask the ledger, `begin`, and try again."""

_ROUNDING = 1e-9
_IDLE = 600.0
"""Seconds without use after which a sum may be forgotten: the ledger knows it."""

_LOOK = 1.0
"""Seconds between looks at the calendar."""

_RECENT = 10.0
"""Seconds since its last use in which a sum is kept up to date, where others write into the ledger too."""

_SLOTS = 64
_KEPT = 62
"""Seconds of tokens that count: a minute, the second that began before it, and one for the way."""


class Requests:
    """Requests per minute: GCRA, with `due` the time at which the bucket is full (in the past: how long it has been).

    The upstream's own word on top of it: `left` until `until`.
    """

    __slots__ = ("_before", "_due", "_interval", "_left", "_slack", "_until", "denied", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.denied = False
        self._interval = interval(limit)
        self._slack = 0.0 if self._interval == 0 else (burst(limit) - 1) * self._interval
        self._due: float = -inf
        self._before: float = -inf
        self._left: float = 0.0
        self._until: float = -inf

    def wait(self, amount: Amount, now: float) -> float:
        wait = self._due - self._slack - now
        if now < self._until and self._left < 1:
            wait = max(wait, self._until - now)
        if wait <= _ROUNDING:
            return 0.0
        self.denied = True
        return wait

    def admit(self, amount: Amount, now: float) -> bool:
        due = self._due
        if (due - self._slack - now > _ROUNDING or now < self._until) and self.wait(amount, now):
            return False
        self._before = due
        self._due = (due if due > now else now) + self._interval
        if now < self._until:
            self._left -= 1
        return True

    def retract(self, amount: Amount, now: float) -> None:
        self._due = self._before
        if now < self._until:
            self._left += 1

    def take(self, amount: Amount, now: float) -> None:
        due = self._due
        self._due = (due if due > now else now) + self._interval
        if now < self._until:
            self._left -= 1

    def settle(self, held: Amount, used: Amount, at: float, now: float) -> bool:
        return False

    def release(self, held: Amount, at: float, now: float) -> bool:
        # What has refilled since may have been there anyway, had nothing been taken.
        back = self._interval - (now - at)
        if self._due > now and back > 0:
            self._due = max(now, self._due - back)
        return _told(self)

    def tighten(self, left: float, seconds: float, now: float) -> None:
        """See `ports.limiter.Limiter`. A newer word replaces an older one only if that is not tighter, or its time is over."""
        until = now + seconds
        if now < self._until:
            if left >= self._left and (self._left < 1 or until <= self._until + _LOOK):
                return
            until = max(until, self._until)
        self._left, self._until = left, until

    def idle(self, now: float) -> bool:
        """Whether forgetting it would change nothing."""
        return now > self._due and now > self._until


class Tokens(Requests):
    """Tokens per minute. They are corrected once a call has ended, so a bucket alone could give the same room twice: what was
    really let through in each of the last seconds is counted beside it."""

    __slots__ = ("_burst", "_most", "_second", "_slots", "_total")

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self._most = limit.most
        self._burst = 0.0 if self._interval == 0 else burst(limit)
        self._slots = [0.0] * _SLOTS
        self._second = 0
        self._total = 0.0

    def wait(self, amount: Amount, now: float) -> float:
        tokens = amount.tokens if amount.tokens < self._most else self._most
        # More than the burst passes when the bucket has been full for as long as the rest of it would take to refill.
        wait = self._due + (tokens - self._burst) * self._interval - now
        second = int(now)
        if second > self._second:
            self._forget(second)
        if self._total + tokens > self._most + _ROUNDING:
            wait = max(wait, self._until_forgotten(self._total + tokens - self._most, now))
        if now < self._until and tokens > self._left:
            wait = max(wait, self._until - now)
        if wait <= _ROUNDING:
            return 0.0
        self.denied = True
        return wait

    def admit(self, amount: Amount, now: float) -> bool:
        if self.wait(amount, now):
            return False
        self._before = self._due
        self.take(amount, now)
        return True

    def retract(self, amount: Amount, now: float) -> None:
        tokens = amount.tokens if amount.tokens < self._most else self._most
        self._due = self._before
        self._slots[self._second & 63] -= tokens
        self._total -= tokens
        if now < self._until:
            self._left += tokens

    def take(self, amount: Amount, now: float) -> None:
        tokens = amount.tokens if amount.tokens < self._most else self._most
        due = self._due
        self._due = (due if due > now else now) + tokens * self._interval
        second = int(now)
        if second > self._second:
            self._forget(second)
        self._slots[second & 63] += tokens
        self._total += tokens
        if now < self._until:
            self._left -= tokens

    def settle(self, held: Amount, used: Amount, at: float, now: float) -> bool:
        more = used.tokens - (held.tokens if held.tokens < self._most else self._most)
        second = int(at)
        if more and self._second - second < _KEPT:
            self._slots[second & 63] += more
            self._total += more
        if more > 0:
            self._due += more * self._interval
            return False
        if more and self._due > now:
            self._due = max(now, self._due + more * self._interval)
        return self.denied and _told(self)

    def release(self, held: Amount, at: float, now: float) -> bool:
        return self.settle(held, _NOTHING, at, now)

    def idle(self, now: float) -> bool:
        return super().idle(now) and now - self._second > _SLOTS

    def _forget(self, second: int) -> None:
        """Let go of the seconds that are a minute past by `second`."""
        slots = self._slots
        if second - self._second >= _SLOTS:
            self._slots = [0.0] * _SLOTS
            self._total = 0.0
        else:
            for old in range(self._second + 1 - _KEPT, second + 1 - _KEPT):
                self._total -= slots[old & 63]
                slots[old & 63] = 0.0
        self._second = second

    def _until_forgotten(self, tokens: float, now: float) -> float:
        """Seconds until so many more of them are a minute past."""
        oldest = self._second + 1 - _KEPT
        for second in range(oldest, self._second + 1):
            tokens -= self._slots[second & 63]
            if tokens <= _ROUNDING:
                return second + _KEPT - now
        return self._second + _KEPT - now


class Calls:
    """Calls under way."""

    __slots__ = ("_count", "_most", "denied", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.denied = False
        self._most = max(1.0, limit.most)
        self._count = 0

    def wait(self, amount: Amount, now: float) -> float:
        if self._count + 1 <= self._most:
            return 0.0
        self.denied = True
        return UNKNOWN

    def admit(self, amount: Amount, now: float) -> bool:
        if self._count + 1 <= self._most:
            self._count += 1
            return True
        self.denied = True
        return False

    def retract(self, amount: Amount, now: float) -> None:
        self._count -= 1

    def take(self, amount: Amount, now: float) -> None:
        self._count += 1

    def settle(self, held: Amount, used: Amount, at: float, now: float) -> bool:
        self._count -= 1
        return self.denied and _told(self)

    def release(self, held: Amount, at: float, now: float) -> bool:
        self._count -= 1
        return self.denied and _told(self)

    def tighten(self, left: float, seconds: float, now: float) -> None:
        """Upstreams say nothing of calls at once."""

    def idle(self, now: float) -> bool:
        return self._count == 0


class Calendar:
    """Units of a day or a month: `spent` of calls that have ended, and `held` for those under way, which end in the period
    that is current then."""

    __slots__ = (
        "_clock",
        "_dollars",
        "_ends",
        "_enough",
        "_held",
        "_late",
        "_look",
        "_spent",
        "_used",
        "asking",
        "denied",
        "limit",
    )

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self.denied = False
        self.asking: asyncio.Task[None] | None = None
        self._clock = clock
        self._dollars = limit.unit == "dollars"
        self._enough = limit.most * (1 + _ROUNDING)
        self._ends = -inf
        self._look = -inf
        self._used = -inf
        self._spent = 0.0
        self._held = 0.0
        self._late = 0.0

    def begin(self, spent: float, ends: float) -> None:
        """Count on from `spent`, until the UNIX time `ends`."""
        # What ended while the ledger was asked may be in its answer or not. It is counted: never too little.
        self._spent, self._ends, self._late = spent + self._late, ends, 0.0
        self._look = -inf
        self.asking = None

    def wait(self, amount: Amount, now: float) -> float:
        self._used = now
        if now >= self._look:
            self._look = now + _LOOK
            if self._clock.now() >= self._ends:
                self._look = -inf
                return UNASKED
        wanted = self._spent + (amount.dollars if self._dollars else _units(self.limit, amount))
        if wanted + self._held <= self._enough:
            return 0.0
        self.denied = True
        return UNKNOWN if wanted <= self._enough else max(_ROUNDING, self._ends - self._clock.now())

    def admit(self, amount: Amount, now: float) -> bool:
        if self.wait(amount, now):
            return False
        self._held += amount.dollars if self._dollars else _units(self.limit, amount)
        return True

    def retract(self, amount: Amount, now: float) -> None:
        self._held -= amount.dollars if self._dollars else _units(self.limit, amount)

    def take(self, amount: Amount, now: float) -> None:
        self._held += amount.dollars if self._dollars else _units(self.limit, amount)

    def settle(self, held: Amount, used: Amount, at: float, now: float) -> bool:
        units = used.dollars if self._dollars else _units(self.limit, used)
        self._spent += units
        if self.asking is not None:
            self._late += units
        return self.release(held, at, now)

    def release(self, held: Amount, at: float, now: float) -> bool:
        left = self._held - (held.dollars if self._dollars else _units(self.limit, held))
        self._held = left if left > 0.0 else 0.0
        return self.denied and _told(self)

    def tighten(self, left: float, seconds: float, now: float) -> None:
        """Upstreams say nothing of our calendar."""

    def stale(self, now: float) -> bool:
        """Others have spent meanwhile. Whether the ledger is to be asked now, and not when it is used next."""
        if now - self._used < _RECENT:
            return self.asking is None and self._ends > -inf
        self._ends = self._look = -inf
        return False

    def idle(self, now: float) -> bool:
        return self._held < _ROUNDING and self.asking is None and now - self._used > _IDLE


Count = Requests | Tokens | Calls | Calendar
_NOTHING = Amount()


def count_of(limit: Limit, clock: Clock) -> Count:
    """What counts under `limit`, from nothing."""
    if limit.per in ("day", "month"):
        return Calendar(limit, clock)
    if limit.unit == "calls":
        return Calls(limit)
    return Tokens(limit) if limit.unit == "tokens" else Requests(limit)


def period_of(limit: Limit, clock: Clock) -> tuple[float, float]:
    """When the current period of `limit` began and when it ends, as UNIX times."""
    return period(clock.now(), limit.per)


def _units(limit: Limit, amount: Amount) -> float:
    if limit.unit == "dollars":
        return amount.dollars
    return amount.tokens if limit.unit == "tokens" else 1.0


def _told(count: Count) -> bool:
    """Whether somebody was denied. Asking makes it forgotten."""
    denied = count.denied
    count.denied = False
    return denied
