"""`/v1/messages`: Anthropic's wire at the door, whatever stands behind it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.json import decode, encode

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Tokens, Upstream
from tests.http import Response, ask, connection, within
from tests.serving import BREAKS, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}


def anthropic_table(name: str, upstream: Upstream, **settings: Any) -> str:
    return upstream_table(name, upstream.root, default_model="m", **settings).replace('"openai"', '"anthropic"')


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def served(upstream: Upstream, other: Upstream) -> AsyncIterator[Served]:
    """`claude` speaks this wire, `gpt` the chat wire; `both` asks one after the other."""
    tables = anthropic_table("claude", upstream) + upstream_table("gpt", other.base_url, default_model="m")
    both = '[models.both]\ncandidates = ["claude/m", "gpt/m"]\n'
    keys = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(tables + both + keys, {**ONE_TRY, **BREAKS}) as running:
        yield running


async def messages(served: Served, model: str, path: str = "/v1/messages", **body: Any) -> Response:
    headers = {"x-api-key": "secret", "anthropic-version": "2023-06-01", **body.pop("headers", {})}
    return await ask(served.port, "POST", path, {"model": model, "max_tokens": 64, "messages": HELLO, **body}, headers)


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the events make, put together by hand as clients do."""
    message: dict[str, Any] = {}
    joined: dict[int, str] = {}
    for event in events:
        match event:
            case {"type": "message_start"}:
                message = event["message"]
            case {"type": "content_block_start"}:
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                block = message["content"][index]
                match delta:
                    case {"type": "text_delta"}:
                        block["text"] += delta["text"]
                    case {"type": "thinking_delta"}:
                        block["thinking"] += delta["thinking"]
                    case {"type": "signature_delta"}:
                        block["signature"] = delta["signature"]
                    case {"type": "input_json_delta"}:
                        joined[index] = joined.get(index, "") + delta["partial_json"]
            case {"type": "message_delta"}:
                message.update(event["delta"])
                message["usage"].update(event["usage"])
            case _:
                continue
    assert events[-1] == {"type": "message_stop"}
    for index, text in joined.items():
        message["content"][index]["input"] = decode(text)
    return message


@pytest.mark.parametrize("model", ["claude/m", "gpt/m"])
@pytest.mark.parametrize("stream", [False, True])
async def test_answer_with_tools_reads_the_same_from_both_wires(
    served: Served, upstream: Upstream, other: Upstream, model: str, stream: bool
) -> None:
    reply = Reply(tool_calls=(("look", '{"x": 1}'), ("look", '{"x": 2}')), usage=Tokens(20, 9, 4, 2))
    upstream.answers = other.answers = [reply]
    choice = {"type": "any", "disable_parallel_tool_use": False}
    response = await messages(served, model, tools=[TOOL], tool_choice=choice, stream=stream)
    assert response.status == 200, response.body
    message = assembled(response.frames()) if stream else response.json()
    assert message["type"] == "message" and message["role"] == "assistant" and message["model"] == model
    assert message["id"].startswith("msg") and response.headers["x-cauce-stream-id"] == message["id"]
    text, first, second = message["content"]
    assert text["text"] == "Hello from upstream."
    assert [(call["type"], call["name"], call["input"]) for call in (first, second)] == [
        ("tool_use", "look", {"x": 1}),
        ("tool_use", "look", {"x": 2}),
    ]
    assert first["id"] != second["id"]
    assert message["stop_reason"] == "tool_use" and message["stop_sequence"] is None
    usage = message["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (14, 4, 9)


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_client_gets_its_tools_and_usage_from_this_wire(
    served: Served, upstream: Upstream, stream: bool
) -> None:
    upstream.answers = [Reply(reasoning="hm", tool_calls=(("look", '{"x": 1}'),), usage=Tokens(20, 9, 4, 2, 3))]
    body = {
        "model": "claude/m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c.1", "type": "function", "function": {"name": "look", "arguments": '{"x":0}'}}],
            },
            {"role": "tool", "tool_call_id": "c.1", "content": "a cat"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": TOOL["input_schema"]}}],
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
    }
    response = await ask(served.port, "POST", "/v1/chat/completions", body, {"authorization": "Bearer secret"})
    assert response.status == 200, response.body
    assert upstream.requests[0] == {
        "model": "m",
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c_2e_1", "name": "look", "input": {"x": 0}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c_2e_1", "content": "a cat"},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [TOOL],
        **({"stream": True} if stream else {}),
    }
    if stream:
        chunks = response.frames()
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
        thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
        arguments = "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls") or ())
        reason = [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]][-1]
        usage = chunks[-1]["usage"]
    else:
        (choice,) = response.json()["choices"]
        text, thought = choice["message"]["content"], choice["message"]["reasoning_content"]
        arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
        reason, usage = choice["finish_reason"], response.json()["usage"]
    assert (text, thought, decode(arguments), reason) == ("Hello from upstream.", "hm", {"x": 1}, "tool_calls")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 9)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4


