"""The limiter that several processes share, in Redis: one script, one round trip per call."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cauce.ports.clock import Clock
from cauce.ports.ids import Ids
from cauce.ports.limiter import Amount, Denial, Limit, Per, Reservation, Unit
from cauce.stores.inproc.limiter import Spent, nothing_spent
from cauce.stores.redis.connection import RedisConnection, RedisGone
from cauce.stores.refill import burst, interval, period

LEASE = 30.0
"""Seconds a call under way is believed in without a word from its node."""

_RENEWALS = 3
_LISTEN = 5.0
"""Seconds the wait for news of room lasts before it begins anew."""

_BATCH = 200

_AGAIN = 0.1
"""Seconds between looks whether the others have said what they know of a sum that was lost."""

_MOST_SUMS = 4096
"""Sums that are remembered before those of periods that are over are looked for."""

logger = logging.getLogger("cauce.stores")


class _Sum(msgspec.Struct, frozen=True):
    """A sum of the calendar that this process has told its part of: when its period ends, and what tells it from one before it was lost."""

    ends: float
    name: float


class RedisLimiter:
    """See `ports.limiter.Limiter`. Everything raises `RedisGone` while the server is gone: `stores.redis.degraded` is put around it.

    `spent` is what the ledger of `node` knows, which several processes may share; `nodes` is how many processes there are.
    `start` begins to renew the leases of calls under way and to listen for room; `aclose` ends that. `time` (UNIX) takes the place of
    the server's own: for tests, in which it stands still.
    """

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        ids: Ids,
        spent: Spent = nothing_spent,
        time: Callable[[], float] | None = None,
        *,
        node: str = "",
        nodes: int = 1,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._ids = ids
        self._spent = spent
        self._time = time
        self._node = node
        self._nodes = nodes
        self._process = ids.new("proc")
        # One hash tag: all keys of a call are in one slot of a cluster.
        self._prefix = connection.key("{limits}:")
        self._channel = connection.key("room")
        self._sums_channel = self._channel + ":sums"
        self._text = files("cauce.stores.redis").joinpath("limiter.lua").read_text("utf-8")
        self._script: Any = None
        self._leased: dict[str, tuple[tuple[str, ...], Reservation]] = {}
        """By id what is held, and the keys it is held under."""
        self._sums: dict[str, _Sum] = {}
        """By the keys of their limits."""
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._most_sums = _MOST_SUMS
        self._listeners: list[Callable[[str], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._pending: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def start(self) -> None:
        """Keep leases alive, and listen."""
        self._tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._listen())]

    async def aclose(self) -> None:
        """End that. What is being settled is settled first."""
        # The driver may swallow a cancel.
        self._closing = True
        await asyncio.gather(*self._pending, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def reserve(self, limits: Sequence[Limit], amount: Amount) -> Reservation | Denial:
        limits = tuple(limits)
        id = self._ids.new("lim")
        while True:
            try:
                verdict, index, figure = await self._run("reserve", limits, [_asked(one, amount) for one in limits], id)
            except asyncio.CancelledError:
                # It may have been debited before the word of it was lost.
                self._detach(self._end("release", Reservation(limits, amount, self._clock.now(), id), Amount()))
                raise
            if verdict == 1:
                leased = tuple([one.key for one in limits if one.unit in ("calls", "dollars") or one.per != "minute"])
                reservation = Reservation(limits, amount, figure, id)
                if leased:
                    self._leased[id] = leased, reservation
                return reservation
            limit = limits[index - 1]
            if verdict == 0:
                return Denial(limit, figure or None)
            await self._tell(limit, figure)

    async def settle(self, reservation: Reservation, amount: Amount) -> None:
        await self._finish("settle", reservation, amount)

    async def release(self, reservation: Reservation) -> None:
        await self._finish("release", reservation, Amount())

    async def tighten(self, limit: Limit, left: float, seconds: float) -> None:
        await self._run("tighten", (limit,), [("r", _text(left), _text(seconds), "0", "0")])

    def on_room(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def owe(self, owed: dict[Limit, tuple[float, float]]) -> None:
        """Add what was spent while the server was away: dollars, and when the last of them were."""
        arguments = [("d", _text(dollars), _text(at), "0", "0") for dollars, at in owed.values()]
        await self._run("owe", tuple(owed), arguments)

    async def _tell(self, limit: Limit, now: float, *, patiently: bool = True) -> None:
        """Tell our part of the sum of `limit`, once for all who wait for it. A task: one of them may leave."""
        task = self._telling.get(limit.key)
        if task is None:
            task = self._telling[limit.key] = self._detach(self._told(limit, now, patiently=patiently))
            task.add_done_callback(lambda _: self._telling.pop(limit.key, None))
        await asyncio.shield(task)

    async def _told(self, limit: Limit, now: float, *, patiently: bool) -> None:
        """Add what our ledger knows of the sum of `limit`, unless that is in it. `patiently`: wait until the sum may be used."""
        began, ends = period(now, limit.per)
        while True:
            asked = self._clock.now()
            _, _, late = await self._run("late", (limit,), [])
            spent = await self._spent(limit, began)
            known = self._sums.get(limit.key)
            lost = known is not None and known.ends == ends
            held = self._held(limit)
            about = ("d", _text(spent), _text(late), _text(ends), str(int(lost)))
            usable, _, name = await self._run("begin", (limit,), [about, (str(self._nodes), *held)], at=asked)
            for id in held[::2]:
                if id not in self._leased:
                    # It has ended meanwhile.
                    await self._run("release", (limit,), [("d", "0/0", "0", "0", "0")], id)
            self._remember(limit.key, _Sum(ends, name), now)
            if usable or not patiently:
                return
            await self._clock.sleep(_AGAIN)

    def _held(self, limit: Limit) -> list[str]:
        """Id and units of all that this process holds under `limit`, one after the other."""
        flat: list[str] = []
        for id, (keys, reservation) in self._leased.items():
            if limit.key in keys:
                flat += (id, _text(_units(limit, reservation.amount)))
        return flat

    def _remember(self, key: str, sum: _Sum, now: float) -> None:
        if len(self._sums) >= self._most_sums:
            self._sums = {each: known for each, known in self._sums.items() if known.ends > now}
            self._most_sums = max(_MOST_SUMS, 2 * len(self._sums))
        self._sums[key] = sum

    async def _finish(self, operation: str, reservation: Reservation, amount: Amount) -> None:
        """A caller that leaves meanwhile does not stop it."""
        self._leased.pop(reservation.id, None)
        await asyncio.shield(self._detach(self._end(operation, reservation, amount)))

    async def _end(self, operation: str, reservation: Reservation, amount: Amount) -> None:
        limits, held = reservation.limits, reservation.amount
        arguments = [_ended(one, held, amount) for one in limits]
        await self._run(operation, limits, arguments, reservation.id, reservation.at)

    def _detach(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        # Nobody may be left to hear that the server is gone.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _run(
        self,
        operation: str,
        limits: tuple[Limit, ...],
        arguments: list[tuple[str, ...]],
        id: str = "",
        at: float = 0.0,
    ) -> tuple[int, int, float]:
        keys = [self._prefix + limit.key for limit in limits]
        flat = [*self._head(operation, id, at), *[one for each in arguments for one in each]]

        async def command(redis: Redis) -> Any:
            if self._script is None:
                self._script = redis.register_script(self._text)
            return await self._script(keys, flat)

        verdict, index, figure = cast("tuple[int, int, bytes]", await self._connection.run(command))
        return verdict, index, float(figure)

    def _head(self, operation: str, id: str, at: float = 0.0) -> list[str]:
        now = "" if self._time is None else _text(self._time())
        return [operation, id, _text(LEASE), self._channel, _text(at), now, self._node, self._process]

    async def _renew(self) -> None:
        while not self._closing:
            await self._clock.sleep(LEASE / _RENEWALS)
            leased = [(id, keys) for id, (keys, _) in self._leased.items()]
            with contextlib.suppress(RedisGone):
                for first in range(0, len(leased), _BATCH):
                    await self._renewed(leased[first : first + _BATCH])

    async def _renewed(self, leased: list[tuple[str, tuple[str, ...]]]) -> None:
        async def command(redis: Redis) -> None:
            if self._script is None:
                self._script = redis.register_script(self._text)
            async with redis.pipeline(transaction=False) as pipeline:
                for id, names in leased:
                    keys = [self._prefix + name for name in names]
                    await self._script(keys, self._head("renew", id), client=pipeline)
                await pipeline.execute()

        await self._connection.run(command)

    async def _listen(self) -> None:
        while not self._closing:
            try:
                await self._connection.last(self._hear)
            except RedisGone:
                await self._clock.sleep(1.0)

    async def _hear(self, redis: Redis) -> None:
        subscription: Any = cast(Any, redis).pubsub(ignore_subscribe_messages=True)
        try:
            await subscription.subscribe(self._channel, self._sums_channel)
            await self._look(redis)
            while not self._closing:
                message = await subscription.get_message(timeout=_LISTEN)
                if message is None:
                    continue
                told = message["data"].decode("utf-8", "replace")
                if message["channel"].decode() == self._sums_channel:
                    kind, name, born, key = told.split(" ", 3)
                    self._begun(key.removeprefix(self._prefix), float(name), float(born), lost=kind == "lost")
                else:
                    for listener in self._listeners:
                        listener(told.removeprefix(self._prefix))
        finally:
            with contextlib.suppress(RedisError, OSError):
                await subscription.aclose()

    async def _look(self, redis: Redis) -> None:
        """What of our sums was begun anew while nobody told us."""
        known = list(self._sums)
        for first in range(0, len(known), _BATCH):
            some = known[first : first + _BATCH]
            async with redis.pipeline(transaction=False) as pipeline:
                for key in some:
                    pipeline.hmget(self._prefix + key, ["name", "born"])
                answers = await pipeline.execute()
            for key, (name, born) in zip(some, answers, strict=True):
                if name is not None:
                    self._begun(key, float(name), float(born), lost=False)

    def _begun(self, key: str, name: float, born: float, *, lost: bool) -> None:
        """A sum was begun. Whoever knows an earlier one of this period tells its part again, and all do so where it was `lost`."""
        known = self._sums.get(key)
        if known is not None and known.name == name:
            return
        if lost or (known is not None and known.ends > born):
            unit, _, per = key.rpartition(":")[2].partition("/")
            limit = Limit(key, cast(Unit, unit), cast(Per, per), 0.0)
            self._detach(self._tell(limit, born, patiently=False))


def _text(figure: float) -> str:
    return f"{figure:.9f}"


def _asked(limit: Limit, amount: Amount) -> tuple[str, ...]:
    """What the script needs to know of `limit`, and what is asked of it."""
    if limit.per in ("day", "month"):
        return "d", _text(_units(limit, amount)), _text(limit.most), "0", "0"
    if limit.unit == "calls":
        return "c", "1", _text(max(1.0, limit.most)), "0", "0"
    each = interval(limit)
    at_once = burst(limit) if each else 0.0
    if limit.unit == "tokens":
        return "t", _text(_units(limit, amount)), f"{each:.17g}", _text(at_once), _text(limit.most)
    return "r", "1", f"{each:.17g}", _text((at_once - 1) * each if each else 0.0), "0"


def _ended(limit: Limit, held: Amount, used: Amount) -> tuple[str, ...]:
    kind, units, *rest = _asked(limit, held)
    really = used.tokens if limit.unit == "tokens" else used.dollars if limit.unit == "dollars" else 1.0
    return kind, f"{units}/{_text(really)}", *rest


def _units(limit: Limit, amount: Amount) -> float:
    if limit.unit == "dollars":
        return amount.dollars
    if limit.unit != "tokens":
        return 1.0
    return min(amount.tokens, limit.most) if limit.per == "minute" else amount.tokens
