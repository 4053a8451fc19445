"""The official `openai` SDK, unchanged, against Cauce in front of a fake upstream."""

from collections.abc import AsyncIterator

import openai
import pytest
from msgspec.json import encode
from openai import AsyncOpenAI
from pydantic import BaseModel

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import within
from tests.serving import BREAKS, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello."}]
AT_ONCE = {"CAUCE_QUEUE__LENGTH": "0"}
"""What an upstream refuses is told, not waited for."""

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    keys = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(
        upstream_table("up", upstream.base_url, default_model="m") + keys, {**AT_ONCE, **BREAKS}
    ) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.v1, api_key="secret", max_retries=0) as sdk:
        yield sdk


async def test_chat(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="up/m", messages=HELLO)
    assert completion.choices[0].message.content == "Hello from upstream."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None and completion.usage.total_tokens == 12


async def test_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="tu-modelo", messages=HELLO, stream=True)
    words = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(words) == "Hello from upstream."


async def test_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


async def test_stream_helper_assembles_the_answer(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="auto", messages=HELLO) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "Hello from upstream."


async def test_tools_plain_and_streamed(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", '{"x": 1}'), ("look", '{"y": 2}')))]
    plain = await client.chat.completions.create(model="auto", messages=HELLO, tools=TOOLS, tool_choice="required")
    async with client.chat.completions.stream(model="auto", messages=HELLO, tools=TOOLS) as stream:
        streamed = await stream.get_final_completion()
    for completion in (plain, streamed):
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls or []
        assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
            ("call_0", "look", '{"x": 1}'),
            ("call_1", "look", '{"y": 2}'),
        ]
    assert upstream.requests[0]["tool_choice"] == "required"


async def test_structured_output(client: AsyncOpenAI, upstream: Upstream) -> None:
    class Animal(BaseModel):
        name: str
        legs: int

    upstream.answers = [Reply(text='{"name": "cat", "legs": 4}')]
    completion = await client.chat.completions.parse(model="auto", messages=HELLO, response_format=Animal)
    assert completion.choices[0].message.parsed == Animal(name="cat", legs=4)
    sent = upstream.requests[0]["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True


async def test_images_reasoning_and_log_probabilities_pass(client: AsyncOpenAI, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    upstream.answers = [Reply(message={"reasoning_content": "hm", "refusal": None})]
    completion = await client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, image]}], logprobs=True
    )
    assert upstream.requests[0]["messages"][0]["content"][1] == image
    assert upstream.requests[0]["logprobs"] is True
    assert completion.choices[0].message.model_extra == {"reasoning_content": "hm"}


async def test_models(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert {"auto", "up/m", "offline"} <= set(names)
    assert (await client.models.retrieve("up/m")).owned_by == "up"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=400, error={"message": "bad"}), openai.BadRequestError),
        (Reply(status=404, error={"message": "no model", "code": "model_not_found"}), openai.NotFoundError),
        (Reply(status=429, error={"message": "slow"}), openai.RateLimitError),
        (Reply(status=500, error={"message": "oops"}), openai.InternalServerError),
        (Reply(status=503, error={"message": "busy"}), openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_classes(
    client: AsyncOpenAI, upstream: Upstream, reply: Reply, error: type[openai.APIStatusError], stream: bool
) -> None:
    upstream.answers = [reply]
    with pytest.raises(error):
        await client.chat.completions.create(model="up/m", messages=HELLO, stream=stream)


async def test_unknown_model_and_wrong_key(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        await client.chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="auto", messages=[])
    assert caught.value.param == "messages"


async def test_stream_that_breaks_raises_and_never_looks_complete(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
    seen = ""
    with pytest.raises(openai.APIError):
        async for chunk in stream:
            assert chunk.choices[0].finish_reason is None
            seen += chunk.choices[0].delta.content or ""
    assert seen == "a b "


async def test_client_that_closes_its_stream_closes_the_upstream(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    stream = await client.chat.completions.create(model="up/m", messages=HELLO, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await within(upstream.closed.wait())


async def test_several_choices(client: AsyncOpenAI, upstream: Upstream) -> None:
    def choice(index: int, **members: object) -> dict[str, object]:
        return {"index": index, "delta": members, "finish_reason": None}

    chunks = [
        {"choices": [choice(0, content="a")]},
        {"choices": [choice(1, content="b")]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
    ]
    upstream.answers = [Reply(chunks=(*[encode(chunk) for chunk in chunks], b"[DONE]"))]
    async with client.chat.completions.stream(model="auto", messages=HELLO, n=2) as stream:
        completion = await stream.get_final_completion()
    assert [(one.message.content, one.finish_reason) for one in completion.choices] == [("a", "stop"), ("b", "stop")]
    assert upstream.requests[0]["n"] == 2
