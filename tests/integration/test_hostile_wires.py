"""Upstreams that say nonsense in every wire: the answer is a clear one, whatever the client speaks."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask
from tests.serving import Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello."}]
CONTENTS = [{"role": "user", "parts": [{"text": "Say hello."}]}]
MODELS = ("chat/m", "responses/m", "anthropic/m", "gemini/m")


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    """One provider per wire, all in front of the same upstream."""
    tables = [
        upstream_table("chat", upstream.base_url),
        upstream_table("responses", upstream.base_url, wire="responses"),
        upstream_table("anthropic", upstream.root).replace('"openai"', '"anthropic"'),
        upstream_table("gemini", upstream.root).replace('"openai"', '"gemini"'),
    ]
    async with serving("".join(tables)) as running:
        yield running


async def speak(served: Served, surface: str, model: str, *, stream: bool = False, **body: Any) -> Response:
    """Say hello to `model` through one of the surfaces."""
    if surface == "gemini":
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return await ask(served.port, "POST", f"/v1beta/models/{model}:{verb}", {"contents": CONTENTS, **body})
    path = {"chat": "/v1/chat/completions", "anthropic": "/v1/messages"}[surface]
    whole = {"model": model, "messages": HELLO, "max_tokens": 10, "stream": stream, **body}
    return await ask(served.port, "POST", path, whole)


def figures(figure: Any) -> dict[str, Any]:
    """Usage of all wires at once, every figure the same."""
    names = (
        "prompt_tokens completion_tokens total_tokens input_tokens output_tokens promptTokenCount candidatesTokenCount"
    )
    return {**dict.fromkeys(names.split(), figure), "cost": figure}


@pytest.mark.parametrize("figure", [-7, 10**400, True, "7"])
@pytest.mark.parametrize("model", ["chat/m", "anthropic/m", "gemini/m"])
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_makes_no_sense_counts_as_none_and_is_estimated(
    served: Served, upstream: Upstream, model: str, figure: Any, stream: bool
) -> None:
    upstream.answers = [Reply(text="hello", usage=figures(figure))]
    response = await speak(served, "chat", model, stream=stream, stream_options={"include_usage": True})
    assert response.status == 200 and response.complete and b"hello" in response.body
    usage = response.frames()[-1]["usage"] if stream else response.json()["usage"]
    assert type(usage["prompt_tokens"]) is int and 0 < usage["prompt_tokens"] < 100
    assert (await ask(served.port, "GET", "/metrics")).status == 200


@pytest.mark.parametrize("header", ["inf", "nan", "-1", "9" * 400, "1e308"])
@pytest.mark.parametrize("surface", ["chat", "anthropic", "gemini"])
@pytest.mark.parametrize("model", MODELS)
async def test_waits_nobody_can_mean_are_no_waits(
    served: Served, upstream: Upstream, surface: str, model: str, header: str
) -> None:
    upstream.answers = [Reply(status=402, error={"message": "no money"}, headers={"retry-after-ms": header})]
    response = await speak(served, surface, model)
    assert response.status == 429 and "no money" in response.body.decode()
    assert "inf" not in response.body.decode()


async def test_delay_in_an_error_of_googles_that_nobody_can_mean_is_none(served: Served, upstream: Upstream) -> None:
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    error = {"message": "slow down, limit: 0", "code": 429, "details": [{"@type": kind, "retryDelay": "9" * 400 + "s"}]}
    upstream.answers = [Reply(status=429, error=error)]
    response = await speak(served, "gemini", "gemini/m")
    assert response.status == 429 and "details" not in response.json()["error"]


@pytest.mark.parametrize("name", ["m\r\nX-Evil: 1", "m\0", "\x7f", "m" * 600])
@pytest.mark.parametrize("surface", ["chat", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
async def test_model_name_that_could_be_no_header_is_refused_before_anybody_is_asked(
    served: Served, upstream: Upstream, surface: str, name: str, stream: bool
) -> None:
    response = await speak(served, surface, f"chat/{name}", stream=stream)
    assert (response.status, response.complete) == (400, True)
    assert "x-evil" not in response.headers and upstream.requests == []


async def test_model_name_in_an_address_cannot_hide_a_line_end(served: Served, upstream: Upstream) -> None:
    response = await speak(served, "gemini", "gemini/m%0d%0aX-Evil:1")
    assert response.status == 400 and upstream.requests == []


async def test_model_name_for_embeddings_is_held_to_the_same(served: Served, upstream: Upstream) -> None:
    response = await ask(served.port, "POST", "/v1/embeddings", {"model": "chat/m\n", "input": "a"})
    assert response.status == 400 and upstream.requests == []


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//b", "./x", "a/.."])
async def test_model_name_does_not_lead_elsewhere_on_the_server(served: Served, upstream: Upstream, name: str) -> None:
    response = await speak(served, "chat", f"gemini/{name}")
    assert response.status == 400 and response.json()["error"]["param"] == "model"
    assert upstream.paths == []
