"""The shared limiter, and what this node does alone while the server is gone: it keeps to its share of each limit.

Every reservation is noted in memory too, so that the node alone goes on from where all were. When the server is back, its figures
lack what was let through meanwhile. So for a minute, and until the last call of that time has ended, both must have room.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

import msgspec

from cauce.ports.clock import Clock
from cauce.ports.limiter import Amount, Denial, Limit, Reservation
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.stores.redis.connection import RedisConnection, RedisGone
from cauce.stores.redis.limiter import RedisLimiter

_RETURN = 63.0
"""Seconds after a return until what was let through alone is a minute past."""

MOST_SHARES = 4096

logger = logging.getLogger("cauce.stores")


class _Pair(msgspec.Struct, frozen=True):
    """A reservation here, and there if it was asked for there."""

    alone: Reservation
    shared: Reservation | None


class DegradedLimiter:
    """See `ports.limiter.Limiter`. Never fails. `nodes` is how many processes the limits are divided among."""

    def __init__(
        self, shared: RedisLimiter, alone: InprocLimiter, connection: RedisConnection, clock: Clock, nodes: int
    ) -> None:
        self._shared = shared
        self._alone = alone
        self._connection = connection
        self._clock = clock
        self._nodes = nodes
        self._shares: dict[Limit, Limit] = {}
        self._held: dict[str, _Pair] = {}
        self._number = 0
        self._lone = 0
        self._went_alone = False
        self._both_until = 0.0
        self._owed: dict[Limit, tuple[float, float]] = {}
        """Dollars, and when the last of them were spent."""
        self._working: set[asyncio.Task[None]] = set()
        connection.on_change(self._changed)

    @property
    def mode(self) -> Literal["shared", "local share"]:
        """Who decides now."""
        return "shared" if self._connection.up else "local share"

    async def reserve(self, limits: Sequence[Limit], amount: Amount) -> Reservation | Denial:
        limits = tuple(limits)
        shares = tuple([self._share(limit) for limit in limits])
        if not self._connection.up:
            return await self._reserve_alone(limits, shares, amount)
        if self._owed:
            await self._pay()
        strict = self._lone > 0 or self._clock.monotonic() < self._both_until
        alone: Reservation | None = None
        if strict:
            answer = await self._alone.reserve(shares, amount)
            if isinstance(answer, Denial):
                return _named(answer, limits)
            alone = answer
        try:
            shared = await self._shared.reserve(limits, amount)
        except RedisGone:
            if alone is not None:
                return self._kept(limits, amount, _Pair(alone, None))
            return await self._reserve_alone(limits, shares, amount)
        except BaseException:
            if alone is not None:
                await self._alone.release(alone)
            raise
        if isinstance(shared, Denial):
            if alone is not None:
                await self._alone.release(alone)
            return shared
        if alone is None:
            alone = self._alone.follow(shares, amount)
        return self._kept(limits, amount, _Pair(alone, shared))

    async def settle(self, reservation: Reservation, amount: Amount) -> None:
        pair = self._taken(reservation)
        if pair is None:
            return
        await self._alone.settle(pair.alone, amount)
        if pair.shared is not None:
            await self._surely(self._settle_shared(pair.shared, reservation, amount))
        elif amount.dollars:
            self._owe(reservation, amount)

    async def release(self, reservation: Reservation) -> None:
        pair = self._taken(reservation)
        if pair is None:
            return
        await self._alone.release(pair.alone)
        if pair.shared is not None:
            try:
                await self._shared.release(pair.shared)
            except RedisGone:
                logger.debug("what was held in Redis is let go there when its lease is over")

    async def tighten(self, limit: Limit, left: float, seconds: float) -> None:
        await self._alone.tighten(self._share(limit), left / self._nodes, seconds)
        if self._connection.up:
            try:
                await self._shared.tighten(limit, left, seconds)
            except RedisGone:
                logger.debug("what an upstream said of itself holds on this node only")

    def on_room(self, listener: Callable[[str], None]) -> None:
        self._alone.on_room(listener)
        self._shared.on_room(listener)

    async def _reserve_alone(
        self, limits: tuple[Limit, ...], shares: tuple[Limit, ...], amount: Amount
    ) -> Reservation | Denial:
        answer = await self._alone.reserve(shares, amount)
        if isinstance(answer, Denial):
            return _named(answer, limits)
        return self._kept(limits, amount, _Pair(answer, None))

    def _kept(self, limits: tuple[Limit, ...], amount: Amount, pair: _Pair) -> Reservation:
        self._number += 1
        id = str(self._number)
        self._held[id] = pair
        if pair.shared is None:
            self._lone += 1
            self._went_alone = True
        return Reservation(limits, amount, pair.alone.at, id)

    def _taken(self, reservation: Reservation) -> _Pair | None:
        pair = self._held.pop(reservation.id, None)
        if pair is not None and pair.shared is None:
            self._lone -= 1
        return pair

    def _share(self, limit: Limit) -> Limit:
        share = self._shares.get(limit)
        if share is None:
            if len(self._shares) >= MOST_SHARES:
                self._shares.clear()
            share = limit if self._nodes == 1 else msgspec.structs.replace(limit, most=limit.most / self._nodes)
            self._shares[limit] = share
        return share

    def _owe(self, reservation: Reservation, amount: Amount) -> None:
        """Note what the server has not been told of spending. What it does not know of tokens and calls is past when it is back."""
        for limit in reservation.limits:
            if limit.unit == "dollars":
                self._add(limit, amount.dollars, self._clock.now())

    def _add(self, limit: Limit, dollars: float, at: float) -> None:
        before, last = self._owed.get(limit, (0.0, at))
        self._owed[limit] = before + dollars, max(last, at)

    async def _settle_shared(self, shared: Reservation, reservation: Reservation, amount: Amount) -> None:
        try:
            await self._shared.settle(shared, amount)
        except RedisGone:
            self._owe(reservation, amount)

    async def _surely(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, though the caller leaves meanwhile: money must not be forgotten by that."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        await asyncio.shield(task)

    async def _pay(self) -> None:
        owed, self._owed = self._owed, {}
        await self._surely(self._told(owed))

    async def _told(self, owed: dict[Limit, tuple[float, float]]) -> None:
        try:
            await self._shared.owe(owed)
        except RedisGone:
            for limit, (dollars, at) in owed.items():
                self._add(limit, dollars, at)

    def _changed(self, up: bool) -> None:
        if up and self._went_alone:
            self._went_alone = False
            self._both_until = self._clock.monotonic() + _RETURN


def _named(denial: Denial, limits: tuple[Limit, ...]) -> Denial:
    """`denial` of a share, told as that of the whole limit."""
    for limit in limits:
        if limit.key == denial.limit.key:
            return Denial(limit, denial.wait)
    return denial
