"""Calls that our limits or the upstreams have no room for wait in a fair queue, instead of being refused.

A newcomer does not overtake: where others wait for everything it could use, it joins them without trying. When a call has
waited as long as it may, or too many wait and its key has more than its share of the places, it is opened once more without waiting:
that may give an answer of before, or the offline answerer's. Else the client is told when to come again.
"""

from fnmatch import fnmatchcase

import msgspec

from cauce.domain.errors import ProviderFailure, Throttled
from cauce.domain.request import Scope
from cauce.engine.duration import in_words
from cauce.engine.limit_settings import KeyRates
from cauce.engine.limits import LimitBook, upstream_key
from cauce.engine.queue.line import Share
from cauce.engine.queue.queue import Queue, Waiter
from cauce.ports.provider import Call, Deltas, Open, Policy, unnoticed_admission

MOST_KEYS = 4096
"""API keys whose shares are remembered before all are looked up again."""


class Shares:
    """What each API key is due, by globs of its name; of several that fit, the later ones win."""

    def __init__(self, keys: dict[str, KeyRates]) -> None:
        self._keys = keys
        self._known: dict[str, Share] = {}

    def of(self, scope: Scope) -> Share:
        """That of the key of `scope`."""
        flow = scope.principal
        known = self._known.get(flow)
        if known is None:
            if len(self._known) >= MOST_KEYS:
                self._known.clear()
            known = self._known[flow] = self._found(flow, scope.key)
        return known

    def _found(self, flow: str, name: str) -> Share:
        priority, weight = 0, 1.0
        for glob, rates in self._keys.items():
            if fnmatchcase(name, glob):
                priority = rates.priority if rates.priority is not None else priority
                weight = rates.weight if rates.weight is not None else weight
        return Share(flow, priority, weight)


def queue(lines: Queue, shares: Shares, book: LimitBook | None) -> Policy:
    """Wait where `Throttled` would be raised. It still is, with a truthful `retry_after`, when waiting did not help. `book` has our
    limits (None: there are none)."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            if not call.waits:
                return await open(call)
            waits = _ahead(lines, book, call) if lines.lines else None
            since = lines.told
            if not waits:
                try:
                    return await open(call)
                except Throttled as denied:
                    waits, call = denied.waits, _following(call, denied)
            waiter = lines.entered(call, shares.of(call.scope), waits, since)
            return await _waited(lines, waiter, call, open, lines.seconds(waits))

        return opened

    return policy


def _following(call: Call, denied: Throttled) -> Call:
    """`call`, after what was asked before it was `denied` again."""
    if denied.after is None:
        return call
    # What recovery asks for stays what it is.
    strategy = "retry" if call.strategy == "open" else call.strategy
    return msgspec.structs.replace(call, strategy=strategy, after=denied.after)


def _ahead(lines: Queue, book: LimitBook | None, call: Call) -> dict[str, float]:
    """The bottlenecks that others wait at and that `call` cannot get around. Empty if there is a way."""
    waited = lines.lines
    if book is not None:
        for limit in book.of_caller(call.scope, call.scope.user or call.request.user).rates:
            if limit.key in waited:
                return {limit.key: lines.pause(limit.key)}
    found: dict[str, float] = {}
    for candidate in call.candidates:
        if candidate.level == "offline":
            continue
        keys = [key for key in (upstream_key(candidate, "calls"),) if key in waited]
        if book is not None:
            keys += [limit.key for limit in book.of_candidate(candidate).limits if limit.key in waited]
        if not keys:
            return {}
        found.update({key: lines.pause(key) for key in keys})
    return found


async def _tried(lines: Queue, waiter: Waiter, open: Open) -> tuple[Deltas | None, Throttled | None]:
    """Its answer; or what denied it after it had been let through once; or neither, when it has waited long enough."""

    def admitted() -> None:
        lines.left(waiter, served=True)

    call = msgspec.structs.replace(waiter.call, admitted=admitted)
    while await lines.turn(waiter):
        try:
            return await open(call), None
        except Throttled as denied:
            if waiter not in lines.waiters:
                return None, denied
            lines.denied(waiter, denied.waits)
    return None, None


async def _waited(lines: Queue, waiter: Waiter | None, call: Call, open: Open, seconds: float) -> Deltas:
    """The answer, once it was the turn of `waiter`, whose call is `call`. Raises `Throttled`, after `seconds` where it cannot wait."""
    began, driven_out = call.course.waited, False
    while waiter is not None:
        try:
            deltas, denied = await _tried(lines, waiter, open)
            # Those who wait with it will come again too.
            seconds = lines.seconds(waiter.places) if waiter.driven_out is None else waiter.driven_out
        finally:
            lines.left(waiter, served=False)
        if deltas is not None:
            return deltas
        driven_out = waiter.driven_out is not None
        if denied is None:
            break
        # It was let through, and then was one too many, or there was no room for its next attempt.
        call = _following(call, denied)
        waiter = lines.again(waiter, call, denied)
    call = msgspec.structs.replace(call, waits=False, admitted=unnoticed_admission)
    try:
        return await open(call)
    except (Throttled, ProviderFailure) as denied:
        if not denied.waits:
            raise
        seconds = max(seconds, denied.retry_after or 0.0, min(denied.waits.values()))
        waited, others = call.course.waited - began, len(lines.waiters)
        came = f"no room came within {in_words(waited)} of waiting" if waited else "there is no room now"
        if driven_out:
            came = f"after {in_words(waited)} of waiting its place went to another, since its key has more than its share of them"
        raise Throttled(
            f"{came}, and {others} calls wait: try again in {in_words(seconds)} ({denied.message})",
            retry_after=seconds,
            bottleneck=next(iter(denied.waits)),
        ) from denied
