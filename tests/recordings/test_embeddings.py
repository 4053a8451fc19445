"""Recorded embeddings of OpenAI and a compatible vendor, replayed into the adapter and through our own server to the SDK."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import ProviderFailure
from cauce.ports.provider import Timeouts
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.transport import HTTPTransport
from tests.recordings.replay import DATA, parameters, replaying
from tests.serving import serving, upstream_table

pytestmark = pytest.mark.anyio


def inputs(recording: dict[str, Any]) -> tuple[str, ...]:
    """As many texts as the recording has vectors."""
    return tuple([f"text {number}" for number in range(recording["expected"].get("n") or 1)])


@pytest.mark.parametrize("recording", parameters("embeddings"))
async def test_recorded_vectors_are_read(recording: dict[str, Any]) -> None:
    async with replaying() as port:
        provider = OpenAICompatible(
            "up", f"http://127.0.0.1:{port}/v1", "", HTTPTransport("up"), DIALECTS["compatible"]
        )
        try:
            if recording["status"] != 200:
                with pytest.raises(ProviderFailure) as caught:
                    await provider.embed(EmbeddingRequest("m", ("a",)), recording["id"], Timeouts())
                assert caught.value.code == "model_not_found"
                return
            made = await provider.embed(EmbeddingRequest("m", inputs(recording)), recording["id"], Timeouts())
        finally:
            await provider.aclose()
    expected = recording["expected"]
    assert [len(vector) for vector in made.vectors] == expected["dims"]
    assert made.usage.input_tokens == expected["usage"]["prompt_tokens"]
    body = json.loads((DATA / recording["file"]).read_text("utf-8"))
    if isinstance(body["data"][0]["embedding"], list):
        assert [list(vector) for vector in made.vectors] == [entry["embedding"] for entry in body["data"]]


@pytest.mark.parametrize("as_base64", [False, True], ids=["float", "base64"])
@pytest.mark.parametrize("recording", parameters("embeddings"))
async def test_the_sdk_gets_the_same_vectors_from_us(recording: dict[str, Any], as_base64: bool) -> None:
    form: Any = {} if as_base64 else {"encoding_format": "float"}
    async with replaying() as port, serving(upstream_table("up", f"http://127.0.0.1:{port}/v1")) as running:
        async with AsyncOpenAI(base_url=running.v1, api_key="k", max_retries=0) as client:
            asked = client.embeddings.create(model=f"up/{recording['id']}", input=list(inputs(recording)), **form)
            if recording["status"] != 200:
                with pytest.raises(openai.NotFoundError):
                    await asked
                return
            made = await asked
    body = json.loads((DATA / recording["file"]).read_text("utf-8"))
    for ours, theirs in zip(made.data, body["data"], strict=True):
        if isinstance(theirs["embedding"], list):
            close = pytest.approx(theirs["embedding"], rel=1e-6)
            assert ours.embedding == (close if as_base64 else theirs["embedding"])
        else:
            assert len(ours.embedding) in recording["expected"]["dims"]
