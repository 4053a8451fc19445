"""One call for everybody who asks the same while it is under way.

    the call's deltas -> a task of its own -> what has come so far -> members, each at its own place

The first member leads: the call is its call, and it is told all that goes on. Others follow: they get every delta from the first
on, as it comes. A member may leave at any time; when the last one has, the call is closed. What has come is kept whole until it
is larger than one answer may be; from then on nobody can join, and the slowest members are let go when the fastest
has read on. Who has been shown nothing may be sent elsewhere: `Moved`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Status, Text, delta_size
from cauce.domain.errors import CauceError, InternalError, Overloaded
from cauce.domain.request import Scope
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Deltas, Open, unreported

_A_DELTA = 100
"""Bytes that a delta takes beside its text."""

logger = logging.getLogger("cauce.cache")


class Moved(Exception):
    """This flight is not the one to wait for any more, but `to`, if that is known. Nothing of it was shown."""

    def __init__(self, to: "Flight | None") -> None:
        super().__init__()
        self.to = to


def owner(call: Call) -> tuple[Scope, str | None]:
    """Whose limits and budgets hold for `call`."""
    return call.scope, call.request.user


class Member:
    """Somebody who reads a flight for `call`. `place` is the number of the batch that is read next; -1: it is to go elsewhere."""

    __slots__ = ("call", "leads", "notice", "place", "to", "waiting")

    def __init__(self, call: Call, *, leads: bool) -> None:
        self.call = call
        self.notice = call.notice
        self.leads = leads
        self.place = 0
        self.to: Flight | None = None
        self.waiting: asyncio.Future[None] | None = None

    def move(self, to: "Flight | None" = None) -> None:
        """Have it go elsewhere, unless it has been shown something."""
        if not self.place:
            self.place = -1
            self.to = to
            self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


class Flight:
    """`key` names the answer; `most` bounds what is kept of it, in bytes.

    `landed` is told when no more may join. `attempt` is who answers, once somebody is asked. `failed` is why it broke. `admitted` is
    told when a model is asked for it, before that has answered.
    """

    def __init__(
        self,
        call: Call,
        key: bytes,
        most: int,
        landed: "Callable[[Flight], None]",
        admitted: "Callable[[Flight], None]",
    ) -> None:
        self.key = key
        self.call = msgspec.structs.replace(call, notice=self._told)
        self.attempt: Attempt | None = None
        self.failed: CauceError | None = None
        self.whole = True
        self._most = most
        self._landed = landed
        self._admitted = admitted
        self._members: dict[Member, None] = {Member(call, leads=True): None}
        """In the order they came, which is that they are woken in: who has waited longest goes first."""
        self._batches: list[Sequence[Delta]] = []
        self._gone = 0
        self._size = 0
        self._finished = False
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.opened: Deltas | None = None
        """What the call gives, once it is open."""

    @property
    def deltas(self) -> list[Delta]:
        """What has come so far, if it is still whole."""
        return [delta for batch in self._batches for delta in batch]

    @property
    def asked(self) -> bool:
        """Whether a model is asked, so that it waits behind no limits."""
        attempt = self.attempt
        return attempt is not None and attempt.level in ("primary", "fallback") and not self.call.course.queued

    @property
    def begun(self) -> bool:
        """Whether a delta has come."""
        return bool(self._batches) or self._gone > 0

    def so_far(self) -> Usage:
        """What the call has used by now, as far as can be told."""
        return self.opened.used if self.opened is not None else unreported()

    def lead(self, open: Open, keep: "Callable[[Flight], Awaitable[None]]") -> AsyncGenerator[Sequence[Delta], None]:
        """Start; the batches for whoever made the call. `keep` is called with the flight when the answer has ended well."""
        [member] = self._members
        self._task = asyncio.create_task(self._fly(open, keep))
        return self._read(member)

    def follow(self, call: Call) -> AsyncGenerator[Sequence[Delta], None]:
        """The batches for `call` of somebody else, from the first on. Its notice is told of the wait, not of the attempts."""
        member = Member(call, leads=False)
        self._members[member] = None
        return self._read(member)

    def give_way(self, to: "Flight") -> None:
        """Close the call, for which no model is asked yet: its members are answered by `to`."""
        assert self._task is not None, "a flight that gives way has started"
        self._landed(self)
        self._task.cancel()
        for member in self._members:
            member.move(to)

    async def _fly(self, open: Open, keep: "Callable[[Flight], Awaitable[None]]") -> None:
        try:
            deltas = self.opened = await open(self.call)
            try:
                while not self._finished:
                    await self._add(await deltas.read())
            finally:
                await deltas.aclose()
            if self.whole:
                await keep(self)
        except CauceError as error:
            self.failed = error
        except Exception:
            logger.exception("%s: an unexpected error ended a shared call", self.call.request_id)
            self.failed = InternalError("an unexpected error ended the answer")
        finally:
            if not self._finished and self.failed is None:
                self.failed = Overloaded("the server shut down before the answer was complete", retry_after=1)
            self._landed(self)
            self._wake()

    async def _add(self, batch: Sequence[Delta]) -> None:
        self._batches.append(batch)
        self._size += _weight(batch)
        self._finished = isinstance(batch[-1], Finish)
        self._wake()
        if self._size <= self._most:
            return
        if self.whole:
            self.whole = False
            self._landed(self)
        while self._size > self._most and self._batches and not self._finished:
            if any([member.place > self._gone for member in self._members]):
                self._size -= _weight(self._batches.pop(0))
                self._gone += 1
            else:
                self._room = asyncio.get_running_loop().create_future()
                await self._room

    async def _read(self, member: Member) -> AsyncGenerator[Sequence[Delta], None]:
        try:
            while True:
                batch = await self._next(member)
                yield batch
        finally:
            await self._leave(member)

    async def _next(self, member: Member) -> Sequence[Delta]:
        """The batch at the member's place, once it is there. Raises what broke the call."""
        while True:
            index = member.place - self._gone
            if index < 0:
                if member.place < 0:
                    raise Moved(member.to)
                raise Overloaded("the answer came faster than it was read, and is too large to wait for its reader")
            if index < len(self._batches):
                member.place += 1
                self._progress()
                return self._batches[index]
            if self.failed is not None:
                # Everybody raises the same one: it must not gather what each of them did with it.
                raise self.failed.with_traceback(None)
            member.waiting = asyncio.get_running_loop().create_future()
            await member.waiting

    async def _leave(self, member: Member) -> None:
        self._members.pop(member, None)
        if self._members or self._finished or self.failed is not None:
            self._progress()
            return
        # Nobody is left to read it. Whoever leaves last sees the upstream closed.
        assert self._task is not None, "a member reads a flight that has started"
        self._landed(self)
        self._task.cancel()
        await asyncio.wait({self._task})

    def _told(self, delta: Status | Attempt) -> None:
        call = self.call
        if isinstance(delta, Attempt):
            self.attempt = delta
            if call.course.bound:
                # It may be shorter than what the others would be given.
                self._turn_away(lambda other: owner(other) != owner(call))
            elif self.asked and not self.begun:
                self._admitted(self)
        elif call.course.queued:
            self._turn_away(lambda other: other.scope.principal != call.scope.principal)
        for member in tuple(self._members):
            if member.leads or isinstance(delta, Status):
                member.notice(delta)

    def _turn_away(self, which: Callable[[Call], bool]) -> None:
        for member in self._members:
            if not member.leads and which(member.call):
                member.move()

    def _wake(self) -> None:
        for member in self._members:
            member.wake()

    def _progress(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _weight(batch: Sequence[Delta]) -> int:
    size = _A_DELTA * len(batch)
    for delta in batch:
        size += len(delta.text) if type(delta) is Text else delta_size(delta)
    return size
