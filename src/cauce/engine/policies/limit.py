"""Nobody is asked beyond the limits: what a call will use is reserved before it is opened, and settled when it has ended."""

from collections.abc import Awaitable
from math import inf

import msgspec

from cauce.domain.delta import Outcome
from cauce.domain.errors import BudgetExceeded, CauceError, DeadlineExceeded, ProviderFailure, Throttled
from cauce.domain.headroom import Headroom
from cauce.domain.price import FREE
from cauce.domain.usage import Usage
from cauce.engine.amounts import Amounts
from cauce.engine.duration import in_words
from cauce.engine.limits import LimitBook, described, holder
from cauce.ports.limiter import SOON, Amount, Denial, Limit, Limiter, Reservation
from cauce.ports.metrics import Metrics
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy

_ONE = Amount()


class Limiting(msgspec.Struct, frozen=True):
    """What the policies share: who counts, which limits there are, what a call will use."""

    limiter: Limiter
    book: LimitBook
    amounts: Amounts
    metrics: Metrics


def limit_caller(limiting: Limiting) -> Policy:
    """Reserve once per request under the limits of the key that sent it. Raises `Throttled`."""
    book, amounts = limiting.book, limiting.amounts

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            caller = book.of_caller(call.scope, call.scope.user or call.request.user)
            if not caller.rates:
                return open(call)
            amount = Amount(amounts.tokens(call.request, call.candidates[0].name)) if caller.tokens else _ONE
            return _open(limiting, caller.rates, amount, call, open, settled=caller.settled)

        return opened

    return policy


def limit_candidate(limiting: Limiting, longest: float = inf) -> Policy:
    """Reserve for each attempt: under the limits of its provider and model, and under the budgets of who asks.

    An answer that nobody bounds may cost as much as the model can write. Where a budget has no room for that, the answer is bound
    to what there is room for, by halves, but to no less than `assumed_output`: so a budget is never overspent.
    Raises `Throttled`, and `BudgetExceeded` for what no waiting within the day or month will change. What an upstream says
    about its own limits holds from then on; when it refuses a call, for `longest` seconds at most.
    """
    book = limiting.book

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidate = call.candidates[0]
            limits, amount, call = _wanted(limiting, call)
            course = call.course
            course.headroom = None
            try:
                deltas = await _open(limiting, limits, amount, call, open) if limits else await open(call)
            except ProviderFailure as error:
                if error.failure == "rate_limited" and error.retry_after:
                    limit = book.upstream(candidate, "requests")
                    await limiting.limiter.tighten(limit, 0.0, min(error.retry_after, longest))
                raise
            if course.headroom is not None:
                try:
                    await _tighten(limiting, candidate, course.headroom)
                except BaseException:
                    await deltas.aclose()
                    raise
            return deltas

        return opened

    return policy


def _wanted(limiting: Limiting, call: Call) -> tuple[tuple[Limit, ...], Amount, Call]:
    """The limits that hold for an attempt, what it will use of them at most, and the attempt. Raises `BudgetExceeded`."""
    candidate, book = call.candidates[0], limiting.book
    held = book.of_candidate(candidate)
    caller = book.of_caller(call.scope, call.scope.user or call.request.user)
    priced = caller.budgets and candidate.facts.prices is not FREE
    if not (held.tokens or priced):
        return held.limits, _ONE, call
    amounts = limiting.amounts
    tokens = amounts.tokens(call.request, candidate.name) if held.tokens else 0.0
    if not priced:
        return held.limits, Amount(tokens), call
    written = amounts.most(call.request, candidate)
    dollars = amounts.dollars(call.request, candidate, amounts.assumed_output if written is None else written)
    if written is None:
        call = _bound(call, amounts.assumed_output)
    return book.together(held, caller), Amount(tokens, dollars), call


def _bound(call: Call, written: int) -> Call:
    """`call`, for an answer of at most `written` tokens."""
    call.course.bound = written
    request = call.request
    sampling = msgspec.structs.replace(request.sampling, max_tokens=written)
    return msgspec.structs.replace(call, request=msgspec.structs.replace(request, sampling=sampling))


