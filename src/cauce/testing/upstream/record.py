"""What the fake provider keeps count of, and the limits it may enforce: a second opinion on limits, ledgers and leaks."""

import asyncio
from bisect import bisect_right
from collections import Counter, deque

import msgspec

from cauce.testing.upstream.reply import Ask, Reply, Tokens

MINUTE = 60.0
"""Seconds of the sliding window."""


class Limits(msgspec.Struct, frozen=True):
    """Requests at once, and within any 60 seconds or any second, that are answered; further ones get `status`, 429 or 503 (0: no
    limit), which asks them to wait for `retry_after` seconds (None: it does not say)."""

    concurrent: int = 0
    per_minute: int = 0
    per_second: int = 0
    status: int = 429
    retry_after: float | None = None


class Exchange:
    """One request while it is being answered."""

    __slots__ = ("_record", "ask", "over", "reply")

    def __init__(self, record: "Record", ask: Ask, reply: Reply) -> None:
        self._record = record
        self.ask = ask
        self.reply = reply
        self.over = False

    def end(self, *, whole: bool) -> None:
        """The answer ends with what is written next; `whole`: and is one, no error. Only the first word counts."""
        if self.over:
            return
        self.over = True
        self._record.ended(self, whole=whole)


class Record:
    """All counts are since the start. Models are named as the requests name them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.requests: Counter[str] = Counter()
        """Generations that were asked for, by model; refused ones are not among them."""
        self.under_way: Counter[str] = Counter()
        self.most_at_once = 0
        self.most_per_minute = 0
        """The most requests that any 60 seconds had."""
        self.violations = 0
        """Requests over a limit that is enforced here."""
        self.answered: Counter[str] = Counter()
        """Answers that were sent whole, errors not among them."""
        self.served: dict[str, Tokens] = {}
        """By model, the sum of what usage was told in whole answers."""
        self.left: Counter[str] = Counter()
        """Answers whose client closed the connection first."""
        self.opened = 0
        self.closed = 0
        """Connections."""
        self.idle = asyncio.Event()
        """Set while nothing is being answered."""
        self.empty = asyncio.Event()
        """Set while nobody is connected."""
        self.idle.set()
        self.empty.set()
        self._now_under_way = 0
        self._arrivals: deque[float] = deque()

    @property
    def at_once(self) -> int:
        """Requests that are being answered now."""
        return self._now_under_way

    def most_within(self, seconds: float) -> int:
        """The most requests that so many seconds had, of those that came within the last minute."""
        arrivals = list(self._arrivals)
        return max([bisect_right(arrivals, first + seconds) - at for at, first in enumerate(arrivals)], default=0)

    def connected(self) -> None:
        """A connection was made."""
        self.opened += 1
        self.empty.clear()

    def disconnected(self) -> None:
        """One is gone."""
        self.closed += 1
        if self.closed == self.opened:
            self.empty.set()

    def admits(self, now: float) -> bool:
        """Whether one more request is within the limits; a violation is counted. `now` is a monotonic time in seconds."""
        self._forget(now)
        limits = self.limits
        full = 0 < limits.concurrent <= self._now_under_way or 0 < limits.per_minute <= len(self._arrivals)
        if 0 < limits.per_second <= len(self._arrivals):
            full |= self._arrivals[-limits.per_second] > now - 1.0
        self.violations += full
        return not full

    def begin(self, ask: Ask, reply: Reply, now: float) -> Exchange:
        """A request has come and will be answered."""
        self._forget(now)
        self._arrivals.append(now)
        self.most_per_minute = max(self.most_per_minute, len(self._arrivals))
        self._now_under_way += 1
        self.idle.clear()
        self.most_at_once = max(self.most_at_once, self._now_under_way)
        self.requests[ask.model] += 1
        self.under_way[ask.model] += 1
        return Exchange(self, ask, reply)

    def ended(self, exchange: Exchange, *, whole: bool) -> None:
        """An answer has ended."""
        model, reply = exchange.ask.model, exchange.reply
        self._now_under_way -= 1
        self.under_way[model] -= 1
        if not self._now_under_way:
            self.idle.set()
        if not whole:
            return
        self.answered[model] += 1
        if (told := reply.tokens) is not None:
            sums = self.served.get(model, Tokens(0, 0))
            self.served[model] = Tokens(
                *[getattr(sums, name) + getattr(told, name) for name in Tokens.__struct_fields__]
            )

    def _forget(self, now: float) -> None:
        while self._arrivals and self._arrivals[0] <= now - MINUTE:
            self._arrivals.popleft()
