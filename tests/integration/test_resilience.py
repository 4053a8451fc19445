"""Providers and routes with retry, breaker and recovery of their own: the server as it is served, in front of upstreams that count."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, within
from tests.serving import MESSAGES, Served, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

BUSY = Reply(status=503, error={"message": "busy"})
TALE = " ".join([f"palabra{place}" for place in range(60)])


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


async def message(served: Served, model: str, **more: Any) -> Response:
    return await within(ask(served.port, "POST", "/llm/message", {"model": model, "messages": MESSAGES, **more}), 30)


async def asked(served: Served, upstream: Upstream, model: str) -> int:
    """How often `upstream` is asked by one call for `model`."""
    before = len(upstream.requests)
    await message(served, model)
    return len(upstream.requests) - before


async def test_each_provider_is_asked_as_often_as_it_says_and_a_route_says_it_before_them(
    upstream: Upstream, other: Upstream
) -> None:
    upstream.answers, other.answers = [BUSY], [BUSY]
    toml = "[retry]\nattempts = 2\nbase = 0\n[breaker]\nenabled = false\n"
    toml += upstream_table("up", upstream.base_url) + "[providers.up.retry]\nattempts = 3\n"
    toml += upstream_table("other", other.base_url) + "[providers.other.retry]\nattempts = 1\n"
    toml += upstream_table("plain", other.base_url)
    toml += '[models.both]\ncandidates = ["up/m", "other/m"]\n'
    toml += '[models.twice]\ncandidates = ["up/m", "other/m"]\nretry = { attempts = 2 }\n'
    async with serving(toml) as served:
        both = await message(served, "both")
        assert (both.status, both.headers["x-cauce-attempts"]) == (503, "4")
        assert (len(upstream.requests), len(other.requests)) == (3, 1)
        await message(served, "twice")
        assert (len(upstream.requests), len(other.requests)) == (5, 3)
        assert await asked(served, other, "plain/m") == 2


@pytest.mark.parametrize("surface", SURFACES, ids=[surface.name for surface in SURFACES])
async def test_prompt_that_a_filter_before_the_provider_refuses_closes_the_model_to_nobody_else(
    upstream: Upstream, surface: Surface
) -> None:
    page = Reply(status=403, raw=b"<html>Request blocked.</html>", headers={"content-type": "text/html"})
    upstream.answers = [*[page] * 6, Reply(text="hello")]
    provider = surface.provider.format(root=upstream.root)
    async with serving(f'[providers.up]\n{provider}api_key = "k"\n') as served:
        blocked = [(await within(surface.asked(served.port, "up/m", stream=False))).status for _ in range(6)]
        health = (await ask(served.port, "GET", "/health")).json()
        other = await within(surface.asked(served.port, "up/m", stream=False))
    assert blocked == [502] * 6 and other.text == "hello"
    assert "circuits" not in health["providers"]["up"] and len(upstream.requests) == 7


async def test_vectors_are_asked_for_as_often_as_their_provider_says(upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    toml = "[retry]\nbase = 0\n" + upstream_table("up", upstream.base_url) + "[providers.up.retry]\nattempts = 2\n"
    async with serving(toml) as served:
        refused = await ask(served.port, "POST", "/v1/embeddings", {"model": "up/m", "input": "a text"})
    assert refused.status == 503 and len(upstream.requests) == 2


async def test_circuit_opens_as_its_own_provider_says(upstream: Upstream, other: Upstream) -> None:
    upstream.answers, other.answers = [BUSY], [BUSY]
    toml = "[retry]\nattempts = 1\n" + upstream_table("up", upstream.base_url, breaker={})
    toml = toml.replace("breaker = {}", "breaker = { results = 1 }") + upstream_table("other", other.base_url)
    toml += '[models.quick]\ncandidates = ["up/m", "offline"]\n[models.usual]\ncandidates = ["other/m", "offline"]\n'
    async with serving(toml) as served:
        for _ in range(8):
            for model in ("quick", "usual"):
                assert (await message(served, model)).headers["x-cauce-level"] == "offline"
        health = (await ask(served.port, "GET", "/health")).json()
    assert (len(upstream.requests), len(other.requests)) == (1, 5)
    assert [circuit["state"] for circuit in health["providers"]["up"]["circuits"]] == ["open"]
    assert [circuit["state"] for circuit in health["providers"]["other"]["circuits"]] == ["open"]


async def test_route_with_a_breaker_of_its_own_leaves_a_model_alone_that_others_still_ask(upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    toml = "[retry]\nattempts = 1\n" + upstream_table("up", upstream.base_url)
    toml += '[models.careful]\ncandidates = ["up/m", "offline"]\n[models.careful.breaker]\nresults = 1\n'
    toml += '[models.usual]\ncandidates = ["up/m", "offline"]\n'
    toml += '[models.stubborn]\ncandidates = ["up/m", "offline"]\nbreaker = { enabled = false }\n'
    async with serving(toml) as served:
        assert [await asked(served, upstream, "careful") for _ in range(3)] == [1, 0, 0]
        assert [await asked(served, upstream, "usual") for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]
        assert [await asked(served, upstream, "stubborn") for _ in range(7)] == [1] * 7
        circuits = (await ask(served.port, "GET", "/health")).json()["providers"]["up"]["circuits"]
        figures = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert [(one.get("route", ""), one["state"]) for one in circuits] == [("careful", "open"), ("", "open")]
    line = 'cauce_circuit_open{deployment="",endpoint="chat",model="m",provider="up",route="%s"} 1.0'
    assert line % "careful" in figures and line % "" in figures


async def test_one_provider_may_retry_and_have_a_breaker_where_nobody_else_does(
    upstream: Upstream, other: Upstream
) -> None:
    upstream.answers, other.answers = [BUSY], [BUSY]
    toml = "[retry]\nattempts = 1\nbase = 0\n[breaker]\nenabled = false\n" + upstream_table("other", other.base_url)
    toml += upstream_table("up", upstream.base_url)
    toml += "[providers.up.retry]\nattempts = 2\n[providers.up.breaker]\nenabled = true\nresults = 2\n"
    toml += '[models.a]\ncandidates = ["up/m", "offline"]\n[models.b]\ncandidates = ["other/m", "offline"]\n'
    async with serving(toml) as served:
        assert [await asked(served, upstream, "a") for _ in range(3)] == [2, 0, 0]
        assert [await asked(served, other, "b") for _ in range(7)] == [1] * 7


async def test_broken_answer_is_gone_on_with_as_often_as_its_route_says(upstream: Upstream) -> None:
    upstream.answers = [Reply(TALE, cut_after=5)]
    toml = "[retry]\nattempts = 1\n[breaker]\nenabled = false\n[recovery]\nattempts = 1\n"
    toml += upstream_table("up", upstream.base_url) + "[providers.up.recovery]\nattempts = 3\n"
    toml += '[models.never]\ncandidates = ["up/m"]\nrecovery = { attempts = 0 }\n'
    toml += '[models.twice]\ncandidates = ["up/m"]\n[models.twice.recovery]\nattempts = 2\n'
    toml += '[models.usual]\ncandidates = ["up/m"]\n'
    async with serving(toml) as served:
        for model, attempts in {"never": 1, "twice": 3, "usual": 4, "up/m": 4}.items():
            before = len(upstream.requests)
            for stream_id in ("", "s-"):
                path = f"/chat/stream/{stream_id}{model.replace('/', '-')}" if stream_id else "/llm/message"
                body = {"model": model, "messages": MESSAGES, "stream": True}
                last = (await within(ask(served.port, "POST", path, body), 30)).frames()[-1]
                assert last["type"] == "error" and last["final_error"], last
            assert len(upstream.requests) - before == 2 * attempts, model


async def test_provider_whose_answers_are_not_to_be_gone_on_with_may_still_go_on_with_others(
    upstream: Upstream, other: Upstream
) -> None:
    upstream.answers = [Reply(TALE, cut_after=5)]
    other.answers = [Reply("and the rest of it.")]
    toml = "[retry]\nattempts = 1\n[breaker]\nenabled = false\n" + upstream_table("up", upstream.base_url)
    toml += upstream_table("other", other.base_url) + "[providers.other.recovery]\nattempts = 0\n"
    toml += '[models.there]\ncandidates = ["up/m", "other/m"]\n[models.back]\ncandidates = ["other/m", "up/m"]\n'
    async with serving(toml) as served:
        gone_on = (await message(served, "there", stream=True)).frames()[-1]
        other.script(Reply(TALE, cut_after=5))
        upstream.script(Reply("and the rest of it."))
        ended = (await message(served, "back", stream=True)).frames()[-1]
    assert gone_on["type"] == "complete" and gone_on["data"].endswith("and the rest of it.")
    assert ended["type"] == "error" and ended["final_error"] and upstream.requests == []
