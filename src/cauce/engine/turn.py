"""The use case: one turn, from a request to its opened answer."""

import msgspec

from cauce.domain.errors import NotCached
from cauce.domain.request import Request, Sampling, Scope
from cauce.engine.routing.router import Router
from cauce.ports.cache import ANY_ANSWER, CacheControl
from cauce.ports.provider import Call, Candidate, Deltas, Notice, Open, unnoticed


class Defaults(msgspec.Struct, frozen=True):
    """Sampling for requests that say nothing of their own."""

    temperature: float | None = None
    max_tokens: int | None = None


class Turn:
    """Takes requests to models: finds the candidates, then opens the cascade."""

    def __init__(self, router: Router, open: Open, defaults: Defaults, *, caches: bool = True) -> None:
        """`caches`: something in `open` keeps answers."""
        self._caches = caches
        self._router = router
        self._open = open
        self._defaults = defaults

    def call(
        self,
        request: Request,
        scope: Scope,
        *,
        request_id: str,
        streamed: bool,
        notice: Notice = unnoticed,
        cache: CacheControl = ANY_ANSWER,
        stream_id: str = "",
        logged: bool = False,
    ) -> Call:
        """The call `request` makes; `logged`: its answer goes into the log of streams. Raises `ModelNotFound` and `NotCached`: before anything is logged or sent."""
        if cache.only_cached and not self._caches:
            raise NotCached("only a cached answer was wanted (Cache-Control: only-if-cached), and none are kept here")
        decision = self._router.route(request)
        candidates = decision.candidates
        if logged:
            candidates = tuple([_lasting(one) for one in candidates])
        sampling = self._sampling(request.sampling)
        if sampling is not request.sampling or not request.model:
            request = msgspec.structs.replace(request, sampling=sampling, model=request.model or self._router.default)
        return Call(
            request,
            scope,
            candidates,
            request_id=request_id,
            notice=notice,
            streamed=streamed,
            cache=cache,
            stream_id=stream_id,
            private=decision.private,
        )

    async def open(self, call: Call) -> Deltas:
        """The answer, once its first delta is in hand. Raises `CauceError`."""
        return await self._open(call)

    def _sampling(self, sampling: Sampling) -> Sampling:
        temperature = sampling.temperature if sampling.temperature is not None else self._defaults.temperature
        max_tokens = sampling.max_tokens if sampling.max_tokens is not None else self._defaults.max_tokens
        if temperature == sampling.temperature and max_tokens == sampling.max_tokens:
            return sampling
        return msgspec.structs.replace(sampling, temperature=temperature, max_tokens=max_tokens)


def _lasting(candidate: Candidate) -> Candidate:
    """`candidate` with the time that it has for an answer in the log."""
    timeouts = candidate.timeouts
    return msgspec.structs.replace(candidate, timeouts=msgspec.structs.replace(timeouts, total=timeouts.logged))
