"""Where requests go, over HTTP, in front of several fake upstreams."""

from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import ask
from tests.serving import MESSAGES, Served, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

NO_RETRY = "[retry]\nattempts = 1\n[breaker]\nenabled = false\n[cache]\nenabled = false\n"
POEM = [{"role": "user", "content": "Write a poem."}]
LONG = [{"role": "user", "content": "word " * 6000}]


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream(Reply(text="the other")) as server:
        yield server


async def say(served: Served, model: str, **fields: Any) -> tuple[int, dict[str, str], Any]:
    body = {"model": model, "messages": MESSAGES, **fields}
    response = await ask(served.port, "POST", "/llm/message", body)
    return response.status, response.headers, response.json()


def deployments(*places: tuple[str, Upstream, dict[str, Any]]) -> str:
    toml = upstream_table("up", places[0][1].base_url, default_model="m")
    for name, upstream, settings in places:
        table = {"name": name, "api_key": f"key-of-{name}", "base_url": upstream.base_url, **settings}
        toml += "[[providers.up.deployments]]\n"
        toml += "".join([f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in table.items()])
    return toml + NO_RETRY


async def test_deployments_have_keys_of_their_own_and_stand_in_for_each_other(
    upstream: Upstream, other: Upstream
) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"})]
    toml = deployments(("one", upstream, {"weight": 1000}), ("two", other, {"weight": 0.001}))
    async with serving(toml, chance=Random(1)) as served:
        status, headers, body = await say(served, "up")
    assert (status, body["response"], body["model"]) == (200, "the other", "up/m")
    assert (headers["x-cauce-attempts"], headers["x-cauce-level"]) == ("2", "primary")
    assert upstream.headers[0]["authorization"] == "Bearer key-of-one"
    assert other.headers[0]["authorization"] == "Bearer key-of-two"


async def test_deployments_come_before_the_next_candidate(upstream: Upstream, other: Upstream) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"})]
    toml = deployments(("one", upstream, {}), ("two", upstream, {})) + upstream_table("next", other.base_url)
    toml += '[models.r]\ncandidates = ["up", "next/m"]\n'
    async with serving(toml) as served:
        _, headers, body = await say(served, "r")
    assert len(upstream.requests) == 2
    assert (headers["x-cauce-attempts"], headers["x-cauce-level"], body["model"]) == ("3", "fallback", "next/m")


async def test_deployments_share_by_weight(upstream: Upstream, other: Upstream) -> None:
    toml = deployments(("one", upstream, {"weight": 3}), ("two", other, {}))
    async with serving(toml, chance=Random(5)) as served:
        for _ in range(200):
            await say(served, "up")
    # Two on one machine answer alike, but for the noise of it: their weights decide most of the time.
    assert len(upstream.requests) + len(other.requests) == 200
    assert 100 <= len(upstream.requests) <= 190


async def test_embeddings_are_made_by_deployments_too(upstream: Upstream, other: Upstream) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"})]
    toml = deployments(("one", upstream, {}), ("two", other, {}))
    async with serving(toml) as served:
        for _ in range(4):
            made = await ask(served.port, "POST", "/v1/embeddings", {"model": "up/m", "input": "text"})
            assert made.status == 200
    assert {headers["authorization"] for headers in other.headers} == {"Bearer key-of-two"}


async def test_balanced_route_leaves_a_candidate_that_is_down_to_the_last(upstream: Upstream, other: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "down"})]
    toml = upstream_table("a", upstream.base_url) + upstream_table("b", other.base_url) + NO_RETRY
    toml += '[models.r]\nroute = "balanced"\ncandidates = [{ model = "a/m", weight = 5 }, "b/m"]\n'
    async with serving(toml, chance=Random(2)) as served:
        answers = [await say(served, "r") for _ in range(20)]
    assert {status for status, _, _ in answers} == {200}
    assert len(upstream.requests) == 1


async def test_tiered_route_asks_by_the_tiers_of_its_providers_and_leaves_the_one_that_rests_to_the_last(
    upstream: Upstream, other: Upstream
) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"})]
    toml = upstream_table("b", other.base_url, tier=5) + upstream_table("a", upstream.base_url, tier=1)
    toml += '[models.r]\nroute = "tiered"\ncandidates = ["b/m", "a/m", "offline"]\n[retry]\nattempts = 1\n'
    async with serving(toml + "[breaker]\nresults = 2\n") as served:
        body = {"model": "r", "messages": MESSAGES}
        explained = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
        answers = [await say(served, "r") for _ in range(4)]
        after = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
    assert [(one["name"], one["why"]) for one in explained["candidates"]] == [
        ("a/m", "tier"),
        ("b/m", "tier"),
        ("offline", "resort"),
    ]
    assert explained["route"] == "tiered" and explained["candidates"][1]["text"] == "by its tier 5"
    # It was asked first until its circuit opened.
    assert [headers["x-cauce-attempts"] for _, headers, _ in answers] == ["2", "2", "1", "1"]
    assert {body["model"] for _, _, body in answers} == {"b/m"}
    assert [one["name"] for one in after["candidates"]] == ["b/m", "a/m", "offline"]


