"""Prompts that are too long for a candidate: what becomes of them, before they are sent and when the upstream refuses them.

| `overflow` of the route | before sending | when the upstream says so |
|---|---|---|
| `larger` | left to candidates that have a window for it | the same |
| `error` | refused, and nobody else is asked | the same |
| `truncate` | the oldest turns are left out | more of them are, twice at most |
| `summarize` | they are left out, and a summary of them is put in front of what is left | the same |

Lengths are estimates. A prompt is refused here only when it is too long by more than they may be wrong; else it is sent, and the
upstream decides. The offline answerer takes nothing that was only too long: the client can mend that.
"""

import re

import msgspec

from cauce.domain.delta import Status
from cauce.domain.errors import CauceError, ContextTooLong, ProviderFailure
from cauce.engine.estimator import Estimator
from cauce.engine.summary import summary
from cauce.engine.window import bound, fit, is_measurable, noted, shortened
from cauce.ports.provider import Call, Deltas, Open, Policy

MARGIN = 0.05
"""What is left free of a window when a request is cut to fit it."""

TIMES = 2
"""How often a request is cut again that the upstream says is still too long."""

AGAIN = 0.7
"""What is left of it each time, unless the upstream says how long it is and may be."""

SUMMARY = 0.1
"""The part of a window that a summary may have."""

LONGEST_SUMMARY = 800
"""Tokens it has at most."""

_TOO_LONG = "context_length_exceeded"
_FIGURES = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?![\w.]*\w)|(?<![\w.])\d{3,8}(?![\w]|\.\d)")
_NOTE = "[{dropped} earlier messages of this conversation are left out, since it is too long. What was said in them, in short:]\n{summary}\n\n"


def overflow(estimator: Estimator) -> Policy:
    """Let through what fits; do with the rest what the candidate's `overflow` says. Raises `ContextTooLong`."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidate = call.candidates[0]
            window = candidate.facts.context_window
            if window is not None and bound(call.request) > window // 2 and is_measurable(call.request):
                call = _fitted(call, window, estimator)
            elif candidate.level == "offline" and call.after is not None and call.after.code == _TOO_LONG:
                raise call.after
            try:
                return await open(call)
            except ProviderFailure as error:
                if error.code != _TOO_LONG:
                    raise
                refused = error
            return await _again(open, call, refused, estimator)

        return opened

    return policy


def _fitted(call: Call, window: int, estimator: Estimator) -> Call:
    """`call` as it may be sent. Raises `ContextTooLong`."""
    candidate = call.candidate
    tokens = estimator.estimate(call.request, candidate.name)
    stands = fit(call.request, tokens, window)
    if stands.fits:
        return call
    if candidate.overflow in ("larger", "error"):
        if not stands.is_hopeless:
            return call
        raise _refusal(call, tokens, window)
    return _cut(call, tokens, stands.room * (1 - MARGIN), window)


async def _again(open: Open, call: Call, refused: ProviderFailure, estimator: Estimator) -> Deltas:
    """The answer to a request that the upstream found too long. Raises `ContextTooLong`, or what it raises then."""
    if call.candidate.overflow in ("larger", "error"):
        tokens = estimator.estimate(call.request, call.candidate.name)
        raise _refusal(call, tokens, call.candidate.facts.context_window, refused) from refused
    for _ in range(TIMES):
        tokens = estimator.estimate(call.request, call.candidate.name)
        call = _cut(call, tokens, tokens * _left_of(refused), call.candidate.facts.context_window, refused)
        try:
            return await open(call)
        except ProviderFailure as error:
            if error.code != _TOO_LONG:
                raise
            refused = error
    raise refused


def _cut(call: Call, tokens: int, most: float, window: int | None, refused: CauceError | None = None) -> Call:
    """`call` cut down from `tokens` to `most`, and told so. Raises `ContextTooLong` when even what must stay is too long."""
    request = call.request
    # The estimator knows the model; what is weighed here is corrected by as much.
    whole = shortened(request, float("inf")).weight
    allowed = most * whole / max(tokens, 1)
    summarizes = call.candidate.overflow == "summarize"
    space = min(LONGEST_SUMMARY, allowed * SUMMARY) if summarizes else 0.0
    cut = shortened(request, allowed - space)
    if not cut.dropped or cut.weight > allowed:
        raise _refusal(call, tokens, window, refused)
    request = cut.request
    if summarizes and (told := summary(cut.dropped, space)):
        request = noted(request, _NOTE.format(dropped=len(cut.dropped), summary=told))
    dropped = call.course.truncated = call.course.truncated + len(cut.dropped)
    detail = f"the conversation is too long for {call.candidate.name}: its {dropped} oldest messages are left out"
    facts = {"dropped": dropped, "model": call.candidate.name, "summarized": request is not cut.request}
    call.notice(Status("truncated", detail, facts))
    return msgspec.structs.replace(call, request=request)


def _left_of(refused: ProviderFailure) -> float:
    """What part of a request the upstream would have taken, by what it says of both lengths."""
    told = [int(figure.replace(",", "")) for figure in _FIGURES.findall(refused.message)]
    if len(told) >= 2 and 0 < min(told) < max(told):
        return max(0.1, min(AGAIN, min(told) / max(told) * (1 - MARGIN)))
    return AGAIN


def _refusal(call: Call, tokens: int, window: int | None, refused: CauceError | None = None) -> ContextTooLong:
    """The error of a request that is too long for its candidate."""
    candidate = call.candidate
    told = f" ({refused.message})" if refused is not None else ""
    answer = call.request.sampling.max_tokens
    beside = f" beside an answer of {answer:,}" if answer is not None else ""
    has = f"has a window of {window:,} tokens" if window is not None else "has a smaller window"
    error = ContextTooLong(
        f"the request has about {tokens:,} tokens{beside}, and {candidate.name} {has}{told}: shorten it, ask for a model with a "
        'larger window, or have the route shorten it (overflow = "truncate" or "summarize")',
        final=candidate.overflow == "error",
    )
    error.facts = {"tokens": tokens, "window": window}
    return error
