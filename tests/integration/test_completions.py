"""The legacy wires through the whole server, with the official SDK: completions, and functions in place of tools."""

from collections.abc import AsyncIterator

import openai
import pytest
from msgspec.json import encode
from openai import AsyncOpenAI

from cauce.testing.upstream import Reply, Upstream
from tests.http import ask
from tests.serving import Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello."}]
FUNCTIONS = [{"name": "look", "parameters": {"type": "object", "properties": {}}}]


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    """`up` takes prompts, `chat` only conversations, `fim` fills in."""
    tables = upstream_table("up", upstream.base_url, default_model="m")
    tables += upstream_table("chat", upstream.base_url, dialect="groq")
    tables += upstream_table("fim", upstream.base_url, dialect="mistral")
    route = '[models.both]\ncandidates = ["chat/m", "up/m"]\n'
    async with serving(tables + route) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0) as sdk:
        yield sdk


@pytest.mark.parametrize("model", ["up/m", "chat/m"])
async def test_plain(client: AsyncOpenAI, upstream: Upstream, model: str) -> None:
    completion = await client.completions.create(model=model, prompt="Once", max_tokens=5, stop=["."])
    assert completion.object == "text_completion" and completion.id.startswith("cmpl")
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason, choice.index) == ("Hello from upstream.", "stop", 0)
    assert completion.usage is not None and completion.usage.total_tokens == 12
    asked = upstream.requests[0]
    assert asked.get("prompt", asked.get("messages")) in ("Once", [{"role": "user", "content": "Once"}])