def hybrid(local: Upstream, cloud: Upstream, *rules: str) -> str:
    toml = upstream_table("near", local.base_url) + upstream_table("far", cloud.base_url, local=False) + NO_RETRY
    return toml + "\n".join(['[models.h]\nroute = "hybrid"\ncandidates = ["far/m", "near/m"]', *rules, ""])


async def test_hybrid_route_decides_by_task_length_and_preference(upstream: Upstream, other: Upstream) -> None:
    toml = hybrid(upstream, other, "[models.h.tasks]", 'code_generation = "local"', 'creative_writing = "cloud"')
    async with serving(toml) as served:
        models = [
            (await say(served, "h"))[2]["model"],
            (await say(served, "h", messages=LONG))[2]["model"],
            (await say(served, "h", messages=POEM, task="creative_writing"))[2]["model"],
            (await say(served, "h", messages=LONG, metadata={"task": "code_generation"}))[2]["model"],
        ]
    assert models == ["near/m", "far/m", "far/m", "near/m"]


@pytest.mark.parametrize("first", ["local", "cloud"])
async def test_one_side_stands_in_for_the_other(upstream: Upstream, other: Upstream, first: str) -> None:
    (upstream if first == "local" else other).answers = [Reply(status=503, error={"message": "busy"})]
    async with serving(hybrid(upstream, other, f'prefer = "{first}"')) as served:
        status, headers, body = await say(served, "h")
    assert (status, headers["x-cauce-level"]) == (200, "fallback")
    assert body["model"] == ("far/m" if first == "local" else "near/m")


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_task_reaches_the_route_on_every_surface(upstream: Upstream, other: Upstream, surface: Surface) -> None:
    async with serving(hybrid(upstream, other, 'tasks = { poem = "cloud" }')) as served:
        body = {**surface.body, "model": "h"}
        for told in ({"body": {"metadata": {"task": "poem"}}}, {"headers": {"x-cauce-task": "poem"}}):
            response = await ask(
                served.port, "POST", surface.path, {**body, **told.get("body", {})}, told.get("headers")
            )
            assert response.headers["x-cauce-model"] == "far/m", response.body


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("stream", [False, True])
async def test_private_request_never_leaves_this_machine(
    upstream: Upstream, other: Upstream, surface: Surface, stream: bool
) -> None:
    """By metadata or header, to a route, a fallback or a model of the cloud."""
    upstream.answers = [Reply(status=503, error={"message": "busy"})]
    async with serving(hybrid(upstream, other, "hedge = 0.01")) as served:
        body = {**surface.body, "stream": stream}
        for model in ("h", "far/m"):
            for metadata, headers in (({"privacy": "local"}, {}), ({}, {"x-cauce-privacy": "local"})):
                extra = {"metadata": metadata} if metadata else {}
                asked = {**body, "model": model, "fallbacks": ["far/m"], **extra}
                response = await ask(served.port, "POST", surface.path, asked, headers)
                assert response.status != 200 or b"error" in response.body
    assert other.requests == [] and upstream.requests


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "secret"}),
        ("/v1/messages/count_tokens", {"messages": MESSAGES}),
        ("/v1/responses/input_tokens", {"input": "secret"}),
        ("/v1/completions", {"prompt": "secret"}),
        ("/v1beta/models/far%2Fm:generateContent", {"contents": [{"parts": [{"text": "secret"}]}]}),
        ("/v1beta/models/far%2Fm:countTokens", {"contents": [{"parts": [{"text": "secret"}]}]}),
        ("/chat/stream/private", {"messages": MESSAGES}),
    ],
)
async def test_privacy_holds_on_the_other_surfaces_too(
    upstream: Upstream, other: Upstream, path: str, body: dict[str, Any]
) -> None:
    async with serving(hybrid(upstream, other)) as served:
        body = body if "v1beta" in path else {**body, "model": "far/m"}
        response = await ask(served.port, "POST", path, body, {"x-cauce-privacy": "local"})
    assert response.status == 404 or b"stays on this machine" in response.body
    assert other.requests == []


async def test_mistyped_wish_for_privacy_is_refused(upstream: Upstream, other: Upstream) -> None:
    async with serving(hybrid(upstream, other)) as served:
        status, _, body = await say(served, "far/m", metadata={"privacy": "locla"})
    assert status == 400 and 'privacy: is "local"' in body["error"]
    assert other.requests == []