async def test_cache_marks_and_betas_reach_an_upstream_of_the_same_wire(served: Served, upstream: Upstream) -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", **mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look.", **mark}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}, **mark}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a cat", **mark}]},
        ],
        "tools": [{**TOOL, **mark}, {"type": "web_search_20260209", "name": "web_search"}],
        "context_management": {"edits": []},
        **mark,
    }
    response = await messages(served, "claude/m", headers={"anthropic-beta": "context-management-2025-06-27"}, **body)
    assert response.status == 200
    assert upstream.requests == [{"model": "m", "max_tokens": 64, **body}]
    assert upstream.headers[0]["anthropic-beta"] == "context-management-2025-06-27"
    assert upstream.headers[0]["x-api-key"] == "upstream-key"


async def test_tool_of_the_makers_servers_is_refused_by_others_and_asked_of_the_next(
    served: Served, upstream: Upstream, other: Upstream
) -> None:
    search = {"type": "web_search_20260209", "name": "web_search"}
    refused = await messages(served, "gpt/m", tools=[search])
    assert refused.status == 400 and "web_search_20260209" in refused.json()["error"]["message"]
    assert (await messages(served, "both", tools=[search])).status == 200
    assert (len(upstream.requests), len(other.requests)) == (1, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_of_another_wire_is_shown_only_if_asked_for(
    served: Served, other: Upstream, stream: bool
) -> None:
    other.answers = [Reply(reasoning="let me see")]
    quiet = await messages(served, "gpt/m", stream=stream)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    loud = await messages(served, "gpt/m", stream=stream, thinking=thinking, max_tokens=2000)
    found = [assembled(one.frames()) if stream else one.json() for one in (quiet, loud)]
    assert [[block["type"] for block in message["content"]] for message in found] == [["text"], ["thinking", "text"]]
    assert found[1]["content"][0]["thinking"] == "let me see"


async def test_overloaded_upstream_is_left_for_the_next_although_its_stream_had_begun(
    served: Served, upstream: Upstream, other: Upstream
) -> None:
    upstream.answers = [Reply(error={"type": "overloaded_error", "message": "Overloaded"}, error_after=0)]
    response = await messages(served, "both", stream=True)
    assert assembled(response.frames())["content"][0]["text"] == "Hello from upstream."
    assert response.headers["x-cauce-level"] == "fallback" and len(other.requests) == 1


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (Reply(status=400, error={"message": "bad"}), 400, "invalid_request_error"),
        (Reply(status=401), 502, "api_error"),
        (Reply(status=404, error={"type": "not_found_error", "message": "model: m"}), 404, "not_found_error"),
        (Reply(status=429, retry_after=7), 429, "rate_limit_error"),
        (Reply(status=529), 503, "overloaded_error"),
        (Reply(status=500), 502, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failure_before_the_first_word_keeps_its_status(
    served: Served, upstream: Upstream, reply: Reply, status: int, kind: str, stream: bool
) -> None:
    upstream.answers = [reply]
    response = await messages(served, "claude/m", stream=stream)
    body = response.json()
    assert (response.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-cauce-request-id"]
    if reply.retry_after:
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("model", "reply"),
    [
        ("claude/m", Reply(cut_after=2)),
        ("claude/m", Reply(error={"message": "oops"}, error_after=2)),
        ("gpt/m", Reply(cut_after=2)),
    ],
)
async def test_answer_that_breaks_ends_in_an_error_event(
    served: Served, upstream: Upstream, other: Upstream, model: str, reply: Reply
) -> None:
    upstream.answers = other.answers = [reply]
    frames = (await messages(served, model, stream=True)).frames()
    text = "".join([one["delta"]["text"] for one in frames if one["type"] == "content_block_delta"])
    assert text == "Hello from "
    assert frames[-1]["type"] == "error" and frames[-1]["error"]["type"] == "api_error"
    assert not {"message_delta", "message_stop"} & {one["type"] for one in frames}


async def test_client_that_leaves_stops_the_upstream(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(stall_after=1)]
    async with connection(served.port) as client:
        body = encode({"model": "claude/m", "max_tokens": 5, "messages": HELLO, "stream": True})
        await client.send("POST", "/v1/messages", body, {"x-api-key": "secret"})
        await within(client.head())
        await within(client.until(b"Hello"))
        client.abort()
        await within(upstream.closed.wait())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        ({"model": "nothing/here"}, "nothing/here"),
    ],
)
async def test_mistake_is_told_in_this_wires_shape(served: Served, body: dict[str, Any], field: str) -> None:
    response = await messages(served, **{"model": "claude/m", **body})
    assert response.status in (400, 404)
    error = response.json()
    assert error["type"] == "error" and field in error["error"]["message"] and error["request_id"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "secret"},
        {"authorization": "Bearer secret"},
        {"authorization": "Bearer secret", "x-api-key": "of somebody else"},
        {"authorization": "Bearer of somebody else", "x-api-key": "secret"},
    ],
)
@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21", None])
async def test_both_headers_and_both_versions_are_welcome(
    served: Served, headers: dict[str, str], version: str | None
) -> None:
    named = {**headers, **({"anthropic-version": version} if version else {})}
    body = {"model": "claude/m", "max_tokens": 5, "messages": HELLO}
    assert (await ask(served.port, "POST", "/v1/messages", body, named)).status == 200


