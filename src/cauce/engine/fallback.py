"""The cascade: candidates are asked in order until one has its first delta in hand.

Before that nobody has seen anything, so moving on is free of side effects. Each candidate gets its share of the time that
is left, so that the last ones are reached before the client gives up.

| what became of a candidate | what follows |
|---|---|
| it failed | the next one, unless its failure is the caller's own mistake |
| our limits have no room for it, or it refused the call as one too many | the next one; after the last the call waits, if it does that, and gets no less than a model |
| the call does not fit a budget, or its circuit is open | the next one |
| it was the last model | an answer of before, then the offline answerer; if nobody was asked, a probe of the model that may soonest be well |
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from cauce.domain.errors import (
    DENIALS,
    CauceError,
    CircuitOpen,
    DeadlineExceeded,
    ProviderFailure,
    Throttled,
    may_ask_next,
)
from cauce.engine.hedging import race
from cauce.engine.policies.patience import LONG
from cauce.engine.policies.retry import Allowances
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy

MIN_SHARE = 5.0
"""Seconds a candidate gets at least, however many wait behind it (but never beyond the deadline)."""

Stale = Callable[[Call], Awaitable[Deltas | None]]
"""An answer of before that is older than one would like, if there is one."""

_SLACK = 0.1
"""Seconds a candidate's own total may reach beyond the deadline: where they are the same, they differ by what passed since."""

logger = logging.getLogger("cauce.calls")


def fallback(
    clock: Clock, stale: Stale | None = None, *, queued: bool = False, allowances: Allowances | None = None
) -> Policy:
    """Ask `call.candidates` one after the other through `open`, which sees one candidate at a time.

    `queued`: somebody above waits for room when `Throttled` is raised, for calls that wait. A second model is asked beside a slow
    one only while `allowances` has a retry left for it. Raises `Throttled`, the last model's error, and `DeadlineExceeded` when the
    time was used up.
    """

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidates = call.candidates
            first = candidates[0]
            last = len(candidates) == 1 or not _has_model(candidates[1:])
            asked = _narrowed(call, first, _remaining(clock, call), len(candidates), last=last)
            if first.hedge is None or last:
                try:
                    return await open(asked)
                except CauceError as error:
                    cascade = _Cascade(clock, open, call)
                    cascade.failed(first, error)
            else:
                cascade = _Cascade(clock, open, call)
                if (deltas := await cascade.hedged(asked, first.hedge, allowances)) is not None:
                    return deltas
            if (deltas := await cascade.models()) is not None:
                return deltas
            if queued and call.waits and (denied := cascade.crowded()) is not None:
                raise denied
            if stale is not None and first.level != "offline" and (deltas := await stale(call)) is not None:
                return deltas
            return await cascade.rest()

        return opened

    return policy


