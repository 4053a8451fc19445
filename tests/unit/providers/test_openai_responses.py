"""The adapter for upstreams that speak Responses, in front of the fake provider."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Completion
from cauce.domain.delta import Reasoning, Text
from cauce.domain.errors import ProviderFailure, Unsupported
from cauce.domain.message import Message, TextPart
from cauce.domain.request import ReasoningOptions, Request, Sampling, Scope
from cauce.domain.signature import Signature
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_responses.provider import OpenAIResponses
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Tokens
from cauce.transport import HTTPTransport
from tests.http import within

pytestmark = pytest.mark.anyio

HELLO = Request("m", (Message("user", (TextPart("Say hello."),)),))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[OpenAIResponses]:
    made = OpenAIResponses("up", upstream.base_url, "key", HTTPTransport("up"), DIALECTS["openai"])
    yield made
    await made.aclose()


async def answered(
    provider: OpenAIResponses, request: Request = HELLO, *, streamed: bool, model: str = "gpt-4.1"
) -> Completion:
    call = Call(request=request, scope=Scope(), candidates=(Candidate(provider, model),), streamed=streamed)
    return await collect(await provider.open(call))


@pytest.mark.parametrize("streamed", [False, True])
async def test_answer_with_everything(provider: OpenAIResponses, upstream: Upstream, streamed: bool) -> None:
    upstream.answers = [
        Reply(
            reasoning="let me see",
            text="Hello you.",
            tool_calls=(("look", '{"x": 1}'), ("look", '{"y": 2}')),
            usage=Tokens(10, 6, 4, 1, 2),
        )
    ]
    completion = await answered(provider, streamed=streamed)
    (choice,) = completion.choices
    assert (choice.reasoning, choice.text) == ("let me see", "Hello you.")
    assert [(call.call_id, call.name, call.arguments) for call in choice.tool_calls] == [
        ("call_0", "look", '{"x": 1}'),
        ("call_1", "look", '{"y": 2}'),
    ]
    assert choice.finish_reason == "tool_calls"
    usage = completion.usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 6)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, 1, 2)
    assert upstream.paths == ["/v1/responses"] and upstream.headers[0]["authorization"] == "Bearer key"
    assert upstream.requests[0].get("stream", False) is streamed


async def test_encrypted_reasoning_is_asked_for_and_kept(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(reasoning="hm", signature="gAAA")]
    request = msgspec.structs.replace(HELLO, reasoning=ReasoningOptions(effort="low"))
    call = Call(request=request, scope=Scope(), candidates=(Candidate(provider, "gpt-5"),))
    signed = [one.signature async for one in await provider.open(call) if isinstance(one, Reasoning) and one.signature]
    assert signed == [Signature("openai_responses", "gAAA", "rs_0")]
    assert upstream.requests[0]["store"] is False


async def test_sampling_that_reasoning_models_refuse_is_left_out(provider: OpenAIResponses, upstream: Upstream) -> None:
    request = msgspec.structs.replace(HELLO, sampling=Sampling(temperature=0.2, top_p=0.5, max_tokens=9))
    await answered(provider, request, streamed=False, model="gpt-5-mini")
    await answered(provider, request, streamed=False, model="gpt-4.1")
    assert not {"temperature", "top_p"} & upstream.requests[0].keys()
    assert upstream.requests[0]["max_output_tokens"] == 9
    assert upstream.requests[1]["temperature"] == 0.2


async def test_effort_that_a_model_refuses_is_left_out(upstream: Upstream) -> None:
    provider = OpenAIResponses("up", upstream.base_url, "", HTTPTransport("up"), DIALECTS["xai"])
    request = msgspec.structs.replace(HELLO, reasoning=ReasoningOptions(effort="low", visible=True))
    await answered(provider, request, streamed=False, model="grok-4")
    await provider.aclose()
    assert upstream.requests[0]["reasoning"] == {"summary": "auto"}
    assert "authorization" not in upstream.headers[0]


async def test_query_of_the_address_is_sent_with_every_request(upstream: Upstream) -> None:
    url = f"{upstream.base_url}?api-version=preview"
    provider = OpenAIResponses("up", url, "secret", HTTPTransport("up"), DIALECTS["azure"])
    await answered(provider, streamed=True)
    await provider.count_tokens(HELLO, "m")
    await provider.aclose()
    assert upstream.paths == ["/v1/responses?api-version=preview", "/v1/responses/input_tokens?api-version=preview"]
    assert upstream.headers[0]["api-key"] == "secret"


async def test_tokens_are_counted_by_the_provider(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(23))]
    request = msgspec.structs.replace(HELLO, sampling=Sampling(temperature=0.5), user="u")
    assert await provider.count_tokens(request, "gpt-4.1") == 23
    assert upstream.paths == ["/v1/responses/input_tokens"]
    assert upstream.requests == [{"model": "gpt-4.1", "input": [{"role": "user", "content": "Say hello."}]}]


async def test_server_that_cannot_count_is_asked_once(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=404, error={"message": "no such path"}), Reply(usage=Tokens(23))]
    assert await provider.count_tokens(HELLO, "m") is None
    assert await provider.count_tokens(HELLO, "m") is None
    assert len(upstream.requests) == 1


async def test_missing_model_is_not_taken_for_a_missing_count(provider: OpenAIResponses, upstream: Upstream) -> None:
    missing = Reply(status=404, error={"message": "no model", "code": "model_not_found"})
    upstream.answers = [missing, Reply(usage=Tokens(23)), Reply(raw=b"{}")]
    with pytest.raises(ProviderFailure) as caught:
        await provider.count_tokens(HELLO, "nope")
    assert caught.value.code == "model_not_found"
    assert await provider.count_tokens(HELLO, "m") == 23
    with pytest.raises(ProviderFailure, match="unknown shape"):
        await provider.count_tokens(HELLO, "m")


async def test_models(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.models = ["a", "b"]
    assert [model.id for model in await provider.models()] == ["a", "b"]


@pytest.mark.parametrize(
    ("reply", "failure", "code"),
    [
        (Reply(status=400, error={"message": "bad"}), "bad_request", "invalid_request"),
        (Reply(status=400, error={"message": "x", "code": "model_not_found"}), "bad_request", "model_not_found"),
        (Reply(status=401, error={"message": "who"}), "auth", "provider_error"),
        (Reply(status=429, error={"message": "slow"}), "rate_limited", "rate_limited"),
        (Reply(status=429, error={"message": "money", "code": "insufficient_quota"}), "quota", "quota_exceeded"),
        (Reply(status=500, error={"message": "oops"}), "transient", "provider_error"),
        (Reply(raw=b"<html>", headers={"content-type": "application/json"}), "transient", "provider_error"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusals(
    provider: OpenAIResponses, upstream: Upstream, reply: Reply, failure: Any, code: str, streamed: bool
) -> None:
    upstream.answers = [reply]
    with pytest.raises(ProviderFailure) as caught:
        await answered(provider, streamed=streamed)
    assert (caught.value.failure, caught.value.code) == (failure, code)


async def test_error_inside_a_stream_comes_after_what_was_said(provider: OpenAIResponses, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    error = {"message": "money", "code": "insufficient_quota"}
    upstream.answers = [Reply(text="a b c", error_after=1, error=error, gate=gate)]
    deltas = await provider.open(Call(request=HELLO, scope=Scope(), candidates=(Candidate(provider, "m"),)))
    assert [one.text for one in await deltas.read() if isinstance(one, Text)] == ["a "]
    gate.release()
    with pytest.raises(ProviderFailure, match="money") as caught:
        await deltas.read()
    assert caught.value.failure == "quota"


async def test_error_before_the_first_delta_is_raised_by_open(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c", error_after=0, error={"message": "busy", "code": "server_is_overloaded"})]
    with pytest.raises(ProviderFailure) as caught:
        await provider.open(Call(request=HELLO, scope=Scope(), candidates=(Candidate(provider, "m"),)))
    assert caught.value.failure == "overloaded"


async def test_cut_stream_is_a_failure(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c", cut_after=2)]
    with pytest.raises(ProviderFailure) as caught:
        await answered(provider, streamed=True)
    assert caught.value.failure == "transient"


async def test_closing_an_answer_closes_the_upstream(provider: OpenAIResponses, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c", stall_after=1)]
    deltas = await provider.open(Call(request=HELLO, scope=Scope(), candidates=(Candidate(provider, "m"),)))
    await deltas.aclose()
    await within(upstream.closed.wait())


async def test_what_this_wire_cannot_say_is_refused_before_anything_is_sent(
    provider: OpenAIResponses, upstream: Upstream
) -> None:
    with pytest.raises(Unsupported, match="stop"):
        await answered(provider, msgspec.structs.replace(HELLO, sampling=Sampling(stop=("END",))), streamed=True)
    assert upstream.requests == []
