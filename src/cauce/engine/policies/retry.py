"""A candidate that failed in passing is asked again, before anybody has seen anything, within the time it has.

Only what may go well the next time is repeated, after the delay the upstream asks for or a growing, random one; and, but for a few in
hand, never more than one call in five on top of the usual load, so that repeating does not keep an upstream down.
"""

import msgspec

from cauce.domain.errors import CircuitOpen, ProviderFailure, Throttled, may_ask_again
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy
from cauce.ports.resilience import RetrySettings

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


class Allowances:
    """The retries, or the calls beside others, that each candidate still has: a token bucket that calls fill and these empty."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str, str], float] = {}

    def called(self, candidate: Candidate) -> None:
        """`candidate` is asked, not for the second time, or might be asked beside another."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        left = self._left.get(key)
        if left is None:
            if len(self._left) >= MOST_CANDIDATES:
                self._left.clear()
            self._left[key] = ALLOWANCE
        elif left < MOST:
            self._left[key] = left + SHARE

    def take(self, candidate: Candidate) -> bool:
        """Whether `candidate` has one left; it is used up by that."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        left = self._left.get(key, ALLOWANCE)
        if left < 1.0:
            return False
        self._left[key] = left - 1.0
        return True


def retry(
    common: RetrySettings, clock: Clock, chance: Chance, allowances: Allowances, *, queued: bool = False
) -> Policy:
    """Ask a candidate again while `may_ask_again` says so, as often as its own settings allow, else the `common` ones.

    `queued`: what the last candidate has refused as too many is left to the queue above, where it waits in its turn.
    """

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
            settings = candidate.resilience.retry or common
            for number in range(1, settings.attempts):
                if queued and failed.waits and call.waits and call.last:
                    break
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
                except Throttled as denied:
                    # So does this one, and now it may wait.
                    failed.waits = denied.waits
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
