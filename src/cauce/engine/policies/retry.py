"""A candidate that failed in passing is asked again, before anybody has seen anything, within the time it has.

Only what may go well the next time is repeated, after the delay the upstream asks for or a growing, random one; and never more
than one call in five on top of the usual load, so that repeating does not keep an upstream down.
"""

from typing import Annotated

import msgspec

from cauce.domain.errors import CircuitOpen, ProviderFailure, may_ask_again
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy

SHARE = 0.2
"""Retries per call: what a retry costs upstream must not exceed it."""

ALLOWANCE = 3.0
"""Retries that a candidate has before it was asked at all."""

MOST = 10.0
"""Retries that a candidate may have saved up."""

LONGEST = 60.0
"""Seconds of a delay that the upstream asks for and that is waited for in a request: further ones are the client's to wait."""

MOST_CANDIDATES = 2000
"""Candidates whose allowance is kept. Beyond that, all begin anew."""

_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class RetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`attempts` of one candidate, the first included. `base` and `cap` are seconds: before the nth retry it waits a random time up
    to `base` * 2^(n-1), at most `cap`."""

    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    base: _Seconds = 0.25
    cap: _Seconds = 8.0


class Allowances:
    """The retries that each candidate still has: a token bucket that calls fill and retries empty."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str, str], float] = {}

    def called(self, candidate: Candidate) -> None:
        """`candidate` is asked, not for the second time."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        left = self._left.get(key)
        if left is None:
            if len(self._left) >= MOST_CANDIDATES:
                self._left.clear()
            self._left[key] = ALLOWANCE
        elif left < MOST:
            self._left[key] = left + SHARE

    def take(self, candidate: Candidate) -> bool:
        """Whether `candidate` has a retry left, or a call beside another; it is used up by that."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        left = self._left.get(key, ALLOWANCE)
        if left < 1.0:
            return False
        self._left[key] = left - 1.0
        return True


def retry(settings: RetrySettings, clock: Clock, chance: Chance, allowances: Allowances) -> Policy:
    """Ask a candidate again while `may_ask_again` says so, at most `settings.attempts` times in all."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidate = call.candidates[0]
            if candidate.level == "offline" or call.probe:
                return await open(call)
            allowances.called(candidate)
            began = clock.monotonic()
            try:
                return await open(call)
            except ProviderFailure as error:
                failed = error
            for number in range(1, settings.attempts):
                if number == 1 and call.last and failed.code == "timeout":
                    # One connection that hangs says nothing of the next: the candidate gets its time once more.
                    began = clock.monotonic()
                left = _left(call, began, clock.monotonic())
                delay = _delay(settings, chance, number, failed)
                if not _worth(call, failed, delay, settings.cap, left) or not allowances.take(candidate):
                    break
                await clock.sleep(delay)
                try:
                    return await open(_again(call, failed, began, clock.monotonic()))
                except CircuitOpen:
                    # The failure that opened it says more.
                    break
                except ProviderFailure as error:
                    failed = error
            raise failed

        return opened

    return policy


def _left(call: Call, began: float, now: float) -> float:
    """Seconds that the candidate, first asked at `began`, has until its first delta."""
    left = float("inf") if call.patience is None else began + call.patience - now
    return left if call.deadline is None else min(left, call.deadline - now)


def _delay(settings: RetrySettings, chance: Chance, number: int, failed: ProviderFailure) -> float:
    """Seconds before retry `number`: full jitter (Brooker, "Exponential Backoff And Jitter", AWS), on top of what the upstream asks for."""
    jitter = chance.random() * min(settings.cap, settings.base * 2 ** (number - 1))
    if failed.retry_after is None:
        return jitter
    return failed.retry_after + chance.random() * settings.base


def _worth(call: Call, failed: ProviderFailure, delay: float, cap: float, left: float) -> bool:
    """Whether asking again after `delay` makes sense. Where another model may be asked, nobody waits long, or hangs twice."""
    if not may_ask_again(failed) or delay >= min(left, LONGEST):
        return False
    return call.last or (delay <= cap and failed.code != "timeout")


def _again(call: Call, failed: ProviderFailure, began: float, now: float) -> Call:
    """`call` with the time that is left of it."""
    patience = None if call.patience is None else max(0.0, began + call.patience - now)
    candidate = call.candidate
    if call.deadline is not None and call.deadline - now < candidate.timeouts.total:
        timeouts = msgspec.structs.replace(candidate.timeouts, total=max(0.001, call.deadline - now))
        candidate = msgspec.structs.replace(candidate, timeouts=timeouts)
    return msgspec.structs.replace(call, candidates=(candidate,), patience=patience, strategy="retry", after=failed)
