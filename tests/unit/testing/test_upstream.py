"""The fake provider: the official `openai` SDK assembles what a reply says; the other wires are read as bytes here, by their SDKs among the clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from cauce.testing.upstream import Ask, Limits, Reply, Tokens, Upstream, fault
from tests.http import Response, ask, connection, within

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello."}]
CALLS = Reply(text="", tool_calls=(("look", '{"x": 1}'), ("look", '{"y": 2}')))
COUNTED = Reply(usage=Tokens(input=20, output=9, cached=4, cache_write=2, reasoning=3))
THOUGHT = Reply(text="Forty two.", reasoning="Six times seven.")
SSE = "?alt=sse"
STREAMS = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": HELLO, "stream": True}),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Say hello.", "stream": True}),
    "responses": ("/v1/responses", {"model": "m", "input": "Say hello.", "stream": True}),
    "anthropic": ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": HELLO, "stream": True}),
    "gemini": (f"/v1beta/models/m:streamGenerateContent{SSE}", {"contents": [{"parts": [{"text": "Say hello."}]}]}),
}
ENDS = {
    "chat": "[DONE]",
    "completions": "[DONE]",
    "responses": "response.completed",
    "anthropic": "message_stop",
    "gemini": '"finishReason":"STOP"',
}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as sdk:
        yield sdk


async def streamed(upstream: Upstream, wire: str, reply: Reply) -> Response:
    """The stream of a reply on a wire."""
    upstream.answers = [reply]
    path, body = STREAMS[wire]
    return await within(ask(upstream.port, "POST", path, body))


def payloads(response: Response) -> list[dict[str, Any]]:
    lines = response.body.replace(b"\r", b"").decode().split("\n")
    return [msgspec.json.decode(line[6:]) for line in lines if line.startswith("data: {")]


async def test_chat_is_what_the_reply_says(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [COUNTED, CALLS, Reply(text="", refusal="No."), Reply(finish_reason="length", usage=None)]
    asked = [await client.chat.completions.create(model="m", messages=HELLO) for _ in range(4)]
    counted, calls, refused, cut = asked
    assert counted.choices[0].message.content == "Hello from upstream." and counted.usage is not None
    assert (counted.usage.prompt_tokens, counted.usage.completion_tokens, counted.usage.total_tokens) == (20, 9, 29)
    assert counted.usage.prompt_tokens_details is not None and counted.usage.prompt_tokens_details.cached_tokens == 4
    assert [call.function.arguments for call in calls.choices[0].message.tool_calls or []] == ['{"x": 1}', '{"y": 2}']
    assert calls.choices[0].finish_reason == "tool_calls"
    assert (refused.choices[0].message.refusal, refused.choices[0].message.content) == ("No.", None)
    assert (cut.choices[0].finish_reason, cut.usage) == ("length", None)
    assert upstream.paths == ["/v1/chat/completions"] * 4 and upstream.headers[0]["authorization"] == "Bearer k"


async def test_responses_are_what_the_reply_says_plain_and_streamed(client: AsyncOpenAI, upstream: Upstream) -> None:
    reply = msgspec.structs.replace(CALLS, reasoning="Hm, look.", text="Looking.", usage=COUNTED.usage)
    upstream.answers = [reply]
    include = ["reasoning.encrypted_content"]
    plain = await client.responses.create(model="m", input="Say hello.", include=include)
    async with client.responses.stream(model="m", input="Say hello.", include=include) as stream:
        events = [event async for event in stream]
        assembled = await stream.get_final_response()
    for response in (plain, assembled):
        reasoning, message, *calls = response.output
        assert reasoning.type == "reasoning" and reasoning.summary[0].text == "Hm, look."
        assert reasoning.encrypted_content == reply.signed
        assert message.type == "message" and response.output_text == "Looking."
        assert [call.arguments for call in calls if call.type == "function_call"] == ['{"x": 1}', '{"y": 2}']
        assert response.usage is not None and response.usage.output_tokens_details.reasoning_tokens == 3
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Looking."


async def test_embeddings_counts_and_models(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(embedding=((0.5, -0.25), (1.0, 2.0)))]
    done = await client.embeddings.create(model="m", input=["a", "b"])
    assert [one.embedding for one in done.data] == [[0.5, -0.25], [1.0, 2.0]]
    assert (await client.responses.input_tokens.count(model="m", input="a")).input_tokens == 7
    assert [model.id async for model in client.models.list()] == ["fake-model"]
    for header, key in (("anthropic-version", "data"), ("x-goog-api-key", "models")):
        listed = await ask(upstream.port, "GET", "/v1/models", headers={header: "x"})
        assert len(listed.json()[key]) == 1
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nope")


async def test_usage_is_counted_as_each_wire_counts(upstream: Upstream) -> None:
    upstream.answers = [COUNTED]
    path, body = STREAMS["anthropic"]
    anthropic = (await ask(upstream.port, "POST", path, {**body, "stream": False})).json()["usage"]
    gemini = (await ask(upstream.port, "POST", "/v1/models/m:generateContent", STREAMS["gemini"][1])).json()
    assert (anthropic["input_tokens"], anthropic["cache_read_input_tokens"]) == (14, 4)
    assert (anthropic["cache_creation_input_tokens"], anthropic["output_tokens"]) == (2, 9)
    told = gemini["usageMetadata"]
    assert (told["promptTokenCount"], told["candidatesTokenCount"], told["thoughtsTokenCount"]) == (20, 6, 3)


@pytest.mark.parametrize("wire", STREAMS)
async def test_stream_ends_with_the_wires_own_end(upstream: Upstream, wire: str) -> None:
    response = await streamed(upstream, wire, Reply())
    assert response.complete and ENDS[wire] in response.body.decode().strip().rpartition("data: ")[2]


@pytest.mark.parametrize("wire", STREAMS)
async def test_stream_that_is_cut_breaks_after_so_many_deltas(upstream: Upstream, wire: str) -> None:
    response = await streamed(upstream, wire, Reply(text="one two three", cut_after=2))
    assert not response.complete and b"two " in response.body
    assert b"three" not in response.body and ENDS[wire].encode() not in response.body


@pytest.mark.parametrize("wire", STREAMS)
async def test_error_inside_a_stream_has_the_wires_form(upstream: Upstream, wire: str) -> None:
    error = {"message": "Too much."}
    response = await streamed(upstream, wire, Reply(text="one two three", error=error, error_after=2))
    text = response.body.decode()
    assert (response.status, response.complete) == (200, True)
    assert "two " in text and "three" not in text and "Too much." in text and ENDS[wire] not in text
    match wire:
        case "anthropic":
            assert "event: error\ndata: {" in text and payloads(response)[-1]["error"]["type"] == "api_error"
        case "responses":
            assert [event["type"] for event in payloads(response)[-2:]] == ["error", "response.failed"]
        case "gemini":
            # Bare JSON over several lines.
            bare = text.rpartition("\r\n\r\n")[2]
            assert bare.startswith("{\r\n") and msgspec.json.decode(bare)["error"]["code"] == 500
        case _:
            assert payloads(response)[-1]["error"]["message"] == "Too much."


@pytest.mark.parametrize("wire", STREAMS)
async def test_stream_that_stalls_is_left_and_its_leaving_is_seen(upstream: Upstream, wire: str) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=2)]
    path, body = STREAMS[wire]
    async with connection(upstream.port) as client:
        await client.send("POST", path, msgspec.json.encode(body))
        await client.head()
        await within(client.until(b"two "))
        assert not upstream.closed.is_set()
    await within(upstream.closed.wait())


@pytest.mark.parametrize("wire", STREAMS)
async def test_status_and_error_have_the_wires_form(upstream: Upstream, wire: str) -> None:
    response = await streamed(upstream, wire, Reply(status=429, error={"message": "slow"}, retry_after=7))
    body = response.json()
    assert response.status == 429 and body["error"]["message"] == "slow"
    if wire == "gemini":
        assert (body["error"]["status"], body["error"]["details"][0]["retryDelay"]) == ("RESOURCE_EXHAUSTED", "7s")
        assert "retry-after" not in response.headers
    else:
        assert response.headers["retry-after"] == "7"
    if wire == "anthropic":
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")


async def test_reasoning_is_signed_where_the_wire_signs(upstream: Upstream) -> None:
    anthropic = payloads(await streamed(upstream, "anthropic", THOUGHT))
    signatures = [event["delta"]["signature"] for event in anthropic if "signature" in event.get("delta", {})]
    gemini = payloads(await streamed(upstream, "gemini", THOUGHT))
    parts = [part for chunk in gemini for part in chunk["candidates"][0]["content"]["parts"]]
    assert signatures == [THOUGHT.signed] == [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
    assert "".join(part["text"] for part in parts if part.get("thought")) == THOUGHT.reasoning


async def test_gemini_streams_one_array_where_no_events_are_asked_for(upstream: Upstream) -> None:
    path, body = STREAMS["gemini"]
    response = await ask(upstream.port, "POST", path.removesuffix(SSE), body)
    assert response.headers["content-type"] == "application/json"
    texts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in response.json()]
    assert "".join(texts) == "Hello from upstream."


async def test_answer_may_be_made_of_the_request(upstream: Upstream) -> None:
    def echo(asked: Ask) -> Reply:
        return Reply(text=asked.body["messages"][0]["content"])

    upstream.answers = [echo]
    path, body = STREAMS["chat"]
    response = await ask(upstream.port, "POST", path, {**body, "stream": False})
    assert response.json()["choices"][0]["message"]["content"] == "Say hello."


async def test_gate_lets_deltas_through_one_by_one(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="one two", gate=gate)]
    async with connection(upstream.port) as client:
        path, body = STREAMS["anthropic"]
        await client.send("POST", path, msgspec.json.encode(body))
        await client.head()
        assert b"two" not in await within(client.until(b"one "))
        for _ in range(5):
            gate.release()
        await within(client.until(b"message_stop"))


async def test_connection_serves_requests_one_after_the_other_even_if_the_next_is_early(upstream: Upstream) -> None:
    path, body = STREAMS["chat"]
    async with connection(upstream.port) as client:
        for _ in range(2):
            await client.send("POST", path, msgspec.json.encode({**body, "stream": False}))
        assert [(await within(client.response())).status for _ in range(2)] == [200, 200]
    assert len(upstream.requests) == 2 and not upstream.closed.is_set()


async def test_path_of_no_wire_is_not_found(upstream: Upstream) -> None:
    assert (await ask(upstream.port, "POST", "/v2/other", {})).status == 404
    assert upstream.requests == []


async def test_new_script_begins_with_its_first_answer_and_forgets_what_was_asked(upstream: Upstream) -> None:
    upstream.script(Reply(text="one"), Reply(text="two"))
    path, body = STREAMS["chat"]
    for _ in range(2):
        await ask(upstream.port, "POST", path, body)
    upstream.script(Reply(text="three"), Reply(text="four"))
    assert (upstream.requests, upstream.headers, upstream.paths) == ([], [], []) and not upstream.asked.is_set()
    response = await ask(upstream.port, "POST", path, body)
    assert b"three" in response.body and len(upstream.requests) == 1


CHAT = {"model": "m", "messages": HELLO}


async def test_models_may_have_scripts_of_their_own(upstream: Upstream) -> None:
    upstream.scripts["twice"] = [fault("503"), fault("503"), Reply(text="Here.")]
    asked = [(await ask(upstream.port, "POST", "/v1/chat/completions", {**CHAT, "model": "twice"})) for _ in range(3)]
    other = await ask(upstream.port, "POST", "/v1/chat/completions", CHAT)
    assert [one.status for one in asked] == [503, 503, 200] and "Here." in asked[2].body.decode()
    assert other.json()["choices"][0]["message"]["content"] == "Hello from upstream."
    assert upstream.record.requests == {"twice": 3, "m": 1} and upstream.record.answered == {"twice": 1, "m": 1}


async def test_limits_are_enforced_and_their_violations_counted() -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(Reply(gate=gate), limits=Limits(concurrent=2, per_minute=3)) as upstream:
        held = [asyncio.create_task(ask(upstream.port, "POST", "/v1/chat/completions", CHAT)) for _ in range(2)]
        while upstream.record.at_once < 2:
            await asyncio.sleep(0)
        third = await ask(upstream.port, "POST", "/v1/chat/completions", CHAT)
        for _ in range(3):
            gate.release()
        await asyncio.gather(*held)
        statuses = [(await ask(upstream.port, "POST", "/v1/chat/completions", CHAT)).status for _ in range(2)]
        record = upstream.record
    assert (third.status, statuses) == (429, [200, 429])
    assert (record.violations, record.most_at_once, record.most_per_minute) == (2, 2, 3)


async def test_tokens_are_counted_of_whole_answers_only(upstream: Upstream) -> None:
    counted = Reply(usage=Tokens(20, 9, cached=4))
    upstream.answers = [counted, msgspec.structs.replace(counted, cut_after=0), fault("500"), counted]
    for _ in range(4):
        await ask(upstream.port, "POST", "/v1/messages", {**CHAT, "max_tokens": 9, "stream": True})
    assert upstream.record.served == {"m": Tokens(40, 18, cached=8)}
    await within(upstream.record.idle.wait())
    await within(upstream.record.empty.wait())
    assert upstream.record.opened == upstream.record.closed == 4
