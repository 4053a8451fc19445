"""The adapter for Google's Gemini API, in front of a fake upstream."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Finish
from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import ProviderFailure, Unsupported
from cauce.domain.message import ImagePart, Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate, ModelInfo, Timeouts
from cauce.providers.gemini.provider import MOST_CONTINUATIONS, Gemini
from cauce.testing.upstream import Reply, Tokens, Upstream
from cauce.transport import HTTPTransport, Outgoing

pytestmark = pytest.mark.anyio

HELLO = Request("m", (Message("user", (TextPart("Say hello."),)),))

encode = msgspec.json.encode


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Gemini]:
    adapter = Gemini("up", upstream.root, "secret", HTTPTransport("up"))
    yield adapter
    await adapter.aclose()


def calling(provider: Gemini, request: Request = HELLO, *, model: str = "m", streamed: bool = True) -> Call:
    return Call(request=request, scope=Scope(), candidates=(Candidate(provider, model),), streamed=streamed)


def chunk(text: str, reason: str | None = None, **candidate: Any) -> bytes:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 1}
    answer = {"content": {"parts": [{"text": text}]}, "finishReason": reason, **candidate}
    return encode({"candidates": [answer], "usageMetadata": usage})


@pytest.mark.parametrize("streamed", [True, False])
async def test_answer_is_read_as_it_is_asked_for(provider: Gemini, upstream: Upstream, streamed: bool) -> None:
    upstream.answers = [Reply(reasoning="let me see", tool_calls=(("look", '{"x": 1}'),), usage=Tokens(20, 9, 4, 0, 3))]
    completion = await collect(await provider.open(calling(provider, streamed=streamed)))
    choice = completion.choices[0]
    assert (choice.text, choice.reasoning) == ("Hello from upstream.", "let me see")
    assert msgspec.json.decode(choice.tool_calls[0].arguments) == {"x": 1}
    assert choice.finish_reason == "tool_calls"
    assert msgspec.structs.replace(completion.usage, extra=None) == Usage(20, 9, 4, 0, 3)
    verb = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    assert upstream.paths == [f"/v1/models/m:{verb}"]
    assert upstream.headers[0]["x-goog-api-key"] == "secret" and "authorization" not in upstream.headers[0]


@pytest.mark.parametrize(
    ("version", "model", "path"),
    [
        (None, "gemini-2.5-flash", "/v1/models/gemini-2.5-flash:"),
        (None, "gemini-3-pro-preview", "/v1beta/models/gemini-3-pro-preview:"),
        (None, "gemini-2.0-flash-exp", "/v1beta/models/gemini-2.0-flash-exp:"),
        ("v1beta", "gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:"),
        ("v1", "gemini-3-pro-preview", "/v1/models/gemini-3-pro-preview:"),
        (None, "tunedModels/mine", "/v1/tunedModels/mine:"),
    ],
)
async def test_version_is_that_which_offers_the_model_unless_one_is_configured(
    upstream: Upstream, version: str | None, model: str, path: str
) -> None:
    provider = Gemini("up", upstream.root, "", HTTPTransport("up"), version)
    if model.startswith("tuned"):
        # The fake knows no tuned models: what it was asked is what counts.
        with pytest.raises(ProviderFailure):
            await provider.open(calling(provider, model=model))
    else:
        await collect(await provider.open(calling(provider, model=model)))
        assert upstream.paths[0].startswith(path) and "x-goog-api-key" not in upstream.headers[0]
    assert provider._of(model) == path.removesuffix(":")
    await provider.aclose()


async def test_whole_request_is_counted(provider: Gemini, upstream: Upstream) -> None:
    request = msgspec.structs.replace(
        HELLO, messages=(Message("system", (TextPart("s"),)), *HELLO.messages), tools=(Tool("f"),)
    )
    assert await provider.count_tokens(request, "m") == 7
    (asked,) = upstream.requests
    assert asked["generateContentRequest"]["model"] == "models/m"
    assert {"contents", "systemInstruction", "tools"} < asked["generateContentRequest"].keys()


@pytest.mark.parametrize(
    ("told", "usage"), [({"usageMetadata": {"promptTokenCount": 4}}, Usage(4)), ({}, Usage(3, estimated=True))]
)
async def test_tokens_of_embeddings_are_those_told_or_estimated(
    provider: Gemini, upstream: Upstream, told: dict[str, Any], usage: Usage
) -> None:
    upstream.answers = [Reply(raw=encode({"embeddings": [{"values": [0.5, 1]}, {"values": [1, 0]}], **told}))]
    request = EmbeddingRequest("e", ("a river", "dogs"), dimensions=2, task="query")
    made = await provider.embed(request, "e", Timeouts())
    assert made.vectors == ((0.5, 1.0), (1.0, 0.0)) and made.usage == usage
    first = upstream.requests[0]["requests"][0]
    assert (first["model"], first["outputDimensionality"], first["taskType"]) == ("models/e", 2, "RETRIEVAL_QUERY")


async def test_ids_of_tokens_become_no_vectors(provider: Gemini, upstream: Upstream) -> None:
    with pytest.raises(Unsupported):
        await provider.embed(EmbeddingRequest("e", ((1, 2),)), "e", Timeouts())
    assert upstream.requests == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"embeddings": [{"values": "x"}]}', b'{"embeddings": []}'])
async def test_embeddings_of_another_shape_are_a_failure(provider: Gemini, upstream: Upstream, body: bytes) -> None:
    upstream.answers = [Reply(raw=body)]
    with pytest.raises(ProviderFailure):
        await provider.embed(EmbeddingRequest("e", ("a",)), "e", Timeouts())


async def test_stream_that_its_model_interrupts_goes_on_by_itself(provider: Gemini, upstream: Upstream) -> None:
    upstream.answers = [
        Reply(chunks=(chunk("Hel"), chunk("lo ", "CONTINUATION", continuationToken="one"))),
        Reply(chunks=(chunk("you", None, continuationToken="a checkpoint"), chunk(".", "STOP"))),
    ]
    deltas = [delta async for delta in await provider.open(calling(provider))]
    assert "".join([getattr(delta, "text", "") for delta in deltas]) == "Hello you."
    assert [type(delta) for delta in deltas].count(Finish) == 1
    assert isinstance(finish := deltas[-1], Finish) and finish.usage.total_tokens == 12
    assert [asked.get("continuationToken") for asked in upstream.requests] == [None, "one"]


async def test_stream_that_never_ends_is_given_up(provider: Gemini, upstream: Upstream) -> None:
    upstream.answers = [Reply(chunks=(chunk("again", "CONTINUATION", continuationToken="t"),))]
    with pytest.raises(ProviderFailure, match="did not end"):
        await collect(await provider.open(calling(provider)))
    assert len(upstream.requests) == 1 + MOST_CONTINUATIONS


async def test_image_by_address_is_sent_as_an_address(provider: Gemini, upstream: Upstream) -> None:
    """What must not be is fetched before the adapter is asked."""
    image = Message("user", (TextPart("?"), ImagePart("https://www.youtube.com/watch?v=x")))
    await collect(await provider.open(calling(provider, Request("m", (image,)))))
    sent = upstream.requests[0]["contents"][0]["parts"][1]
    assert sent == {"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}}


class Pages:
    """A transport that answers with one page after the other."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, *pages: dict[str, Any]) -> None:
        self._pages = list(pages)
        self.asked: list[str] = []

    async def send(self, outgoing: Outgoing) -> "Pages":
        self.asked.append(outgoing.url)
        return self

    async def read(self, limit: int = 0) -> bytes:
        return encode(self._pages.pop(0))

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield await self.read()

    def leave(self, seconds: float) -> None: ...

    async def aclose(self) -> None: ...


async def test_models_are_listed_page_by_page() -> None:
    pages = Pages(
        {"models": [{"name": "models/a", "inputTokenLimit": 9}], "nextPageToken": "x y"},
        {"models": [{"name": "models/b"}, {"name": "tunedModels/c"}]},
    )
    provider = Gemini("up", "https://up.example/", "secret", pages)
    assert await provider.models() == (ModelInfo("a", 9), ModelInfo("b"), ModelInfo("tunedModels/c"))
    assert pages.asked[0] == "https://up.example/v1beta/models?pageSize=1000"
    assert pages.asked[1].endswith("pageToken=x+y") and "secret" not in "".join(pages.asked)
