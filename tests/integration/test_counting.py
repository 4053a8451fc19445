"""Counting tokens is asked of providers within the guards that answers have; where those forbid it, an estimate does."""

import asyncio
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, within
from tests.serving import MESSAGES, Served, serving

pytestmark = pytest.mark.anyio

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("/v1/messages/count_tokens", {"model": "up/m", "messages": MESSAGES}),
    "gemini": ("/v1beta/models/up/m:countTokens", {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}),
    "responses": ("/v1/responses/input_tokens", {"model": "up/m", "input": "Say hello."}),
}


def table(upstream: Upstream, more: str = "") -> str:
    return f'[providers.up]\nkind = "anthropic"\nbase_url = "{upstream.root}"\napi_key = "k"\n{more}'


async def count(served: Served, surface: str = "anthropic", **headers: str) -> Response:
    path, body = ASKED[surface]
    got = await within(ask(served.port, "POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()}))
    assert got.status == 200, got.body
    return got


@pytest.mark.parametrize("surface", ASKED)
async def test_count_has_the_time_that_its_client_gives_it(upstream: Upstream, surface: str) -> None:
    upstream.answers = [Reply(silent=True)]
    async with serving(table(upstream)) as served:
        got = await count(served, surface, x_cauce_timeout="0.2")
        await within(upstream.closed.wait())
    assert got.headers["x-cauce-estimated"] == "true" and len(upstream.requests) == 1


async def test_count_does_not_ask_a_provider_that_is_left_alone(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=401, error={"message": "no such key", "type": "authentication_error"}), Reply()]
    async with serving(table(upstream)) as served:
        refused = await ask(served.port, "POST", "/v1/messages", {**ASKED["anthropic"][1], "max_tokens": 5})
        got = await count(served)
    assert refused.status == 502
    assert got.headers["x-cauce-estimated"] == "true" and len(upstream.requests) == 1


@pytest.mark.parametrize(
    "limits",
    ["requests_per_minute = 2\n", '[limits.keys."*"]\nrequests_per_minute = 2\n'],
    ids=["of the provider", "of the key"],
)
async def test_counts_are_requests_under_the_limits_of_key_and_provider(upstream: Upstream, limits: str) -> None:
    async with serving(table(upstream, limits)) as served:
        told = [(await count(served)).headers.get("x-cauce-estimated", "") for _ in range(4)]
        body = {"model": "up/m", "messages": MESSAGES, "timeout": 0.5}
        answer = await within(ask(served.port, "POST", "/llm/message", body))
    assert (told[0], told[-1]) == ("", "true") and len(upstream.requests) == told.count("")
    assert answer.status == 429, "an answer finds what the counts have used"


async def test_count_that_its_client_gives_up_lets_go_of_its_place(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True), Reply()]
    async with serving(table(upstream, "max_concurrent = 1\n")) as served:
        leaving = asyncio.create_task(count(served))
        await within(upstream.asked.wait())
        beside = await count(served)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await within(upstream.closed.wait())
        after = await count(served)
    assert beside.headers["x-cauce-estimated"] == "true" and "x-cauce-estimated" not in after.headers
