"""Structured output over HTTP: the official SDK's `parse`, the native surfaces, and upstreams that cannot."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import ask
from tests.serving import MESSAGES, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

GOOD = '{"name": "cat", "legs": 4}'
BAD = '{"name": "cat", "legs": "four"}'
NO_FORMAT = Reply(status=400, error={"message": "This response_format type is unavailable now"})
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "legs": {"type": "integer"}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}


class Animal(pydantic.BaseModel):
    name: str
    legs: int


def wanting(**more: Any) -> dict[str, Any]:
    json_schema = {"name": "animal", "schema": SCHEMA}
    return {
        "model": "up/m",
        "messages": MESSAGES,
        "response_format": {"type": "json_schema", "json_schema": json_schema},
    } | more


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(upstream_table("up", upstream.base_url, default_model="m")) as running:
        yield running


@pytest.fixture
async def sdk(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0) as made:
        yield made


async def test_sdk_parses_what_an_upstream_without_response_format_says(
    sdk: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [NO_FORMAT, NO_FORMAT, Reply(text=f"Here:\n```json\n{GOOD}\n```")]
    completion = await sdk.chat.completions.parse(model="up/m", messages=MESSAGES, response_format=Animal)
    assert completion.choices[0].message.parsed == Animal(name="cat", legs=4)
    formats = [request.get("response_format", {}).get("type") for request in upstream.requests]
    assert formats == ["json_schema", "json_object", None]
    system = upstream.requests[2]["messages"][0]
    assert system["role"] == "system" and '"legs":{' in system["content"]


async def test_sdk_streams_what_was_mended_and_never_sees_what_was_wrong(
    sdk: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [NO_FORMAT, Reply(text=BAD), Reply(text=GOOD)]
    async with sdk.chat.completions.stream(model="up/m", messages=MESSAGES, response_format=Animal) as stream:
        said = [event.delta async for event in stream if event.type == "content.delta"]
        completion = await stream.get_final_completion()
    assert "".join(said) == GOOD
    assert completion.choices[0].message.parsed == Animal(name="cat", legs=4)
    assert len(upstream.requests) == 3


async def test_sdk_sees_an_error_where_the_answer_stays_wrong(sdk: openai.AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text=BAD)]
    with pytest.raises(openai.InternalServerError, match='"four" is not of type "integer"'):
        await sdk.chat.completions.parse(model="up/m", messages=MESSAGES, response_format=Animal)
    assert len(upstream.requests) == 2


async def test_strict_stream_that_turns_out_wrong_ends_in_an_error_and_not_as_complete(
    sdk: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text=f"{BAD} and more words that come later")]
    with pytest.raises(openai.APIError, match="did not answer with the JSON"):
        async with sdk.chat.completions.stream(model="up/m", messages=MESSAGES, response_format=Animal) as stream:
            await stream.until_done()


async def test_plain_answer_of_the_service_has_the_value_and_both_attempts(served: Served, upstream: Upstream) -> None:
    upstream.answers = [NO_FORMAT, Reply(text="A cat."), Reply(text=GOOD)]
    response = await ask(served.port, "POST", "/llm/message", wanting())
    answer = response.json()
    assert (answer["response"], answer["parsed"]) == (GOOD, {"name": "cat", "legs": 4})
    assert answer["tokens_used"] == 24
    assert [attempt.get("error_code") for attempt in answer["attempts"]] == ["invalid_request", "provider_error", None]
    assert response.headers["x-cauce-attempts"] == "3"


async def test_error_of_the_service_holds_what_the_model_said(served: Served, upstream: Upstream) -> None:
    upstream.answers = [NO_FORMAT, Reply(text="A cat."), Reply(text="A cat!")]
    response = await ask(served.port, "POST", "/llm/message", wanting())
    assert response.status == 502
    assert response.json()["error_code"] == "provider_error" and response.json()["answer"] == "A cat!"


async def test_schema_that_is_none_is_a_400_that_names_it(served: Served) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "text"}}}
    response = await ask(served.port, "POST", "/llm/message", wanting(response_format=wrong))
    assert (response.status, response.json()["field"]) == (400, "response_format.json_schema.schema")


async def test_streams_show_the_object_while_it_is_written(served: Served, upstream: Upstream) -> None:
    upstream.answers = [
        Reply(text='{"name": "a cat of a rather long name, told in many words, as it goes", "legs": 4}')
    ]
    plain = (await ask(served.port, "POST", "/llm/message", wanting(stream=True))).frames()
    logged = (await ask(served.port, "POST", "/chat/stream/s1", wanting())).frames()
    for frames in (plain, logged):
        partials = [frame["partial"] for frame in frames if "partial" in frame]
        assert partials[0].keys() <= {"name"} and frames[-1]["type"] == "complete"
        assert frames[-1]["parsed"]["legs"] == 4
        assert "".join([frame["data"] for frame in frames if frame["type"] == "content"]) == frames[-1]["data"]


async def test_resumed_reader_sees_the_same_objects(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(text='{"name": "' + "long " * 40 + '", "legs": 4}')]
    whole = await ask(served.port, "POST", "/chat/stream/s2", wanting())
    again = await ask(served.port, "GET", "/chat/stream/s2/resume?after=3")
    tail = whole.body[whole.body.index(b"id: 4\n") :]
    assert again.body.endswith(tail)
    assert b'"partial":' in whole.body and b'"parsed":' in tail


async def test_logged_stream_tells_that_it_asks_again(served: Served, upstream: Upstream) -> None:
    upstream.answers = [NO_FORMAT, Reply(text="A cat."), Reply(text=GOOD)]
    frames = (await ask(served.port, "POST", "/chat/stream/s3", wanting())).frames()
    told = [(frame["type"], frame.get("status") or frame.get("strategy")) for frame in frames]
    assert told[:5] == [
        ("start", None),
        ("status", "attempt"),
        ("error", "prompted"),
        ("status", "repairing"),
        ("error", "repair"),
    ]
    assert set(told[5:-1]) == {("content", None)} and told[-1] == ("complete", None)
    assert frames[-1]["parsed"] == {"name": "cat", "legs": 4}


async def test_text_is_not_parsed(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(text=GOOD)]
    body = {"model": "up/m", "messages": MESSAGES}
    assert "parsed" not in (await ask(served.port, "POST", "/llm/message", body)).json()
    frames = (await ask(served.port, "POST", "/llm/message", body | {"stream": True})).frames()
    assert not any(["partial" in frame or "parsed" in frame for frame in frames])


CLAUDE = '[providers.claude]\nkind = "anthropic"\nbase_url = "{root}"\napi_key = "k"\n'


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object"},
        {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object", "additionalProperties": True}},
        },
    ],
)
async def test_anthropic_is_told_in_words_what_its_wire_cannot_say(upstream: Upstream, wanted: dict[str, Any]) -> None:
    upstream.answers = [Reply(text=f"```json\n{GOOD}\n```")]
    async with serving(CLAUDE.format(root=upstream.root)) as served:
        body = wanting(model="claude/claude-haiku-4-5", response_format=wanted)
        response = await ask(served.port, "POST", "/llm/message", body)
    assert response.json()["parsed"] == {"name": "cat", "legs": 4}
    assert len(upstream.requests) == 1 and "output_config" not in upstream.requests[0]
    assert "Answer with one JSON" in str(upstream.requests[0]["system"])


async def test_anthropic_is_asked_for_the_schema_it_takes(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=GOOD)]
    async with serving(CLAUDE.format(root=upstream.root)) as served:
        body = wanting(model="claude/claude-haiku-4-5")
        response = await ask(served.port, "POST", "/llm/message", body)
    assert response.json()["parsed"] == {"name": "cat", "legs": 4}
    assert upstream.requests[0]["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
