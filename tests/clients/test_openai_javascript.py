"""The official `openai` SDK for JavaScript, unchanged, against a server process in front of a fake upstream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.clients.node import Node, run, script
from tests.clients.process import ONCE, Cauce, Proxy, cauce, in_front_of
from tests.http import within

pytestmark = pytest.mark.anyio

HELLO = "Hello from upstream."
CALL = Reply(text="", tool_calls=(("weather", '{"city": "Sevilla"}'),))
KEYED = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'


@pytest.fixture
async def server(node: Node, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with cauce(tmp_path, in_front_of(upstream.base_url) + ONCE) as running:
        yield running


async def seen(node: Node, server: Cauce, case: str, *arguments: Any, **options: Any) -> Any:
    """What the case saw."""
    return await run(node, "sdk.mjs", case, {"baseURL": server.v1, **options}, *arguments)


async def test_chat(node: Node, server: Cauce, upstream: Upstream) -> None:
    completion = await seen(node, server, "chat")
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": HELLO}
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] == 12 and completion["object"] == "chat.completion"
    assert completion["model"] == "up/m"
    assert upstream.requests[0]["temperature"] == 0.2
    assert upstream.headers[0]["authorization"] == "Bearer upstream-key"


@pytest.mark.parametrize("model", ["tu-modelo", "default", "auto", "up/m"])
async def test_every_name_of_a_model_answers(node: Node, server: Cauce, model: str) -> None:
    assert (await seen(node, server, "stream", model=model))["text"] == HELLO


async def test_headers_say_where_the_answer_came_from(node: Node, server: Cauce) -> None:
    got = await seen(node, server, "headers")
    told = {name: value for name, value in got["headers"].items() if name.startswith("x-cauce-")}
    assert (told["x-cauce-model"], told["x-cauce-level"], told["x-cauce-attempts"]) == ("up/m", "primary", "1")
    assert told["x-cauce-request-id"] and float(told["x-cauce-overhead-ms"]) >= 0


async def test_base_url_may_name_localhost(node: Node, upstream: Upstream, tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost"):
        async with cauce(tmp_path, in_front_of(upstream.base_url), server=f'host = "{host}"') as server:
            got = await seen(node, server, "stream", baseURL=f"http://localhost:{server.port}/v1")
            assert got["text"] == HELLO
            slash = await seen(node, server, "stream", baseURL=f"{server.v1}/")
            assert slash["text"] == HELLO


async def test_stream_read_by_the_loop_of_the_readme(node: Node, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="El río 🌊 — baja.\u2028Sí.")]
    assert (await seen(node, server, "stream"))["text"] == "El río 🌊 — baja.\u2028Sí."


async def test_stream_with_usage(node: Node, server: Cauce) -> None:
    chunks = await seen(node, server, "usage")
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 12
    assert all(chunk["choices"] for chunk in chunks[:-1])
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == HELLO
    assert len({chunk["id"] for chunk in chunks}) == 1 and {chunk["model"] for chunk in chunks} == {"up/m"}


async def test_stream_helper_assembles_the_answer(node: Node, server: Cauce) -> None:
    got = await seen(node, server, "helper")
    assert got["text"] == HELLO == got["completion"]["choices"][0]["message"]["content"]
    assert [delta for delta, _ in got["seen"]] == ["Hello ", "from ", "upstream."]
    assert got["seen"][-1][1] == HELLO


async def test_tools_plain(node: Node, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [CALL]
    choice = (await seen(node, server, "toolsPlain"))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "weather", "arguments": '{"city": "Sevilla"}'}
    ]
    sent = upstream.requests[0]
    assert sent["tool_choice"] == "required" and sent["tools"][0]["function"]["description"] == "Tells the weather."


async def test_tools_streamed(node: Node, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [
        Reply(text="", tool_calls=(("weather", '{"city": "Sevilla"}'), ("weather", '{"city": "Ávila"}')))
    ]
    got = await seen(node, server, "toolsStreamed")
    calls = [[0, "weather", '{"city": "Sevilla"}'], [1, "weather", '{"city": "Ávila"}']]
    assert got["seen"] == calls
    message = got["completion"]["choices"][0]["message"]
    assert [call["id"] for call in message["tool_calls"]] == ["call_0", "call_1"]
    assert got["completion"]["choices"][0]["finish_reason"] == "tool_calls"
    assert upstream.requests[0]["parallel_tool_calls"] is True


async def test_tool_loop_of_the_sdk_plain_and_streamed(node: Node, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [CALL, Reply(text="It is clear."), CALL, Reply(text="Still clear.")]
    got = await seen(node, server, "toolsRun")
    assert got == {"asked": [{"city": "Sevilla"}] * 2, "plain": "It is clear.", "streamed": "Still clear."}
    for request in (upstream.requests[1], upstream.requests[3]):
        assert [message["role"] for message in request["messages"]] == ["user", "assistant", "tool"]
        assert request["messages"][2]["tool_call_id"] == "call_0"
        assert request["messages"][2]["content"] == '{"sky":"clear"}'


async def test_structured_output_by_a_schema_and_by_the_parsing_helper(
    node: Node, server: Cauce, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text='{"name": "cat", "legs": 4}')]
    animal = {"name": "cat", "legs": 4}
    assert await seen(node, server, "structured") == {"plain": animal, "streamed": animal}
    assert await seen(node, server, "schema") == animal
    for request in upstream.requests:
        asked = request["response_format"]
        assert asked["type"] == "json_schema" and asked["json_schema"]["strict"] is True
        assert asked["json_schema"]["name"] == "animal" and "name" in asked["json_schema"]["schema"]["properties"]


async def test_models_are_listed_and_found_one_by_one(node: Node, server: Cauce) -> None:
    got = await seen(node, server, "models")
    names = [model["id"] for model in got["listed"]]
    assert {"auto", "offline", "up/m"} <= set(names)
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in got["listed"])
    assert (got["one"]["id"], got["one"]["owned_by"]) == ("up/m", "up")
    assert (got["missing"]["kind"], got["missing"]["status"]) == ("NotFoundError", 404)


async def test_failures_of_the_upstream_have_the_sdks_error_classes(
    node: Node, server: Cauce, upstream: Upstream
) -> None:
    replies = {
        "BadRequestError": Reply(status=400, error={"message": "bad"}),
        "NotFoundError": Reply(status=404, error={"message": "no such model", "code": "model_not_found"}),
        "RateLimitError": Reply(status=429, error={"message": "slow"}, headers={"retry-after": "7"}),
        "InternalServerError": Reply(status=500, error={"message": "oops"}),
    }
    upstream.answers = [reply for reply in replies.values() for _ in range(2)]
    got = await seen(node, server, "errors", [False, True] * len(replies))
    assert [error["kind"] for error in got] == [name for name in replies for _ in range(2)]
    assert [error["status"] for error in got] == [status for status in (400, 404, 429, 502) for _ in range(2)]
    assert all(error["isAPIError"] for error in got)
    assert [error["code"] for error in got[::2]] == [
        "invalid_request",
        "model_not_found",
        "rate_limited",
        "provider_error",
    ]
    assert "slow" in got[4]["message"]


async def test_failure_after_the_headers_have_left_is_an_error_of_the_sdk(
    node: Node, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    async with cauce(tmp_path, in_front_of(upstream.base_url) + ONCE) as server:
        got = await seen(node, server, "broken")
    assert "".join(text for text, _ in got["texts"]) == "a b "
    assert all(reason is None for _, reason in got["texts"])
    for error in (got["error"], got["helper"]):
        assert error["isAPIError"], error


async def test_failure_while_headers_were_not_held_back_is_an_error_of_the_sdk(
    node: Node, upstream: Upstream, tmp_path: Path
) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b", cut_after=1, gate=gate)]
    toml = in_front_of(upstream.base_url) + ONCE + "[streams]\nhold_headers = 0\n"
    async with cauce(tmp_path, toml) as server, Proxy(server.port) as proxy:
        async with script(node, "sdk.mjs", "broken", {"baseURL": f"{proxy.url}/v1"}) as running:
            await within(proxy.carried(b"200 OK"))
            gate.release()
            gate.release()
            got = await running.answer()
    assert got["error"]["isAPIError"] and got["helper"]["isAPIError"], got


async def test_heartbeats_do_not_disturb_a_stream(node: Node, upstream: Upstream, tmp_path: Path) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b c", gate=gate)]
    toml = in_front_of(upstream.base_url) + "[streams]\nhold_headers = 0\nheartbeat = 0.05\n"
    async with cauce(tmp_path, toml) as server, Proxy(server.port) as proxy:
        async with script(node, "sdk.mjs", "usage", {"baseURL": f"{proxy.url}/v1"}) as running:
            await within(proxy.carried(b": hb 2\n"))
            gate.release()
            await within(proxy.carried(b'"a "'))
            await within(proxy.carried(b": hb 4\n"))
            for _ in range(10):
                gate.release()
            chunks = await running.answer()
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == "a b c"


async def test_retries_of_the_sdk_bridge_an_upstream_that_fails_once(
    node: Node, server: Cauce, upstream: Upstream
) -> None:
    busy = Reply(status=429, error={"message": "slow"}, headers={"retry-after-ms": "10"})
    upstream.answers = [busy, Reply(), busy, Reply()]
    assert (await seen(node, server, "chat", maxRetries=2))["choices"][0]["message"]["content"] == HELLO
    assert (await seen(node, server, "stream", maxRetries=2))["text"] == HELLO
    assert len(upstream.requests) == 4


async def test_requests_that_cannot_be_served_are_refused_with_the_sdks_error_classes(
    node: Node, upstream: Upstream, tmp_path: Path
) -> None:
    async with cauce(tmp_path, in_front_of(upstream.base_url) + KEYED) as server:
        got = await seen(node, server, "refusals", apiKey="secret")
    assert {name: (error["kind"], error["status"]) for name, error in got.items()} == {
        "model": ("NotFoundError", 404),
        "empty": ("BadRequestError", 400),
        "field": ("BadRequestError", 400),
        "path": ("NotFoundError", 404),
        "key": ("AuthenticationError", 401),
        "keyOfChat": ("AuthenticationError", 401),
        "keyOfStream": ("AuthenticationError", 401),
    }
    assert "does not exist here" in got["model"]["message"]
    assert (got["empty"]["param"], got["field"]["param"]) == ("messages", "temperature")
    assert got["key"]["code"] == "invalid_api_key"
    assert upstream.requests == []


@pytest.mark.parametrize("way", ["abortedByController", "abortedBySignal", "abortedByLeaving", "abortedByHelper"])
async def test_stream_that_is_aborted_closes_the_upstream(
    node: Node, server: Cauce, upstream: Upstream, way: str
) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with script(node, "sdk.mjs", way, {"baseURL": server.v1}) as running:
        got = await running.answer()
        # The script still runs: it is the abort that is seen, not the end of a process.
        await within(upstream.closed.wait(), 1)
    if way == "abortedByController":
        assert got == {"texts": ["a ", "b "]}, got
    if way == "abortedByHelper":
        assert got["kind"] == "APIUserAbortError"


async def test_plain_answer_that_nobody_waits_for_closes_the_upstream(
    node: Node, server: Cauce, upstream: Upstream
) -> None:
    upstream.answers = [Reply(silent=True)]
    got = await seen(node, server, "timedOut")
    assert got["kind"] == "APIConnectionTimeoutError"
    await within(upstream.closed.wait(), 1)


async def test_background_response_is_resumed_polled_and_cancelled(node: Node, server: Cauce) -> None:
    got = await seen(node, server, "background")
    events = got["events"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join([event["delta"] for event in events if event["type"] == "response.output_text.delta"]) == HELLO
    assert events[-1]["type"] == "response.completed" and got["cancelled"] == events[-1]["response"]
    assert got["created"]["status"] in ("queued", "in_progress") and got["created"]["background"] is True
    assert (got["polled"]["status"], got["polled"]["output_text"]) == ("completed", HELLO)
