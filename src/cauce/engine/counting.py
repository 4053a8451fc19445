"""The use case: how many input tokens a request would be.

Counting is never waited for in a queue and never refused: where a provider cannot be asked now, an estimate does.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from cauce.domain.errors import CauceError, may_ask_next
from cauce.domain.request import Request, Scope
from cauce.domain.tokens import estimate_input_tokens
from cauce.engine.estimator import Estimator
from cauce.engine.limits import holder
from cauce.engine.policies.breaker import Breakers
from cauce.engine.policies.limit import Limiting
from cauce.engine.routing.router import Router
from cauce.ports.clock import Clock
from cauce.ports.limiter import Amount, Denial
from cauce.ports.provider import Candidate
from cauce.ports.tokenizer import Tokenizer

LONGEST = 10.0
"""Seconds a provider has to count, at most: an estimate is there at once."""

_ONE = Amount()

Ask = Callable[[Candidate, Request], Awaitable[int | None]]
"""Asks a provider for its count; None where it has none to give."""


class Counted(msgspec.Struct, frozen=True):
    """A count of tokens. `exact`: they were counted as the model does, by its provider or here, else it is an estimate."""

    tokens: int
    exact: bool


class CountGuards(msgspec.Struct, frozen=True):
    """What keeps providers from being asked for counts. `limiting` is None where there are no limits."""

    clock: Clock
    breakers: Breakers
    limiting: Limiting | None = None

    def asking(self, scope: Scope) -> Ask:
        """Asks on behalf of `scope`: within limits and time, and nobody who is left alone."""
        return partial(self._ask, scope)

    async def _ask(self, scope: Scope, candidate: Candidate, request: Request) -> int | None:
        breakers, limiting = self.breakers, self.limiting
        if breakers.guards(candidate) and breakers.of(candidate).circuit.state != "closed":
            return None
        if limiting is None:
            return await self._counted(candidate, request)
        book = limiting.book
        limits = [
            limit
            for limit in (
                *book.of_caller(scope, scope.user or request.user).rates,
                *book.of_candidate(candidate).limits,
            )
            if limit.unit in ("requests", "calls") and holder(limit.key).whose in ("key", "provider")
        ]
        if not limits:
            return await self._counted(candidate, request)
        held = await limiting.limiter.reserve(limits, _ONE)
        if isinstance(held, Denial):
            return None
        try:
            return await self._counted(candidate, request)
        finally:
            await limiting.limiter.settle(held, _ONE)

    async def _counted(self, candidate: Candidate, request: Request) -> int | None:
        try:
            async with self.clock.timeout(min(request.timeout or LONGEST, LONGEST)):
                return await unguarded(candidate, request)
        except TimeoutError:
            return None


async def unguarded(candidate: Candidate, request: Request) -> int | None:
    """Ask whatever the guards would say."""
    return await candidate.provider.count_tokens(request, candidate.model)


async def count_tokens(
    router: Router,
    request: Request,
    estimator: Estimator | None = None,
    tokenizer: Tokenizer | None = None,
    ask: Ask = unguarded,
) -> Counted:
    """The input tokens of `request` for the first candidate that would be asked.

    Where that one cannot count, or cannot be asked now and another may answer in its place, `tokenizer` counts if it can, else
    they are estimated. Raises `ModelNotFound`, and what makes the request wrong for all of them.
    """
    candidate = router.candidates(request)[0]
    try:
        tokens = await ask(candidate, request)
    except CauceError as error:
        if not may_ask_next(error):
            raise
        tokens = None
    if tokens is None and tokenizer is not None:
        tokens = await tokenizer.count(request, candidate.model)
    if tokens is not None:
        return Counted(tokens, exact=True)
    if estimator is not None:
        return Counted(estimator.estimate(request, candidate.name), exact=False)
    return Counted(estimate_input_tokens(request), exact=False)
