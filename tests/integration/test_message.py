"""`POST /llm/message`, over HTTP, in front of a fake upstream."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import ask, connection, within
from tests.serving import BREAKS, MESSAGES, ONE_TRY, serving, upstream_table

pytestmark = pytest.mark.anyio

ERROR = {"message": "it is down", "type": "server_error"}


async def test_answer_has_the_fields_clients_read(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url, default_model="m")) as served:
        body = {"model": "tu-modelo", "messages": MESSAGES, "temperature": 0.7, "max_tokens": 50}
        response = await ask(served.port, "POST", "/llm/message", body)
    answer = response.json()
    assert response.status == 200
    assert answer["response"] == "Hello from upstream."
    assert answer["tokens_used"] == 12
    assert isinstance(answer["processing_time"], float)
    assert (answer["model"], answer["finish_reason"], answer["cached"]) == ("up/m", "stop", False)
    assert answer["usage"]["input_tokens"] == 7 and answer["cost_source"] == "priced"
    assert response.headers["x-cauce-level"] == "primary" and response.headers["x-cauce-model"] == "up/m"
    assert upstream.requests[0]["temperature"] == 0.7 and upstream.requests[0]["max_tokens"] == 50
    assert "stream" not in upstream.requests[0]


async def test_placeholder_reaches_an_upstream_configured_without_a_default_model(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        response = await ask(served.port, "POST", "/llm/message", {"model": "tu-modelo", "messages": MESSAGES})
    assert response.json()["model"] == "up/fake-model"


async def test_clients_key_never_reaches_the_upstream(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        headers = {"Authorization": "Bearer any-value-works"}
        await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES}, headers)
    assert upstream.headers[0]["authorization"] == "Bearer upstream-key"


async def test_upstream_that_dies_before_its_first_delta_is_replaced(upstream: Upstream) -> None:
    upstream.answers = [Reply(reset=True), Reply(text="second")]
    toml = upstream_table("one", upstream.base_url) + upstream_table("two", upstream.base_url)
    toml += '[models.fast]\ncandidates = ["one/m", "two/m"]'
    async with serving(toml, ONE_TRY) as served:
        response = await ask(served.port, "POST", "/llm/message", {"model": "fast", "messages": MESSAGES})
    answer = response.json()
    assert answer["response"] == "second"
    assert response.headers["x-cauce-attempts"] == "2" and response.headers["x-cauce-level"] == "fallback"
    assert [attempt["provider"] for attempt in answer["attempts"]] == ["one", "two"]
    assert answer["attempts"][0]["error_code"] == "provider_error"


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(status=400, error={"message": "bad value"}), 400, "invalid_request"),
        (Reply(status=401, error={"message": "wrong key"}), 502, "provider_error"),
        (Reply(status=403, error={"message": "not here"}), 502, "provider_error"),
        (Reply(status=404, error={"message": "no such model", "code": "model_not_found"}), 404, "model_not_found"),
        (Reply(status=429, error={"message": "slow", "code": "insufficient_quota"}), 429, "quota_exceeded"),
        (Reply(status=429, error={"message": "slow"}, headers={"retry-after": "7"}), 429, "rate_limited"),
        (Reply(status=500, error=ERROR), 502, "provider_error"),
        (Reply(status=503, error={"message": "busy"}), 503, "overloaded"),
        (Reply(status=503, error=ERROR), 503, "overloaded"),
        (Reply(status=529, error={"message": "busy", "type": "server_error"}), 503, "overloaded"),
        (Reply(status=200, raw=b"<html>login</html>"), 502, "provider_error"),
        (Reply(status=200, raw=b'{"choices": []}'), 502, "provider_error"),
        (Reply(status=200, raw=b""), 502, "provider_error"),
        (Reply(status=200, error={"message": "inside a 200"}), 502, "provider_error"),
        (Reply(status=302, headers={"location": "http://127.0.0.1:1/"}), 502, "provider_error"),
        (Reply(cut_after=0), 502, "provider_error"),
        (Reply(reset=True), 502, "provider_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_upstream_failure_has_its_true_status(
    upstream: Upstream, reply: Reply, status: int, code: str, stream: bool
) -> None:
    upstream.answers = [reply]
    async with serving(upstream_table("up", upstream.base_url), ONE_TRY) as served:
        body = {"model": "up/m", "messages": MESSAGES, "stream": stream}
        response = await ask(served.port, "POST", "/llm/message", body)
    assert (response.status, response.json()["error_code"]) == (status, code), response.body
    assert response.json()["request_id"] == response.headers["x-cauce-request-id"]
    expected = {"rate_limited": "7", "overloaded": "1"}
    assert response.headers.get("retry-after") == expected.get(code)


@pytest.mark.parametrize("usage", [{"prompt_tokens_details": "x"}, {"prompt_tokens": "many"}, "none", [1], None])
async def test_odd_usage_of_an_upstream_spoils_no_answer(upstream: Upstream, usage: Any) -> None:
    upstream.answers = [Reply(usage=usage)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        native = await ask(served.port, "POST", "/llm/message", body)
        chat = await ask(served.port, "POST", "/v1/chat/completions", body)
    assert (native.status, chat.status) == (200, 200)
    if not isinstance(usage, dict):
        # What nobody counted is estimated: 20 characters are 5 tokens.
        assert native.json()["usage"]["output_tokens"] == 5


async def test_long_retry_after_stands_in_the_body_only(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=429, error={"message": "later"}, headers={"retry-after": "3600"})]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        response = await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES})
    assert "retry-after" not in response.headers
    assert response.json()["retry_after"] == pytest.approx(3600, abs=5)


async def test_time_to_ask_again_counts_from_when_an_answer_without_a_date_came(upstream: Upstream) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    upstream.answers = [Reply(status=429, error={"message": "later"}, headers={"retry-after": until})]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        response = await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES})
    assert response.json()["retry_after"] == pytest.approx(3600, abs=60)


async def test_plain_call_that_runs_out_of_time_is_a_504(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/m", "messages": MESSAGES, "timeout": 0.2}
        response = await within(ask(served.port, "POST", "/llm/message", body))
    assert (response.status, response.json()["error_code"]) == (504, "timeout")


async def test_client_that_leaves_a_plain_call_closes_the_upstream(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/llm/message", b'{"model":"up/m","messages":[{"role":"user","content":"x"}]}')
            await within(upstream.asked.wait())
            client.abort()
            await within(upstream.closed.wait())


async def test_client_that_leaves_a_stream_closes_the_upstream(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d e f", stall_after=2)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            body = b'{"model":"up/m","stream":true,"messages":[{"role":"user","content":"x"}]}'
            await client.send("POST", "/llm/message", body)
            await client.head()
            await within(client.until(b'"data":"b '))
            client.abort()
            await within(upstream.closed.wait())


async def test_stream_gives_native_frames_and_ends_with_the_full_text(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/m", "messages": MESSAGES, "stream": True}
        response = await ask(served.port, "POST", "/llm/message", body)
    frames = response.frames()
    assert response.complete
    assert [frame["type"] for frame in frames] == ["start", "status", "content", "content", "content", "complete"]
    assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert frames[-1]["data"] == "Hello from upstream." and frames[-1]["level"] == "primary"


async def test_stream_that_breaks_says_so_and_never_ends_cleanly_as_complete(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    async with serving(upstream_table("up", upstream.base_url), BREAKS) as served:
        body = {"model": "up/m", "messages": MESSAGES, "stream": True}
        response = await ask(served.port, "POST", "/llm/message", body)
    last = response.frames()[-1]
    assert (last["type"], last["final_error"], last["partial"]) == ("error", True, "a b ")


async def test_each_delta_arrives_when_it_is_sent(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b c", gate=gate)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            body = b'{"model":"up/m","stream":true,"messages":[{"role":"user","content":"x"}]}'
            await client.send("POST", "/llm/message", body)
            gate.release()
            await client.head()
            await within(client.until(b'"data":"a "'))
            gate.release()
            await within(client.until(b'"data":"b "'))
            for _ in range(10):
                gate.release()
            await within(client.until(b'"type":"complete"'))


async def test_heartbeats_and_headers_come_while_the_upstream_is_silent(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    toml = upstream_table("up", upstream.base_url) + "[streams]\nhold_headers = 0.05\nheartbeat = 0.05\n"
    async with serving(toml) as served:
        async with connection(served.port) as client:
            body = b'{"model":"up/m","stream":true,"messages":[{"role":"user","content":"x"}],"timeout":0.4}'
            await client.send("POST", "/llm/message", body)
            status, _ = await within(client.head())
            assert status == 200
            await within(client.until(b": hb 3\n"))
            # An error after the headers have left is a frame, and the body ends after it.
            assert b'"error_code":"timeout"' in await within(client.until(b'"final_error":true'))


async def test_tools_and_their_calls_pass_both_ways(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", '{"x": 1}'),))]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/m", "messages": MESSAGES, "tools": tools}
        plain = (await ask(served.port, "POST", "/llm/message", body)).json()
        frames = (await ask(served.port, "POST", "/llm/message", {**body, "stream": True})).frames()
    assert plain["tool_calls"] == [{"call_id": "call_0", "name": "look", "arguments": '{"x": 1}'}]
    assert (plain["response"], plain["finish_reason"]) == ("", "tool_calls")
    assert upstream.requests[0]["tools"] == tools
    calls = [frame for frame in frames if frame["type"] == "tool_call"]
    assert [frame["mark"] for frame in calls][-1] == "ready"
    assert calls[-1]["data"] == {"call_id": "call_0", "name": "look", "arguments": '{"x": 1}'}


async def test_without_any_model_the_offline_answerer_answers(upstream: Upstream) -> None:
    async with serving() as served:
        body = {"messages": [{"role": "user", "content": "How do I configure a provider?"}]}
        response = await ask(served.port, "POST", "/llm/message", body)
    assert response.headers["x-cauce-level"] == "offline"
    assert "[providers" in response.json()["response"] or "base_url" in response.json()["response"]


async def test_defaults_of_the_environment_are_honoured(upstream: Upstream) -> None:
    environment = {"DEFAULT_LLM_MODEL": "up/chosen", "DEFAULT_TEMPERATURE": "0.3", "DEFAULT_MAX_TOKENS": "9"}
    async with serving(upstream_table("up", upstream.base_url), environment) as served:
        await ask(served.port, "POST", "/llm/message", {"messages": MESSAGES})
    assert {"model": "chosen", "temperature": 0.3, "max_tokens": 9}.items() <= upstream.requests[0].items()
