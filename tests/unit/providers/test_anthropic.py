"""The adapter for Anthropic's Messages, in front of a fake upstream."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Finish
from cauce.domain.errors import ModelNotFound, ProviderFailure, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import Message, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.request import Request, ResponseFormat, Sampling, Scope
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.engine.counting import Counted, count_tokens
from cauce.engine.routing import Router, Source
from cauce.ports.provider import Call, Candidate, ModelInfo
from cauce.providers.anthropic.provider import Anthropic
from cauce.testing.scripted import ScriptedProvider, answering
from cauce.testing.upstream import Reply, Tokens, Upstream
from cauce.transport import HTTPTransport

pytestmark = pytest.mark.anyio

HELLO = Request("m", (Message("user", (TextPart("Say hello."),)),))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Anthropic]:
    adapter = Anthropic("up", upstream.root, "secret", HTTPTransport("up"))
    yield adapter
    await adapter.aclose()


def calling(provider: Anthropic, request: Request = HELLO, *, streamed: bool = True, **candidate: Any) -> Call:
    return Call(request=request, scope=Scope(), candidates=(Candidate(provider, "m", **candidate),), streamed=streamed)


@pytest.mark.parametrize("streamed", [True, False])
async def test_answer_is_read_as_it_is_asked_for(provider: Anthropic, upstream: Upstream, streamed: bool) -> None:
    upstream.answers = [Reply(reasoning="let me see", tool_calls=(("look", '{"x": 1}'),), usage=Tokens(20, 9, 4, 2, 3))]
    completion = await collect(await provider.open(calling(provider, streamed=streamed)))
    choice = completion.choices[0]
    assert (choice.text, choice.reasoning) == ("Hello from upstream.", "let me see")
    assert msgspec.json.decode(choice.tool_calls[0].arguments) == {"x": 1}
    assert choice.finish_reason == "tool_calls"
    assert msgspec.structs.replace(completion.usage, extra=None) == Usage(20, 9, 4, 2, 3)
    assert upstream.requests[0].get("stream", False) is streamed
    assert upstream.paths == ["/v1/messages"]
    headers = upstream.headers[0]
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("secret", "2026-10-21")
    assert "authorization" not in headers


async def test_empty_key_sends_none(upstream: Upstream) -> None:
    provider = Anthropic("up", upstream.root, "", HTTPTransport("up"), "2023-06-01")
    await collect(await provider.open(calling(provider)))
    assert "x-api-key" not in upstream.headers[0] and upstream.headers[0]["anthropic-version"] == "2023-06-01"
    await provider.aclose()


async def test_request_that_cannot_be_said_is_not_sent(provider: Anthropic, upstream: Upstream) -> None:
    with pytest.raises(Unsupported):
        await provider.open(calling(provider, msgspec.structs.replace(HELLO, sampling=Sampling(n=2))))
    assert upstream.requests == []


async def test_what_is_known_of_the_model_bounds_its_output(provider: Anthropic, upstream: Upstream) -> None:
    await collect(await provider.open(calling(provider, facts=ModelFacts(max_output=77))))
    assert upstream.requests[0]["max_tokens"] == 77


async def test_schemas_of_other_wires_are_put_into_the_form_taken_here_and_no_others(
    provider: Anthropic, upstream: Upstream
) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    asked = msgspec.structs.replace(
        HELLO,
        tools=(Tool("f", parameters=schema, strict=True),),
        response_format=ResponseFormat("json_schema", "n", schema),
    )
    native = msgspec.structs.replace(asked, extra=Extra("anthropic_messages", {}))
    for request in (asked, native):
        await collect(await provider.open(calling(provider, request)))
    shown = [
        (body["tools"][0]["input_schema"], body["output_config"]["format"]["schema"]) for body in upstream.requests
    ]
    closed = {**schema, "additionalProperties": False}
    assert shown == [(closed, closed), (schema, schema)]


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply(status=529), "overloaded"),
        (Reply(status=429, retry_after=7), "rate_limited"),
        (Reply(status=401), "auth"),
        (Reply(error={"type": "overloaded_error", "message": "busy"}, error_after=0), "overloaded"),
        (Reply(cut_after=0), "transient"),
        (Reply(raw=b"<html>not an answer</html>"), "transient"),
    ],
)
async def test_failure_before_the_first_word_has_its_class(
    provider: Anthropic, upstream: Upstream, reply: Reply, failure: str
) -> None:
    upstream.answers = [reply]
    with pytest.raises(ProviderFailure) as caught:
        await provider.open(calling(provider))
    assert caught.value.failure == failure
    assert caught.value.retry_after == reply.retry_after


@pytest.mark.parametrize("reply", [Reply(cut_after=2), Reply(error={"message": "oops"}, error_after=2)])
async def test_answer_that_breaks_is_never_a_whole_one(provider: Anthropic, upstream: Upstream, reply: Reply) -> None:
    upstream.answers = [reply]
    deltas = await provider.open(calling(provider))
    seen: list[Any] = []
    with pytest.raises(ProviderFailure):
        while batch := await deltas.read():
            seen.extend(batch)
    assert "".join(delta.text for delta in seen) == "Hello from "
    assert not any(isinstance(delta, Finish) for delta in seen)


async def test_models_are_listed(provider: Anthropic, upstream: Upstream) -> None:
    upstream.models = ["claude-a", "claude-b"]
    assert await provider.models() == (ModelInfo("claude-a", 200_000), ModelInfo("claude-b", 200_000))


async def test_tokens_are_counted_by_the_upstream(provider: Anthropic, upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(input=123))]
    router = Router((), {}, "auto")
    router.add(Source(provider))
    asked = msgspec.structs.replace(HELLO, model="up/m", sampling=Sampling(max_tokens=5, stop=("x",)))
    assert await count_tokens(router, asked) == Counted(123, exact=True)
    assert upstream.paths == ["/v1/messages/count_tokens"]
    assert upstream.requests == [{"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}]


@pytest.mark.parametrize("reply", [Reply(status=529), Reply(status=401)])
async def test_tokens_are_estimated_while_the_upstream_cannot_be_asked(
    provider: Anthropic, upstream: Upstream, reply: Reply
) -> None:
    upstream.answers = [reply]
    router = Router((), {}, "auto")
    router.add(Source(provider))
    assert await count_tokens(router, msgspec.structs.replace(HELLO, model="up/m")) == Counted(7, exact=False)


async def test_tokens_are_estimated_where_nobody_counts_and_only_for_models_there_are() -> None:
    router = Router((), {}, "auto")
    router.add(Source(ScriptedProvider("scripted", answering("hi")), "model"))
    assert await count_tokens(router, msgspec.structs.replace(HELLO, model="scripted")) == Counted(7, exact=False)
    with pytest.raises(ModelNotFound):
        await count_tokens(router, msgspec.structs.replace(HELLO, model="nothing"))


async def test_count_refused_for_its_request_is_an_error(provider: Anthropic, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=400, error={"message": "bad"})]
    router = Router((), {}, "auto")
    router.add(Source(provider))
    with pytest.raises(ProviderFailure):
        await count_tokens(router, msgspec.structs.replace(HELLO, model="up/m"))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"input_tokens": "many"}', b"\xff"])
async def test_count_in_no_known_shape_is_a_failure(provider: Anthropic, upstream: Upstream, body: bytes) -> None:
    upstream.answers = [Reply(raw=body)]
    with pytest.raises(ProviderFailure):
        await provider.count_tokens(HELLO, "m")
