"""The cascade: candidates are asked in order until one has its first delta in hand.

Before that nobody has seen anything, so moving on is free of side effects. Each candidate gets its share of the time that
is left, so that the last ones are reached before the client gives up.
"""

import logging

import msgspec

from cauce.domain.delta import Attempt
from cauce.domain.errors import CauceError, DeadlineExceeded, may_ask_next
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy

MIN_SHARE = 5.0
"""Seconds a candidate gets at least, however many wait behind it (but never beyond the deadline)."""

logger = logging.getLogger("cauce.calls")


def fallback(clock: Clock) -> Policy:
    """Ask `call.candidates` one after the other through `open`, which sees one candidate at a time.

    Raises the last candidate's error; `DeadlineExceeded` when the time was used up.
    """

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            error: CauceError | None = None
            for index, candidate in enumerate(call.candidates):
                remaining = None if call.deadline is None else call.deadline - clock.monotonic()
                if remaining is not None and remaining <= 0:
                    raise DeadlineExceeded(_too_late(call)) from error
                call.notice(
                    Attempt(
                        index + 1,
                        candidate.provider.name,
                        candidate.model,
                        candidate.level,
                        strategy="open" if error is None else "fallback",
                        reason=None if error is None else error.message,
                        reason_code=None if error is None else error.code,
                    )
                )
                try:
                    return await open(_narrowed(call, candidate, remaining, len(call.candidates) - index))
                except CauceError as failed:
                    if error is not None and candidate.level == "offline":
                        # What the last resort cannot do must not hide why the models did not answer.
                        raise error from failed
                    error = failed
                    if not may_ask_next(failed):
                        raise
                logger.info("%s: %s failed: %s", call.request_id, candidate.name, error.message)
            assert error is not None, "a call has at least one candidate"
            raise error

        return opened

    return policy


def _share(call: Call, candidate: Candidate, remaining: float | None, left: int) -> float | None:
    """Seconds this candidate has until its first delta (a plain answer comes as one)."""
    share = None if remaining is None else min(remaining, max(MIN_SHARE, remaining / left))
    if not call.streamed:
        return share
    patience = candidate.timeouts.first_delta
    return patience if share is None else min(share, patience)


def _narrowed(call: Call, candidate: Candidate, remaining: float | None, left: int) -> Call:
    """`call` for this candidate alone, with its share of the time; its total ends with the call's."""
    share = _share(call, candidate, remaining, left)
    if remaining is not None and remaining < candidate.timeouts.total:
        timeouts = msgspec.structs.replace(candidate.timeouts, total=remaining)
        candidate = msgspec.structs.replace(candidate, timeouts=timeouts)
    return msgspec.structs.replace(call, candidates=(candidate,), patience=share)


def _too_late(call: Call) -> str:
    names = ", ".join([candidate.name for candidate in call.candidates])
    return f"the time for this call is used up; asked in order: {names}"
