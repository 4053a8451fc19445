"""Streams that nobody writes any more, because the process that did has ended: they are gone on with.

    claim -> fold the log -> close the bill of the attempt that went down -> a producer goes on from what readers have

A stream of which a cancel was requested gets its end. So does one that nothing may go on with.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta
from cauce.domain.errors import CauceError, DeadlineExceeded, Gone, InternalError
from cauce.domain.stream import AttemptRow, Commit, Head, History, Hold, State, StreamKey, Unreadable, claimed
from cauce.engine import ending
from cauce.engine.policies.deadline import seconds_of
from cauce.engine.streams.bills import Bills, Past
from cauce.engine.streams.commits import NOWHERE, Begun, Commits
from cauce.engine.streams.options import StreamOptions, options_of, shown_as
from cauce.engine.streams.orphan import Orphan, bounds_of, unanswered
from cauce.engine.streams.settings import Life
from cauce.engine.turn import Turn
from cauce.ports.attachable import give_up
from cauce.ports.cache import NO_CACHE
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Course
from cauce.ports.resilience import RecoverySettings
from cauce.ports.stream_log import Cancelled, Fenced, LogUnavailable, StreamLog, unreadable

_LOOK = 100
"""Orphans that are looked for at a time."""

_NAMED = 10
"""Streams that are named in the log of the server at a time."""

AT_ONCE = 64
"""Orphans that are claimed, read and begun at a time: whoever claims one is to go on with it soon, or another had better."""

SETTLING = 10.0
"""Seconds after the start in which a model that is not there may still be found: servers of this machine are looked for."""

_LEAST_TAKEOVERS = 3
"""Takeovers of a stream that has given nothing, before it is taken for the reason that processes end."""

logger = logging.getLogger("cauce.streams")


Begin = Callable[[Orphan], None]


class Takeover:
    """`begin` is called with a stream that is to be gone on with, `drop` with the hold of one that came to nothing. `busy` says whether
    this process has not let go of a stream yet: it lost it, and closes its upstream."""

    def __init__(
        self,
        log: StreamLog,
        turn: Turn,
        clock: Clock,
        bills: Bills,
        begin: Begin,
        drop: Callable[[Hold], None],
        busy: Callable[[StreamKey], bool],
    ) -> None:
        self._log = log
        self._turn = turn
        self._clock = clock
        self._bills = bills
        self._begin = begin
        self._drop = drop
        self._busy = busy
        self._room = asyncio.Semaphore(AT_ONCE)
        self._claimed: dict[StreamKey, Hold] = {}
        self._left_alone: dict[StreamKey, float] = {}
        """Those that this version cannot read: another may, up to that time (UNIX, in seconds)."""
        self._began = clock.monotonic()
        self._at_work = asyncio.Lock()
        self._stopped = False
        self.taken = 0
        """Streams that were taken over so far."""
        self.ended: Counter[State] = Counter()
        """How those among them ended that were not gone on with."""

    async def adopt(self, node: str, life: Life) -> int:
        """Take every stream over whose holder is gone, as `node`; returns how many those were. Raises `LogUnavailable`."""
        async with self._at_work:
            return await self._adopted(node, life)

    @property
    def claimed(self) -> Sequence[Hold]:
        """What is ours and is not begun yet."""
        return list(self._claimed.values())

    async def stop(self) -> None:
        """Take no more streams over; returns once those that are being taken have been begun."""
        self._stopped = True
        async with self._at_work:
            pass

    async def _adopted(self, node: str, life: Life) -> int:
        taken: list[str] = []
        while not self._stopped:
            found = await self._nobodys(life)
            outcomes = await asyncio.gather(*[self._take(head, node, life) for head in found], return_exceptions=True)
            for head, outcome in zip(found, outcomes, strict=True):
                if isinstance(outcome, LogUnavailable) or not isinstance(outcome, bool | Exception):
                    raise outcome
                if isinstance(outcome, Exception):
                    logger.error("stream %s: it cannot be taken over", head.key.id, exc_info=outcome)
            if True not in outcomes:
                # All of them are others' now, or have to wait.
                break
            taken += [head.key.id for head, outcome in zip(found, outcomes, strict=True) if outcome is True]
            self.taken += outcomes.count(True)
        if taken:
            logger.warning("took over %s that another process had left open: %s", _counted(taken), _named(taken))
        return len(taken)

    async def _nobodys(self, life: Life) -> Sequence[Head | Unreadable]:
        """Some of the orphans that may be taken over here."""
        limit = _LOOK
        while True:
            found = await self._log.orphans(limit)
            some = [head for head in found if not self._is_left_alone(head) and not self._busy(head.key)]
            if some or len(found) < limit:
                return some[:_LOOK]
            # All of them have to wait, and others may be behind them.
            limit += _LOOK

    async def _take(self, head: Head | Unreadable, node: str, life: Life) -> bool:
        """Whether it was ours to take. Raises `LogUnavailable`."""
        async with self._room:
            if self._stopped:
                return False
            if isinstance(head, Unreadable):
                call, waits = unreadable(head.key), self._is_anothers(head, life.recovery)
            else:
                call = self._call(head, _options(head))
                waits = self._is_to_wait(head, call)
            if waits:
                return False
            hold = await self._log.claim(head, node)
            if hold is None:
                return False
            self._claimed[head.key] = hold
            try:
                return await self._taken(head, hold, call, life)
            except Fenced:
                return False
            except BaseException as error:
                # Nobody would ever go on with what we hold and do not write.
                self._drop(hold)
                if isinstance(error, LogUnavailable):
                    logger.error("stream %s: it cannot be taken over now", head.key.id)
                raise
            finally:
                del self._claimed[head.key]

    async def _taken(self, head: Head | Unreadable, hold: Hold, call: Call | CauceError, life: Life) -> bool:
        """Whether what we hold now is gone on with, or has ended. Raises `Fenced`, `LogUnavailable`."""
        orphan: Orphan | None = None
        try:
            if isinstance(head, Unreadable):
                begun = Begun(claimed(head.state), text=head.state != "queued")
                await self._finished(hold, begun, head, (), unreadable(head.key))
                return True
            # What its old holder wrote last may have come after the look that found it.
            history = await self._log.history(hold.key)
            head = history.head
            if history.deltas is None or history.attempts is None:
                return await self._is_unreadable(history, hold, bounds_of(call, (), life))
            orphan = self._decided(self._found(history, hold, call), life)
            now = await self._settled(orphan)
        except (LogUnavailable, Fenced):
            raise
        except Gone as error:
            logger.error("%s: it is not gone on with", error.message)
            self._drop(hold)
            raise Fenced from error
        except Exception:
            logger.exception("stream %s: an unexpected error ended it as it was taken over", head.key.id)
            begun = Begun(head.state, text=head.state != "queued") if orphan is None else orphan.begun
            await self._finished(hold, begun, head, (), InternalError("an unexpected error ended the stream"))
            return True
        if now is not None and self._stopped and life.lasting:
            # The process ends: whoever comes next need not wait for our lease.
            self._drop(now)
            return False
        if now is None or orphan.call is None or orphan.call.upstream is None:
            give_up(call.candidates if isinstance(call, Call) else (), head.upstream)
        if now is not None:
            self._begin(msgspec.structs.replace(orphan, hold=now))
        return True

    async def _is_unreadable(self, history: History, hold: Hold, bounds: RecoverySettings) -> bool:
        """Whether the stream, whose log cannot be read, has ended for that."""
        head = history.head
        error = unreadable(head.key)
        if self._is_anothers(head, bounds):
            self._drop(hold)
            return False
        if history.attempts is None:
            logger.error("stream %s: what its attempts have used cannot be read either", head.key.id)
        begun = self._found(history, hold, error).begun
        await self._finished(hold, msgspec.structs.replace(begun, text=head.state != "queued"), head, (), error)
        return True

    def _is_anothers(self, head: Head | Unreadable, bounds: RecoverySettings) -> bool:
        """Whether the stream, which cannot be read here, is left alone. A process of another version may go on with it as long as it is
        young, and nobody has cancelled it."""
        if head.cancel_requested or self._is_old(head, bounds):
            return False
        logger.error("%s: it is left to a process that can", unreadable(head.key).message)
        self._left_alone[head.key] = head.created + bounds.age
        return True

    def _is_left_alone(self, head: Head | Unreadable) -> bool:
        until = self._left_alone.get(head.key)
        if until is not None and (head.cancel_requested or self._clock.now() > until):
            del self._left_alone[head.key]
            until = None
        return until is not None

    def _is_old(self, head: Head | Unreadable, bounds: RecoverySettings) -> bool:
        return self._age(head) > bounds.age

    def _age(self, head: Head | Unreadable) -> float:
        """Seconds since it was created. The clock of who created it may be ahead of ours."""
        return max(0.0, self._clock.now() - head.created)

    def _call(self, head: Head, options: StreamOptions | None) -> Call | CauceError:
        """The call that was made for the stream, made anew."""
        if options is None or options.scope is None:
            return ending.cut_short()
        request = msgspec.structs.replace(head.request, privacy="local") if options.private else head.request
        try:
            call = self._turn.call(
                request,
                options.scope,
                request_id=options.request_id,
                streamed=True,
                cache=NO_CACHE,
                stream_id=head.key.id,
                logged=True,
            )
        except CauceError as error:
            return error
        return shown_as(call, options)

    def _is_to_wait(self, head: Head, call: Call | CauceError) -> bool:
        """Whether whom it needs may still be found."""
        if head.cancel_requested or self._clock.monotonic() - self._began > SETTLING:
            return False
        if isinstance(call, CauceError):
            return call.code == "model_not_found"
        return bool(call.candidates) and all([candidate.level == "offline" for candidate in call.candidates])

    def _found(self, history: History, hold: Hold, call: Call | CauceError) -> Orphan:
        """The stream with what is in its log, as far as that can be read."""
        head, deltas = history.head, history.deltas or ()
        candidates = call.candidates if isinstance(call, Call) else ()
        options = _options(head) or StreamOptions()
        past = Past(head, options, deltas, candidates)
        closed: list[AttemptRow] = []
        open: list[AttemptRow] = []
        for row in history.attempts or ():
            if row.outcome is None:
                used = row.usage or self._bills.received(past, row)
                open.append(msgspec.structs.replace(row, usage=used, outcome="failed"))
            else:
                closed.append(row)

        def settle(failed: Sequence[AttemptRow]) -> None:
            for row in failed:
                entry = self._bills.entry(past, row, self._clock.now())
                if entry is not None:
                    self._bills.write(entry)

        made, why = (call, ending.cut_short()) if isinstance(call, Call) else (None, call)
        return Orphan(head, hold, options, deltas, tuple(closed), tuple(open), made, why, settle)

    def _decided(self, orphan: Orphan, life: Life) -> Orphan:
        """With the call that goes on with it, if one is to."""
        head, call = orphan.head, orphan.call
        if call is None or head.cancel_requested or not self._may_go_on(orphan, call, life):
            return msgspec.structs.replace(orphan, call=None)
        left = seconds_of(call) - self._age(head)
        if left <= 0:
            late = DeadlineExceeded("the time for this call was used up while its server was down")
            return msgspec.structs.replace(orphan, call=None, why=late)
        attempts = [delta for delta in orphan.deltas if isinstance(delta, Attempt)]
        last = max([attempt.n for attempt in attempts], default=0)
        missed = any([attempt.missed for attempt in attempts])
        shown = orphan.begun.shown
        going_on = msgspec.structs.replace(
            call,
            deadline=self._clock.monotonic() + left,
            begun=orphan.deltas if shown else (),
            upstream=head.upstream if shown and head.upstream != NOWHERE else None,
            course=Course(attempts=last, cache="miss" if missed else "none"),
            after=ending.cut_off() if last else None,
            strategy="again" if last else "open",
        )
        return msgspec.structs.replace(orphan, call=going_on)

    def _may_go_on(self, orphan: Orphan, call: Call, life: Life) -> bool:
        head, bounds = orphan.head, bounds_of(call, orphan.deltas, life)
        if head.epoch > 1 + max(bounds.attempts, _LEAST_TAKEOVERS):
            return False
        if life.keeps_here(private=call.private):
            # Nothing of it may be written where others read it; that it is there is another server's configuration, or version.
            return False
        if self._is_old(head, bounds):
            return False
        if not orphan.begun.shown:
            return True
        # What can be gone on with, and what begins anew, is for recovery to say: it knows the same of an answer whose provider failed.
        forbidden = any([candidate.midstream == "fail" for candidate in call.candidates[:1]])
        return bool(bounds.attempts) and not forbidden

    async def _settled(self, orphan: Orphan) -> Hold | None:
        """The hold, once what is to be said of its past is said; None once the stream has ended instead."""
        hold, left = orphan.hold, tuple(unanswered(orphan.deltas))
        if orphan.call is not None and not orphan.head.cancel_requested:
            try:
                return await self._log.append(hold, Commit(left)) if left else hold
            except Cancelled:
                pass
        await self._finished(hold, orphan.begun, orphan.head, left, orphan.why)
        return None

    async def _finished(
        self, hold: Hold, begun: Begun, head: Head | Unreadable, left: Sequence[Delta], error: CauceError
    ) -> None:
        """End the stream: as cancelled where that was asked for, else with `left` and `error`."""
        if not head.cancel_requested:
            commits = Commits(begun)
            finish = ending.failed(error, commits.used(None), text_delivered=begun.text)
            try:
                await self._write(hold, commits, (*left, finish))
                return
            except Cancelled:
                head = await self._log.head(head.key) or head
        commits = Commits(begun)
        await self._write(hold, commits, (ending.cancelled(commits.used(None), head.cancel_reason or ""),))

    async def _write(self, hold: Hold, commits: Commits, deltas: Sequence[Delta]) -> None:
        commit = commits.commit(deltas)
        await self._log.append(hold, commit)
        commits.written(commit)
        self.ended[commits.state] += 1


def _counted(ids: Sequence[str]) -> str:
    return "1 stream" if len(ids) == 1 else f"{len(ids)} streams"


def _named(ids: Sequence[str]) -> str:
    rest = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _options(head: Head) -> StreamOptions | None:
    """What was decided at its creation; None if that cannot be read."""
    try:
        return options_of(head) if head.policy else None
    except msgspec.MsgspecError:
        return None
