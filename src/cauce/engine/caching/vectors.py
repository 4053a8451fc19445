"""Vectors that were made before: the same model makes the same of the same texts.

A request with few texts is looked up by itself: that is a question somebody asks. One with many is a library being read in, once; it
would push the answers out. It is looked up, and kept, for those who ask for it with `Cache-Control`.
"""

import msgspec

from cauce.domain.delta import Attempt, Status
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import NotCached
from cauce.domain.request import Scope
from cauce.engine.caching.encoding import gratis
from cauce.engine.caching.shelf import Gift, Shelf
from cauce.engine.embedding import Embedding
from cauce.ports.cache import Cache, CachedAnswer
from cauce.ports.provider import ANY_ANSWER, CacheControl, Course, Notice, unnoticed

FEW = 16
"""Texts of a request that is looked up by itself."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Embeddings).decode


class Asker(msgspec.Struct, frozen=True):
    """Who wants vectors, what is told of it meanwhile, and what has become of it."""

    scope: Scope
    request_id: str
    notice: Notice = unnoticed
    cache: CacheControl = ANY_ANSWER
    course: Course = msgspec.field(default_factory=Course)


class CachedEmbedding:
    """Embeddings behind the cache. Without a shelf nothing is kept."""

    def __init__(self, embedding: Embedding, shelf: Shelf | None) -> None:
        self._embedding = embedding
        self._shelf = shelf

    async def embed(self, request: EmbeddingRequest, asker: Asker) -> Embeddings:
        """The vectors. Raises what `Embedding.embed` raises, and `NotCached` where only those of before were wanted."""
        control, shelf = asker.cache, self._shelf
        key: bytes | None = None
        place: Cache | None = None
        if shelf is not None and control.store and (control.wanted or len(request.inputs) <= FEW):
            names, private = self._embedding.names(request)
            key = shelf.keys.of_vectors(request, asker.scope, names, private=private)
            place = shelf.place(private=private)
        if shelf is not None and place is not None and key is not None and control.read:
            answer = await place.get(key)
            given = self._given(shelf, answer, asker, request.user) if answer is not None else None
            if given is not None:
                return given
        if control.only_cached:
            raise NotCached("only cached vectors were wanted (Cache-Control: only-if-cached), and there are none")
        if shelf is None or place is None or key is None:
            made, _ = await self._embedding.embed(request, asker.scope, asker.request_id, asker.notice)
            return made
        shelf.tally.misses += 1
        asker.course.cache = "miss"
        asked: list[Attempt] = []

        def notice(delta: Status | Attempt) -> None:
            if isinstance(delta, Attempt):
                asked.append(delta)
            asker.notice(delta)

        made, _ = await self._embedding.embed(request, asker.scope, asker.request_id, notice)
        answer = self._kept(shelf, made, asked[-1])
        if answer is not None:
            shelf.tally.stored += 1
            await place.put(key, answer, shelf.settings.keep)
        return made

    def _kept(self, shelf: Shelf, made: Embeddings, attempt: Attempt) -> CachedAnswer | None:
        """What is to be kept; None for vectors that are too large for it."""
        try:
            written = _encode(msgspec.structs.replace(made, usage=gratis(made.usage)))
        except (OverflowError, ValueError):
            return None
        if len(written) > shelf.settings.max_answer:
            return None
        return CachedAnswer(written, shelf.books.clock.now(), attempt.provider, attempt.model)

    def _given(self, shelf: Shelf, answer: CachedAnswer, asker: Asker, user: str | None) -> Embeddings | None:
        age = shelf.age(answer)
        use = shelf.use(age, asker.cache)
        if use == "miss":
            return None
        began = shelf.books.clock.monotonic()
        try:
            vectors = _decode(answer.deltas)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        asker.course.cache, asker.course.age = use, age
        shelf.tally.hits += use == "hit"
        shelf.tally.stale += use == "stale"
        strategy = "cache" if use == "hit" else "stale"
        asker.notice(Attempt(1, answer.provider, answer.model, "cache", strategy=strategy))
        scope = asker.scope.of(user)
        gift = Gift(shelf.books, scope, asker.request_id, answer.provider, answer.model, began, endpoint="embeddings")
        gift.record("completed", vectors.usage)
        return vectors
