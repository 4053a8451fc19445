"""The adapter for Google's Gemini API."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import InvalidRequest, ProviderFailure, Unsupported
from cauce.domain.request import Request
from cauce.domain.tokens import CHARACTERS_PER_TOKEN, estimate_input_tokens
from cauce.domain.usage import Usage
from cauce.ports.line import Line
from cauce.ports.provider import Call, Deltas, ModelInfo, Timeouts
from cauce.providers.endpoint import Endpoint
from cauce.providers.schemas import fit_generate
from cauce.transport import Transport
from cauce.wire.figures import count
from cauce.wire.gemini.decode import GeminiDecoder
from cauce.wire.gemini.errors import refused
from cauce.wire.gemini.request import render_request

DEFAULT_MODEL = "gemini-2.5-flash"
_PREVIEWS = ("*preview*", "*-exp*")
"""Models that the version `v1` does not offer (Google, "API versions")."""

MOST_CONTINUATIONS = 8
"""Requests one answer may take beyond the first: a model that never ends must not cost without end."""

KEPT_ADDRESSES = (
    "https://generativelanguage.googleapis.com/",
    "https://www.youtube.com/",
    "https://youtu.be/",
    "gs://",
)
"""Addresses Gemini takes as they are: files uploaded to it, and videos (Google, "File input methods")."""

TOOL_NAMES = r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}"
"""What names of functions the API takes."""

_MOST_PAGES = 20
_TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}

T = TypeVar("T")


class Gemini:
    """See `ports.provider.Provider` and `ports.embedder.Embedder`. `base_url` is without a version."""

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str,
        transport: Transport,
        api_version: str | None = None,
    ) -> None:
        # Never in the address: that is what ends up in logs.
        headers = {"x-goog-api-key": api_key} if api_key else {}
        self._endpoint = Endpoint(name, base_url, headers, transport, refused, key=api_key)
        self._version = api_version

    @property
    def name(self) -> str:
        return self._endpoint.name

    @property
    def line(self) -> Line:
        """Its connections."""
        return self._endpoint.line

    async def open(self, call: Call) -> Deltas:
        decoder = GeminiDecoder(self.name, estimate_input_tokens, call.request)
        return await Deltas.opened(self._answer(call, decoder), self.name, decoder.so_far)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        body = render_request(request, model)
        generation = {"model": _whole(model), **body}
        counted = await self._endpoint.post(f"{self._of(model)}:countTokens", {"generateContentRequest": generation})
        return self._decoded(counted, _Count, "count of tokens").total_tokens

    async def embed(self, request: EmbeddingRequest, model: str, timeouts: Timeouts) -> Embeddings:
        asked = [self._embedding(request, one, model) for one in request.inputs]
        body = await self._endpoint.post(f"{self._of(model)}:batchEmbedContents", {"requests": asked}, timeouts)
        made = self._decoded(body, _Embeddings, "embeddings")
        vectors = tuple([one.values for one in ([made.embedding] if made.embedding else made.embeddings)])
        if len(vectors) != len(asked):
            raise self._misshapen(f"embeddings are {len(vectors)} where {len(asked)} were asked for")
        return Embeddings(vectors, _used(made.usage_metadata, request), model)

    async def models(self) -> tuple[ModelInfo, ...]:
        found: list[ModelInfo] = []
        token = ""
        for _ in range(_MOST_PAGES):
            query = urlencode({"pageSize": 1000, **({"pageToken": token} if token else {})})
            page = self._decoded(
                await self._endpoint.get(f"/{self._version or 'v1beta'}/models?{query}"), _Models, "list of models"
            )
            found.extend([ModelInfo(one.name.removeprefix("models/"), one.input_token_limit) for one in page.models])
            token = page.next_page_token
            if not token:
                break
        return tuple(found)

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _answer(self, call: Call, decoder: GeminiDecoder) -> AsyncGenerator[Sequence[Delta], None]:
        model = call.candidate.model
        body = render_request(call.request, model)
        fit_generate(body)
        verb = "streamGenerateContent?alt=sse" if call.streamed else "generateContent"
        for _ in range(1 + MOST_CONTINUATIONS):
            async with aclosing(self._endpoint.answer(f"{self._of(model)}:{verb}", body, call, decoder)) as batches:
                async for batch in batches:
                    if batch:
                        yield batch
            if decoder.continuation is None:
                return
            body = {**body, "continuationToken": decoder.continuation}
            decoder.resume()
        raise self._misshapen(f"answer did not end after {MOST_CONTINUATIONS} continuations")

    def _of(self, model: str) -> str:
        preview = any([fnmatchcase(model, pattern) for pattern in _PREVIEWS])
        version = self._version or ("v1beta" if preview else "v1")
        return f"/{version}/{quote(_whole(model), safe='/')}"

    def _embedding(self, request: EmbeddingRequest, text: str | tuple[int, ...], model: str) -> dict[str, object]:
        if not isinstance(text, str):
            raise Unsupported("this model makes embeddings of texts, not of token ids", field="input")
        asked: dict[str, object] = {"model": _whole(model), "content": {"parts": [{"text": text}]}}
        if request.dimensions is not None:
            asked["outputDimensionality"] = request.dimensions
        if request.task is not None:
            asked["taskType"] = _TASKS.get(request.task, request.task)
        return asked

    def _decoded(self, body: bytes, shape: type[T], what: str) -> T:
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._misshapen(f"{what} has an unknown shape: {error}") from error

    def _misshapen(self, what: str) -> ProviderFailure:
        return ProviderFailure(
            f"{self.name}: its {what}", failure="transient", provider=self.name, code="provider_error"
        )


def _whole(model: str) -> str:
    """The name of `model` as the API has it; tuned models bring theirs. Raises `InvalidRequest`."""
    if {"", ".", ".."} & set(model.split("/")):
        # As part of an address it would lead to other places of the server, with our key.
        raise InvalidRequest(f"model: {model!r} has an empty step, `.` or `..` in its name", field="model")
    return model if "/" in model else f"models/{model}"


def _used(told: "_Used | None", request: EmbeddingRequest) -> Usage:
    """The tokens of `request`: not every model tells them."""
    if told is not None and told.prompt_token_count is not None:
        return Usage(count(told.prompt_token_count))
    characters = sum([len(one) for one in request.inputs])
    return Usage(-(-characters // CHARACTERS_PER_TOKEN), estimated=True)


class _Count(msgspec.Struct, rename="camel"):
    total_tokens: int


class _Embedding(msgspec.Struct):
    values: tuple[float, ...]


class _Used(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Embeddings(msgspec.Struct, rename="camel"):
    """Some servers of this wire answer a batch of one as they answer one."""

    embeddings: list[_Embedding] = []
    embedding: _Embedding | None = None
    usage_metadata: _Used | None = None


class _Model(msgspec.Struct, rename="camel"):
    name: str
    input_token_limit: int | None = None


class _Models(msgspec.Struct, rename="camel"):
    models: list[_Model] = []
    next_page_token: str = ""