async def test_private_route_without_a_model_here_says_so(other: Upstream) -> None:
    toml = upstream_table("far", other.base_url, local=False)
    toml += '[models.p]\ncandidates = ["ollama/x", "far/m"]\nprivacy = "local"\n'
    async with serving(toml) as served:
        status, _, body = await say(served, "p", fallbacks=["far/m"])
    assert status == 404 and "stays on this machine" in body["error"]
    assert other.requests == []


async def test_explanation_is_what_happens(upstream: Upstream, other: Upstream) -> None:
    toml = hybrid(upstream, other, 'tasks = { poem = "cloud" }')
    requests: tuple[dict[str, Any], ...] = (
        {},
        {"task": "poem"},
        {"messages": LONG},
        {"metadata": {"privacy": "local"}},
        {"fallbacks": ["offline"]},
    )
    async with serving(toml) as served:
        for fields in requests:
            body = {"model": "h", "messages": MESSAGES, **fields}
            told = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
            _, headers, _ = await say(served, "h", **fields)
            assert told["candidates"][0]["name"] == headers["x-cauce-model"]
        names = [place["name"] for place in told["candidates"]]
        upstream.answers = other.answers = [Reply(status=503, error={"message": "busy"})]
        _, _, answered = await say(served, "h", **requests[-1])
    asked = [f"{one['provider']}/{one['model']}".rstrip("/") for one in answered["attempts"]]
    assert names == ["near/m", "far/m", "offline"] == asked


async def test_explanation_tells_the_figures_and_asks_nobody(upstream: Upstream, other: Upstream) -> None:
    toml = hybrid(upstream, other, 'privacy = "local"')
    toml += '[facts."near/*"]\ncontext_window = 4096\n[limits.models."near/m"]\nrequests_per_minute = 7\n'
    async with serving(toml) as served:
        body = {"model": "h", "messages": MESSAGES}
        told = (await ask(served.port, "POST", "/admin/route/explain?tokens=9000", body)).json()
        small = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
        wrong = await ask(served.port, "POST", "/admin/route/explain?tokens=many", body)
    assert (told["private"], told["tokens"], told["candidates"]) == (True, 9000, [])
    assert told["left_out"] == [
        {"name": "far/m", "reason": "privacy", "text": "it is not on this machine"},
        {
            "name": "near/m",
            "reason": "window",
            "text": "the request has about 9000 tokens, and its window 4096",
            "tokens": 9000,
            "window": 4096,
        },
    ]
    [place] = small["candidates"]
    assert (place["name"], place["local"], place["window"], place["fits"]) == ("near/m", True, 4096, True)
    assert place["limits"] == ["the limit of 7 requests a minute of model near/m"]
    assert wrong.status == 400
    assert upstream.requests == other.requests == []


async def test_explanation_shows_how_candidates_do(upstream: Upstream, other: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "down"})]
    toml = upstream_table("a", upstream.base_url) + upstream_table("b", other.base_url)
    toml += (
        '[retry]\nattempts = 1\n[breaker]\nresults = 1\n[models.r]\nroute = "fastest"\ncandidates = ["a/m", "b/m"]\n'
    )
    async with serving(toml) as served:
        await say(served, "r")
        told = (await ask(served.port, "POST", "/admin/route/explain", {"model": "r", "messages": MESSAGES})).json()
    first, second = told["candidates"]
    assert first["name"] == "b/m" and first["latency"] > 0 and first["why"] == "fastest"
    assert second["circuit"] == "open" and second["resting"] > 0


async def test_explanation_needs_a_key_where_there_are_keys(upstream: Upstream) -> None:
    toml = upstream_table("up", upstream.base_url) + f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(toml) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        refused = await ask(served.port, "POST", "/admin/route/explain", body)
        told = await ask(served.port, "POST", "/admin/route/explain", body, {"Authorization": "Bearer secret"})
    assert (refused.status, told.status) == (401, 200)


async def test_unknown_model_is_explained_as_it_is_refused(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        response = await ask(served.port, "POST", "/admin/route/explain", {"model": "nix", "messages": MESSAGES})
    assert response.status == 404 and response.json()["error_code"] == "model_not_found"


async def test_draws_spread_over_equals(upstream: Upstream, other: Upstream) -> None:
    toml = upstream_table("a", upstream.base_url) + upstream_table("b", other.base_url) + NO_RETRY
    toml += '[models.r]\nroute = "balanced"\ncandidates = ["a/m", "b/m"]\n'
    async with serving(toml, chance=Random(9)) as served:
        counted = Counter([(await say(served, "r"))[2]["model"] for _ in range(60)])
    assert set(counted) == {"a/m", "b/m"}