async def test_wrong_key_is_refused_in_this_wires_shape(served: Served) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = await ask(served.port, "POST", path, {}, {"x-api-key": "wrong"})
        assert (response.status, response.json()["error"]["type"]) == (401, "authentication_error")
    response = await ask(served.port, "GET", "/v1/messages", None, {"x-api-key": "secret"})
    assert (response.status, response.json()["type"]) == (405, "error")


async def test_tokens_are_counted_exactly_or_the_answer_says_so(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(input=123))]
    exact = await messages(served, "claude/m", "/v1/messages/count_tokens", system="Be brief.")
    assert exact.json() == {"input_tokens": 123} and "x-cauce-estimated" not in exact.headers
    assert upstream.requests[0]["system"] == "Be brief." and "max_tokens" not in upstream.requests[0]
    estimated = await messages(served, "gpt/m", "/v1/messages/count_tokens")
    assert estimated.json() == {"input_tokens": 7} and estimated.headers["x-cauce-estimated"] == "true"


async def test_models_are_listed_in_this_wires_shape_for_its_clients(served: Served) -> None:
    headers = {"x-api-key": "secret", "anthropic-version": "2026-10-21"}
    response = await ask(served.port, "GET", "/v1/models", None, headers)
    listed = response.json()
    assert {model["id"] for model in listed["data"]} >= {"auto", "both", "claude/m", "gpt/m"}
    assert listed["has_more"] is False and listed["first_id"] == listed["data"][0]["id"]
    assert {model["type"] for model in listed["data"]} == {"model"} and "request-id" in response.headers
    one = await ask(served.port, "GET", "/v1/models/claude/m", None, headers)
    assert (one.json()["id"], one.json()["type"]) == ("claude/m", "model")
    plain = await ask(served.port, "GET", "/v1/models", None, {"x-api-key": "secret"})
    assert plain.json()["object"] == "list"