@pytest.mark.parametrize("model", ["up/m", "chat/m"])
async def test_stream(client: AsyncOpenAI, model: str) -> None:
    stream = await client.completions.create(
        model=model, prompt="Once", stream=True, echo=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join([chunk.choices[0].text for chunk in chunks if chunk.choices]) == "OnceHello from upstream."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 12


IDS = list(range(4_000))
"""A prompt of so many tokens, as their ids."""

UNQUEUED = {"CAUCE_QUEUE__LENGTH": "0"}


async def statuses(toml: str, *prompts: list[int] | list[list[int]] | list[str], **more: object) -> list[int]:
    async with serving(toml, UNQUEUED) as running:
        bodies = [{"model": "up/m", "prompt": prompt, "max_tokens": 5, **more} for prompt in prompts]
        return [(await ask(running.port, "POST", "/v1/completions", body)).status for body in bodies]


async def test_prompts_of_token_ids_count_under_limits(upstream: Upstream) -> None:
    toml = upstream_table("up", upstream.base_url, tokens_per_minute=60_000)
    assert await statuses(toml, [IDS, IDS]) == [429]


async def test_text_behind_the_gap_counts_under_limits(upstream: Upstream) -> None:
    toml = upstream_table("up", upstream.base_url, dialect="mistral", tokens_per_minute=60_000)
    assert await statuses(toml, ["Once", "Twice"], suffix="the river " * 2_000) == [429]


async def test_prompts_of_token_ids_count_under_budgets(upstream: Upstream) -> None:
    toml = upstream_table("up", upstream.base_url)
    toml += '[facts."up/*"]\ninput_price = 1_000\noutput_price = 0\n[budgets.users."*"]\nday = 3\n'
    assert await statuses(toml, IDS, IDS[:9], user="ana") == [402, 200]


async def test_prompts_of_token_ids_that_no_window_has_room_for_are_not_sent(upstream: Upstream) -> None:
    toml = upstream_table("up", upstream.base_url) + '[facts."up/*"]\ncontext_window = 3_000\n'
    assert await statuses(toml, IDS, IDS[:2_800]) == [400, 200]
    assert len(upstream.requests) == 1


async def test_several_prompts_are_answered_each(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one"), Reply(text="two"), Reply(text="three")]
    completion = await client.completions.create(model="up/m", prompt=["a", "b", "c"])
    texts = {choice.text for choice in completion.choices}
    assert [choice.index for choice in completion.choices] == [0, 1, 2] and texts == {"one", "two", "three"}
    assert {body["prompt"] for body in upstream.requests} == {"a", "b", "c"}
    assert completion.usage is not None and completion.usage.prompt_tokens == 21


async def test_one_prompt_that_fails_fails_the_request(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [
        Reply(text="one"),
        Reply(status=429, error={"message": "slow", "code": "insufficient_quota"}),
        Reply(text="three"),
    ]
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model="up/m", prompt=["a", "b", "c"])


async def test_tokens_and_best_of_go_only_where_prompts_are_taken(client: AsyncOpenAI, upstream: Upstream) -> None:
    await client.completions.create(model="both", prompt=[1, 2, 3])
    await client.completions.create(model="both", prompt="Once", best_of=2)
    assert [body["prompt"] for body in upstream.requests] == [[1, 2, 3], "Once"]
    assert upstream.requests[1]["best_of"] == 2
    for more in (
        {"prompt": [1, 2, 3]},
        {"prompt": "Once", "best_of": 2},
        {"prompt": "Once", "echo": True, "logprobs": 1},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(model="chat/m", **more)
        assert caught.value.param == "prompt"
    assert len(upstream.requests) == 2


async def test_suffix_goes_only_where_it_is_filled_in(client: AsyncOpenAI, upstream: Upstream) -> None:
    await client.completions.create(model="both", prompt="a", suffix="c")
    assert (upstream.requests[0]["prompt"], upstream.requests[0]["suffix"]) == ("a", "c")
    for model in ("chat/m", "offline"):
        with pytest.raises(openai.BadRequestError, match="suffix") as caught:
            await client.completions.create(model=model, prompt="a", suffix="c")
        assert caught.value.param == "suffix"


async def test_answer_of_an_infill_path_that_has_the_shape_of_chat(client: AsyncOpenAI, upstream: Upstream) -> None:
    message = {"message": {"role": "assistant", "content": "b"}, "finish_reason": "stop", "index": 0}
    upstream.answers = [Reply(raw=encode({"choices": [message]}))]
    completion = await client.completions.create(model="fim/codestral-latest", prompt="a", suffix="c")
    assert completion.choices[0].text == "b"
    assert upstream.paths == ["/v1/fim/completions"]


async def test_log_probabilities_of_a_conversation_are_told_in_the_old_form(
    client: AsyncOpenAI, upstream: Upstream, served: Served
) -> None:
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
        "logprobs": {"content": [token]},
    }
    upstream.answers = [Reply(raw=encode({"choices": [choice]}))]
    completion = await client.completions.create(model="chat/m", prompt="Once", logprobs=0)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["Hi"], [-0.5], [0])


async def test_stream_that_breaks_raises_and_never_looks_complete(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    stream = await client.completions.create(model="up/m", prompt="Once", suffix="The end.", stream=True)
    seen = ""
    with pytest.raises(openai.APIError):
        async for chunk in stream:
            seen += chunk.choices[0].text
    assert seen == "a b "


async def test_answer_says_where_it_came_from(served: Served) -> None:
    answer = await ask(served.port, "POST", "/v1/completions", {"model": "up/m", "prompt": ["a", "b"]})
    assert (answer.headers["x-cauce-model"], answer.headers["x-cauce-attempts"]) == ("up/m", "2")


async def test_mistake_names_its_field(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model="up/m", prompt=["a", "b"], stream=True)
    assert caught.value.param == "stream"


async def test_functions_are_answered_in_the_old_form(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", '{"x": 1}'), ("look", '{"y": 2}')))]
    plain = await client.chat.completions.create(
        model="up/m", messages=HELLO, functions=FUNCTIONS, function_call={"name": "look"}
    )
    (choice,) = plain.choices
    assert choice.finish_reason == "function_call" and choice.message.tool_calls is None
    assert choice.message.function_call is not None
    assert (choice.message.function_call.name, choice.message.function_call.arguments) == ("look", '{"x": 1}')
    stream = await client.chat.completions.create(model="up/m", messages=HELLO, functions=FUNCTIONS, stream=True)
    calls = [chunk.choices[0].delta.function_call async for chunk in stream]
    told = [call for call in calls if call is not None]
    assert "".join([call.name or "" for call in told]) == "look"
    assert "".join([call.arguments or "" for call in told]) == '{"x": 1}'
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "look"
    assert upstream.requests[0]["tool_choice"] == {"type": "function", "function": {"name": "look"}}


async def test_history_of_functions_is_understood(client: AsyncOpenAI, upstream: Upstream) -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    result = {"role": "function", "name": "look", "content": "a cat"}
    completion = await client.chat.completions.create(
        model="up/m", messages=[*HELLO, call, result], functions=FUNCTIONS
    )
    assert completion.choices[0].message.content == "Hello from upstream."
    _, called, answered = upstream.requests[0]["messages"]
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"] and answered["role"] == "tool"
