"""Recorded counts of tokens and embeddings of Google's API; its answers are in `test_every_wire`."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.ports.provider import Timeouts
from cauce.providers.gemini.provider import Gemini
from cauce.transport import HTTPTransport
from tests.recordings.replay import parameters, replaying

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def gemini() -> AsyncIterator[Gemini]:
    async with replaying() as port:
        provider = Gemini("up", f"http://127.0.0.1:{port}", "", HTTPTransport("up"))
        yield provider
        await provider.aclose()


@pytest.mark.parametrize("recording", parameters("countTokens"))
async def test_recorded_count_is_read(gemini: Gemini, recording: dict[str, Any]) -> None:
    request = Request("m", (Message("user", (TextPart("?"),)),))
    if recording["status"] != 200:
        with pytest.raises(ProviderFailure):
            await gemini.count_tokens(request, recording["id"])
        return
    assert await gemini.count_tokens(request, recording["id"]) == recording["expected"]["total_tokens"]


@pytest.mark.parametrize("recording", parameters("embedContent", "batchEmbedContents"))
async def test_recorded_vectors_are_read(gemini: Gemini, recording: dict[str, Any]) -> None:
    expected = recording["expected"]
    texts = ("?",) * expected.get("n", 1)
    made = await gemini.embed(EmbeddingRequest("m", texts), recording["id"], Timeouts())
    assert len(made.vectors) == len(texts)
    assert {len(vector) for vector in made.vectors} == set(expected["dims"])