async def _reserved(
    limiting: Limiting, limits: tuple[Limit, ...], amount: Amount, call: Call
) -> tuple[Reservation | Denial, Call]:
    """`amount` under `limits`, or as much as there is money for, with the call that is bound to it."""
    answer = await limiting.limiter.reserve(limits, amount)
    if not isinstance(answer, Denial) or answer.limit.unit != "dollars" or call.request.sampling.max_tokens is not None:
        return answer, call
    amounts, candidate = limiting.amounts, call.candidates[0]
    written = candidate.facts.max_output or 0
    while written > amounts.assumed_output:
        written = max(written // 2, amounts.assumed_output)
        dollars = amounts.dollars(call.request, candidate, written)
        answer = await limiting.limiter.reserve(limits, Amount(amount.tokens, dollars))
        if not isinstance(answer, Denial):
            return answer, _bound(call, written)
        if answer.limit.unit != "dollars":
            break
    return answer, call


async def _open(
    limiting: Limiting, limits: tuple[Limit, ...], amount: Amount, call: Call, open: Open, *, settled: bool = True
) -> Deltas:
    """`open(call)` with `amount` reserved under `limits`. Nothing is awaited between reserving and answering for it.

    `settled`: the limits are told in the end what was really used.
    """
    reservation, call = await _reserved(limiting, limits, amount, call)
    if isinstance(reservation, Denial):
        raise _denied(limiting, reservation)
    held = _Held(limiting, reservation, call)
    try:
        deltas = await open(call)
    except CauceError as error:
        await held.failed(error)
        raise
    except BaseException:
        # The caller left, or the attempt was given up: whoever was asked has read the request.
        await held.given_up()
        raise
    if settled:
        deltas.on_end(held.ended)
    return deltas


async def _tighten(limiting: Limiting, candidate: Candidate, told: tuple[Candidate, Headroom]) -> None:
    asked, headroom = told
    if asked is not candidate:
        return
    if headroom.requests is not None:
        limit = limiting.book.upstream(candidate, "requests")
        await limiting.limiter.tighten(limit, headroom.requests.left, headroom.requests.seconds)
    if headroom.tokens is not None:
        limit = limiting.book.upstream(candidate, "tokens")
        await limiting.limiter.tighten(limit, headroom.tokens.left, headroom.tokens.seconds)


class _Held:
    """A reservation until its call has ended."""

    __slots__ = ("_call", "_limiting", "_reservation")

    def __init__(self, limiting: Limiting, reservation: Reservation, call: Call) -> None:
        self._limiting = limiting
        self._reservation = reservation
        self._call = call

    async def ended(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """See `Deltas.on_end`."""
        amount = self._reservation.amount
        if amount is _ONE:
            await self._limiting.limiter.settle(self._reservation, _ONE)
            return
        if usage.estimated and not usage.total_tokens:
            await self.given_up()
            return
        if amount.tokens and not usage.estimated and outcome == "completed":
            self._limiting.amounts.learn(self._call.candidates[0].name, usage)
        await self._limiting.limiter.settle(self._reservation, Amount(usage.total_tokens, usage.cost))

    async def failed(self, error: CauceError) -> None:
        """There is no answer: nothing was used, unless time ran out over it. What never left us does not count at all."""
        if error.code == "timeout":
            await self.given_up()
        elif isinstance(error, ProviderFailure | DeadlineExceeded):
            await self._limiting.limiter.settle(self._reservation, _ONE)
        else:
            await self._limiting.limiter.release(self._reservation)

    async def given_up(self) -> None:
        """The request was read, and nobody knows what was answered."""
        used = _ONE
        if self._reservation.amount is not _ONE:
            usage = self._limiting.amounts.asked(self._call.request, self._call.candidates[0])
            used = Amount(usage.total_tokens, usage.cost)
        await self._limiting.limiter.settle(self._reservation, used)


def _denied(limiting: Limiting, denial: Denial) -> CauceError:
    """The error that a denial is told by."""
    limit, wait = denial.limit, denial.wait
    limiting.metrics.denied(holder(limit.key).whose, limit.unit)
    if limit.per in ("day", "month") and wait is not None:
        return BudgetExceeded(
            f"{described(limit)} does not cover this call: it begins anew in {in_words(wait)}; a cheaper model or fewer "
            "max_tokens may fit",
            retry_after=wait,
        )
    wait = SOON if wait is None else wait
    return Throttled(
        f"{described(limit)} is reached: try again in {in_words(wait)}", retry_after=wait, bottleneck=limit.key
    )
