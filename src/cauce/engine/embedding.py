"""The use case: texts to vectors.

Vectors of two models do not mix, so no other model is ever asked instead: only the same model on another provider of the route.
"""

import msgspec

from cauce.domain.delta import Attempt, Outcome
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import CauceError, InvalidRequest, may_ask_next
from cauce.domain.message import Message, TextPart
from cauce.domain.price import cost, settled
from cauce.domain.request import Request, Sampling, Scope
from cauce.domain.usage import Usage
from cauce.engine.policies.limit import Limiting, limited
from cauce.engine.routing.router import Router
from cauce.ports.clock import Clock
from cauce.ports.embedder import Embedder
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.metrics import Metrics
from cauce.ports.provider import Call, Candidate, Notice, unnoticed

_AS_LONG = "0000"
"""As long as a token commonly is: inputs that come as numbers of tokens are weighed by it."""


class _Attempt(msgspec.Struct, frozen=True):
    candidate: Candidate
    embedder: Embedder
    scope: Scope
    request_id: str
    n: int


class Embedding:
    """Takes texts to the model that makes vectors of them. Every attempt is accounted for, like those of completions."""

    def __init__(
        self, router: Router, clock: Clock, ledger: Ledger, metrics: Metrics, limits: Limiting | None = None
    ) -> None:
        self._limits = limits
        self._router = router
        self._clock = clock
        self._ledger = ledger
        self._metrics = metrics

    async def embed(
        self, request: EmbeddingRequest, scope: Scope, request_id: str, notice: Notice = unnoticed
    ) -> tuple[Embeddings, str]:
        """The vectors, and the name of the candidate that made them (`provider/model`). `notice` is told who is asked.

        Raises `ModelNotFound`, `InvalidRequest` for a model no provider makes vectors with, and what the last provider raised.
        """
        failed: CauceError | None = None
        for number, attempt in enumerate(self._attempts(request, scope, request_id), 1):
            candidate = attempt.candidate
            reason, code = (failed.message, failed.code) if failed is not None else (None, None)
            notice(
                Attempt(
                    number, candidate.provider.name, candidate.model, candidate.level, reason=reason, reason_code=code
                )
            )
            try:
                return await self._within(attempt, request), attempt.candidate.name
            except CauceError as error:
                failed = error
                if not may_ask_next(error):
                    raise
        if failed is None:
            raise InvalidRequest(
                f"no provider of model {request.model or self._router.default!r} makes embeddings: name an embedding "
                "model, such as `openai/text-embedding-3-small`",
                field="model",
            )
        raise failed

    def names(self, request: EmbeddingRequest) -> list[str]:
        """Who may make the vectors, as `provider/model`. Raises `ModelNotFound`."""
        return sorted({attempt.candidate.name for attempt in self._attempts(request, Scope(), "")})

    def _attempts(self, request: EmbeddingRequest, scope: Scope, request_id: str) -> list[_Attempt]:
        """The first candidate that can, and those after it that offer the very same model."""
        attempts: list[_Attempt] = []
        for candidate in self._router.candidates(Request(request.model, (), privacy=request.privacy)):
            embedder = self._router.embedder(candidate)
            if embedder is not None and (not attempts or candidate.model == attempts[0].candidate.model):
                attempts.append(_Attempt(candidate, embedder, scope, request_id, len(attempts) + 1))
        return attempts

    async def _within(self, attempt: _Attempt, request: EmbeddingRequest) -> Embeddings:
        """The vectors, if the limits have room for them: nobody waits for it."""
        if self._limits is None:
            return await self._asked(attempt, request)
        texts = [each if isinstance(each, str) else _AS_LONG * len(each) for each in request.inputs]
        asked = Request(
            request.model,
            (Message("user", tuple([TextPart(text) for text in texts])),),
            Sampling(max_tokens=0),
            user=request.user,
        )
        call = Call(request=asked, scope=attempt.scope, candidates=(attempt.candidate,), request_id=attempt.request_id)
        return await limited(
            self._limits,
            call,
            lambda: self._asked(attempt, request),
            lambda made: settled(made.usage, attempt.candidate.facts.prices),
        )

    async def _asked(self, attempt: _Attempt, request: EmbeddingRequest) -> Embeddings:
        candidate = attempt.candidate
        began = self._clock.monotonic()
        try:
            embeddings = await attempt.embedder.embed(request, candidate.model, candidate.timeouts)
        except CauceError as error:
            self._record(attempt, began, "failed", error, Usage(estimated=True))
            raise
        except BaseException:
            # The caller left: cancellation, not a failure of the provider.
            self._record(attempt, began, "cancelled", None, Usage(estimated=True))
            raise
        self._record(attempt, began, "completed", None, embeddings.usage)
        return embeddings

    def _record(
        self, attempt: _Attempt, began: float, outcome: Outcome, error: CauceError | None, usage: Usage
    ) -> None:
        candidate = attempt.candidate
        prices = candidate.facts.prices
        usage = settled(usage, prices)
        latency = self._clock.monotonic() - began
        first_delta = latency if outcome == "completed" else None
        self._metrics.attempt(candidate.provider.name, candidate.model, outcome, latency, first_delta, usage)
        self._ledger.record(
            Entry(
                at=self._clock.now(),
                request_id=attempt.request_id,
                scope=attempt.scope,
                provider=candidate.provider.name,
                model=candidate.model,
                level=candidate.level,
                outcome=outcome,
                error_code=error.code if error is not None else None,
                usage=usage,
                latency=latency,
                first_delta=first_delta,
                listed_cost=cost(usage, prices) if prices is not None else None,
                price_snapshot=prices.snapshot if prices is not None else "",
                endpoint="embeddings",
                deployment=candidate.deployment,
                n=attempt.n,
            )
        )