class _Cascade:
    """A call whose first candidate did not answer."""

    def __init__(self, clock: Clock, open: Open, call: Call) -> None:
        self._clock = clock
        self._open = open
        self._call = call
        others = call.candidates[1:]
        self._models = [candidate for candidate in others if candidate.level != "offline"]
        self._offline = [candidate for candidate in others if candidate.level == "offline"]
        self._left = len(others)
        self._denial: CauceError | None = None
        self._error: CauceError | None = None
        """What the last one asked has failed with."""
        self._resting: list[tuple[float, Candidate]] = []
        """Candidates whose circuits are open, and for how many seconds."""
        self._throttled: Throttled | None = None
        """What denied the candidate that has room soonest."""
        self._refused: ProviderFailure | None = None
        """What the last one said that this call was too many for."""

    def failed(self, candidate: Candidate, error: CauceError) -> None:
        """Note why `candidate` does not answer. Raises `error` if no other could."""
        if isinstance(error, Throttled):
            self._throttled = error if self._throttled is None else _sooner(self._throttled, error)
        elif isinstance(error, CircuitOpen):
            self._resting.append((error.retry_after or 0.0, candidate))
        if isinstance(error, DENIALS):
            self._denial = error
            return
        if not may_ask_next(error):
            raise error
        self._error = error
        if isinstance(error, ProviderFailure) and error.waits:
            if self._refused is not None:
                error.waits = {**self._refused.waits, **error.waits}
            self._refused = error
        logger.info("%s: %s failed: %s", self._call.request_id, candidate.name, error.message)

    def crowded(self) -> Throttled | None:
        """Where room for the call is worth waiting for; None where nobody is only short of it."""
        denied, refused = self._throttled, self._refused
        if refused is not None:
            bottleneck, seconds = min(refused.waits.items(), key=_second)
            told = Throttled(refused.message, retry_after=seconds, bottleneck=bottleneck)
            told.waits = refused.waits
            denied = told if denied is None else _sooner(denied, told)
        if denied is not None:
            denied.after = self._error
        return denied

    async def hedged(self, call: Call, after: float, allowances: Allowances | None) -> Deltas | None:
        """The answer to `call`, or to the same for the next model, if nothing has come after that many seconds."""
        beside = self._models[0]

        def other() -> Call | None:
            if beside.level == "offline" or not (allowances is None or allowances.take(beside)):
                return None
            self._models.remove(beside)
            return msgspec.structs.replace(self._narrowed(beside), strategy="hedge")

        result = await race(self._clock, self._open, call, after, other)
        if result.answer is None:
            for candidate, error in result.failures:
                self.failed(candidate, error)
        return result.answer

    async def models(self) -> Deltas | None:
        """The answer of the next model that has one."""
        final = self._models[-1] if self._models else None
        for candidate in self._models:
            try:
                return await self._open(self._narrowed(candidate, last=candidate is final))
            except CauceError as error:
                self.failed(candidate, error)
        return None

    async def rest(self) -> Deltas:
        """What is less than a model, then a model that may not be well. Raises what the last model raised."""
        refused: CauceError | None = None
        for candidate in self._offline:
            try:
                return await self._open(self._narrowed(candidate))
            except CauceError as error:
                # What the last resort cannot do must not hide why the models did not answer.
                refused = error
        if self._resting and self._error is None:
            _, candidate = min(self._resting, key=_seconds)
            call = self._narrowed(candidate)
            try:
                return await self._open(msgspec.structs.replace(call, strategy="probe", probe=True))
            except CauceError as error:
                self.failed(candidate, error)
        error = self._throttled or self._error or self._denial or refused
        assert error is not None, "a candidate that does not answer has a reason"
        raise error from refused

    def _narrowed(self, candidate: Candidate, *, last: bool = True) -> Call:
        """The call for `candidate`. Raises `DeadlineExceeded`."""
        remaining = _remaining(self._clock, self._call, self._error)
        call = _narrowed(self._call, candidate, remaining, max(1, self._left), last=last)
        self._left -= 1
        strategy = "open" if self._error is None and self._denial is None else "fallback"
        return msgspec.structs.replace(call, strategy=strategy, after=self._error or call.after)


def _has_model(candidates: tuple[Candidate, ...]) -> bool:
    return any([candidate.level != "offline" for candidate in candidates])


def _sooner(one: Throttled, other: Throttled) -> Throttled:
    """The one that has room first; it tells of both."""
    sooner, later = (one, other) if (one.retry_after or 0.0) <= (other.retry_after or 0.0) else (other, one)
    sooner.waits = {**later.waits, **sooner.waits}
    return sooner


def _seconds(resting: tuple[float, Candidate]) -> float:
    return resting[0]


def _second(wait: tuple[str, float]) -> float:
    return wait[1]


def _remaining(clock: Clock, call: Call, error: CauceError | None = None) -> float | None:
    """Seconds that are left of the call. Raises `DeadlineExceeded`, from `error`."""
    if call.deadline is None:
        return None
    remaining = call.deadline - clock.monotonic()
    if remaining <= 0:
        names = ", ".join([candidate.name for candidate in call.candidates])
        raise DeadlineExceeded(f"the time for this call is used up; asked in order: {names}") from error
    return remaining


def _share(call: Call, candidate: Candidate, remaining: float | None, left: int) -> float | None:
    """Seconds this candidate has until its first delta (a plain answer comes as one)."""
    share = None if remaining is None else min(remaining, max(MIN_SHARE, remaining / left))
    if not call.streamed:
        return share
    patience = candidate.timeouts.first_delta
    return patience if share is None else min(share, patience)


def _narrowed(call: Call, candidate: Candidate, remaining: float | None, left: int, *, last: bool) -> Call:
    """`call` for this candidate alone, with its share of the time; its total ends with the call's."""
    alone = last and call.last and len(call.candidates) == 1 and call.patience is None
    if (
        alone
        and not call.streamed
        and remaining is not None
        and remaining > max(LONG, candidate.timeouts.total - _SLACK)
    ):
        # It is as it should be: nobody else, and more time than anybody looks at.
        return call
    share = _share(call, candidate, remaining, left)
    if remaining is not None and remaining + _SLACK < candidate.timeouts.total:
        timeouts = msgspec.structs.replace(candidate.timeouts, total=remaining)
        candidate = msgspec.structs.replace(candidate, timeouts=timeouts)
    return msgspec.structs.replace(call, candidates=(candidate,), patience=share, last=last)
