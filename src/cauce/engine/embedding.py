"""The use case: texts to vectors.

Vectors of two models do not mix, so no other model is ever asked instead: only the same model on another provider of the route. Apart
from that an embedding is a call like others, and passes the same policies.
"""

from contextlib import aclosing

from cauce.domain.delta import Finish
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import InvalidRequest, NotCached
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Prompt, Request, Sampling, Scope
from cauce.engine.routing.router import Router
from cauce.ports.cache import ANY_ANSWER, CacheControl
from cauce.ports.provider import Call, Candidate, Deltas, Notice, Open, unnoticed


class Vectors(Deltas):
    """An answer that is vectors: of deltas it has only its end, which says what it used."""

    __slots__ = ("embeddings",)

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__(None, (Finish("stop", embeddings.usage),))
        self.embeddings = embeddings


def opening_vectors(router: Router) -> Open:
    """What asks `call.candidate` for the vectors of `call.embedding`."""

    async def opened(call: Call) -> Deltas:
        candidate = call.candidate
        embedder = router.embedder(candidate)
        assert embedder is not None and call.embedding is not None, "only calls for vectors come here"
        return Vectors(await embedder.embed(call.embedding, candidate.model, candidate.timeouts))

    return opened


class Embedding:
    """Takes texts to the model that makes vectors of them. `open` is that of `opening_vectors`, behind its policies."""

    def __init__(self, router: Router, open: Open, *, caches: bool = True) -> None:
        """`caches`: something in `open` keeps vectors."""
        self._router = router
        self._open = open
        self._caches = caches

    def call(
        self,
        request: EmbeddingRequest,
        scope: Scope,
        *,
        request_id: str,
        notice: Notice = unnoticed,
        cache: CacheControl = ANY_ANSWER,
    ) -> Call:
        """The call `request` makes. Raises `ModelNotFound`, `NotCached`, and `InvalidRequest` for a model no provider makes vectors with."""
        if cache.only_cached and not self._caches:
            raise NotCached("only cached vectors were wanted (Cache-Control: only-if-cached), and none are kept here")
        candidates, private = self._candidates(request)
        if not candidates:
            raise InvalidRequest(
                f"no provider of model {request.model or self._router.default!r} makes embeddings: name an embedding "
                "model, such as `openai/text-embedding-3-small`",
                field="model",
            )
        return Call(
            _weighed(request),
            scope,
            candidates,
            request_id,
            notice=notice,
            streamed=False,
            cache=cache,
            embedding=request,
            private=private,
        )

    async def embed(self, call: Call) -> Embeddings:
        """The vectors. Raises what the last provider raised."""
        async with aclosing(await self._open(call)) as deltas:
            assert isinstance(deltas, Vectors), "no policy makes another answer of it"
            while await deltas.read():
                # Its end: whoever accounts for it is told.
                pass
        return deltas.embeddings

    def _candidates(self, request: EmbeddingRequest) -> tuple[tuple[Candidate, ...], bool]:
        """The first candidate that can, and those after it that offer the very same model; and whether it is private."""
        decision = self._router.route(Request(request.model, (), privacy=request.privacy))
        found: list[Candidate] = []
        for candidate in decision.candidates:
            if self._router.embedder(candidate) is not None and (not found or candidate.model == found[0].model):
                found.append(candidate)
        return tuple(found), decision.private


def _weighed(request: EmbeddingRequest) -> Request:
    """`request` as one to be estimated: all it has is input, and what comes of that is always the same."""
    said = Message("user", tuple([TextPart(each) for each in request.inputs if isinstance(each, str)]))
    ids = sum([len(each) for each in request.inputs if not isinstance(each, str)])
    return Request(
        request.model,
        (said,),
        Sampling(temperature=0.0, max_tokens=0),
        user=request.user,
        timeout=request.timeout,
        prompt=Prompt("", tokens=ids) if ids else None,
    )
