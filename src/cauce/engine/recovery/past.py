"""What the deltas of an answer that another process began say of its past: how often it broke, and what it has used."""

from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Restart, Status, ToolCall, delta_size
from cauce.domain.price import settled
from cauce.domain.stream import Upstream
from cauce.domain.tokens import CHARACTERS_PER_TOKEN, estimate_input_tokens
from cauce.domain.usage import Usage, summed
from cauce.ports.provider import Call, Candidate

GOING_ON = frozenset({"again", "attach", "prefill", "continue", "restart"})
"""Strategies of attempts that go on with an answer."""


class Past(msgspec.Struct, frozen=True):
    """`attempts` is the number of the `last` one, `recoveries` how many of them went on with the answer. `created` is a UNIX time in
    seconds (None: not told). `newest` is what the last attempt that gave something has used, `before` what those before it have:
    estimates, since what a provider told of it is known to nobody here."""

    attempts: int = 0
    recoveries: int = 0
    last: Attempt | None = None
    created: float | None = None
    before: Usage | None = None
    newest: Usage | None = None


def was_begun(begun: Sequence[Delta]) -> bool:
    """Whether somebody has been asked for the answer that `begun` are the deltas of."""
    return any([not isinstance(delta, Status) for delta in begun])


def past(call: Call) -> Past:
    """The past of the answer that `call` goes on with."""
    attempts = [delta for delta in call.begun if isinstance(delta, Attempt)]
    recoveries = sum([attempt.strategy in GOING_ON for attempt in attempts])
    last = max(attempts, key=lambda attempt: attempt.n, default=None)
    used = _used(call)
    before: Usage | None = None
    for usage in used[:-1]:
        before = usage if before is None else summed(before, usage)
    number = 0 if last is None else last.n
    return Past(number, recoveries, last, _created(call.begun), before, used[-1] if used else None)


def spoke_last(call: Call, attempt: Attempt | None) -> Candidate:
    """Who made `attempt`, if it is one of those that `call` may ask; else the first of them."""
    if attempt is None:
        return call.candidates[0]
    return next((one for one in call.candidates if _is_of(one, attempt)), call.candidates[0])


def attachable(begun: Sequence[Delta], upstream: Upstream | None) -> Upstream | None:
    """`upstream`, if it is the provider's own stream that the newest of `begun` came from: not where another has gone on since."""
    for delta in begun:
        if isinstance(delta, Restart):
            return None
        if isinstance(delta, Status) and delta.kind == "seam" and not delta.facts.get("attached"):
            return None
    return upstream


def _created(begun: Sequence[Delta]) -> float | None:
    first = begun[0] if begun else None
    created = first.facts.get("created") if isinstance(first, Status) else None
    return float(created) if isinstance(created, int | float) else None


def _used(call: Call) -> list[Usage]:
    """What each attempt that gave something has used, estimated: it read the request, and wrote what it gave."""
    used: list[Usage] = []
    attempt: Attempt | None = None
    characters = 0
    for delta in (*call.begun, Finish("error")):
        if isinstance(delta, Attempt) and delta.strategy == "attach":
            # The same answer of the provider, and the same bill.
            continue
        if isinstance(delta, Attempt | Finish):
            if attempt is not None and characters:
                used.append(_estimated(call, attempt, characters))
            attempt, characters = (delta if isinstance(delta, Attempt) else None), 0
        elif not (isinstance(delta, ToolCall) and delta.mark != "piece"):
            characters += delta_size(delta)
    return used


def _estimated(call: Call, attempt: Attempt, characters: int) -> Usage:
    tokens = max(1, round(characters / CHARACTERS_PER_TOKEN))
    used = Usage(estimate_input_tokens(call.request), tokens, estimated=True)
    same = next((one for one in call.candidates if _is_of(one, attempt)), None)
    return settled(used, None if same is None else same.facts.prices)


def _is_of(candidate: Candidate, attempt: Attempt) -> bool:
    return candidate.provider.name == attempt.provider and candidate.model == attempt.model
