"""`/v1/responses`: the official `openai` SDK, unchanged, against Cauce in front of fake upstreams of several wires."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from msgspec.json import encode
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Tokens
from tests.http import ask, within
from tests.serving import BREAKS, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

MODELS = ("chat/m", "responses/m", "claude/m", "gem/m")
TOOLS: list[Any] = [
    {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": None}
]
PATCH = "*** Begin Patch\n*** Update File: a.py\n+print('ñ \"hi\"')\n*** End Patch"
CODER: dict[str, Any] = {
    "instructions": "You are a coder.",
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "Run a command.",
            "strict": False,
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edit files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch"},
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "store": False,
    "stream": True,
    "prompt_cache_key": "session-1",
}
"""What coding agents that speak this wire send with every turn."""


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    keys = "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("web", "other")])
    others = "".join(
        [
            f'[providers.{name}]\nkind = "{kind}"\nbase_url = "{upstream.root}"\napi_key = "k"\n'
            for name, kind in (("claude", "anthropic"), ("gem", "gemini"))
        ]
    )
    tables = upstream_table("chat", upstream.base_url) + upstream_table(
        "responses", upstream.base_url, wire="responses"
    )
    async with serving(tables + others + keys, {"CAUCE_QUEUE__LENGTH": "0", **BREAKS}) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as sdk:
        yield sdk


async def streamed(client: AsyncOpenAI, **fields: Any) -> tuple[Response, list[Any]]:
    """The final response as the SDK assembles it, and its events."""
    async with client.responses.stream(**fields) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return final, events


@pytest.mark.parametrize("model", MODELS)
async def test_answer_plain_and_streamed(client: AsyncOpenAI, upstream: Upstream, model: str) -> None:
    upstream.answers = [
        Reply(
            reasoning="let me see",
            text="Hello you.",
            tool_calls=(("look", '{"x": 1}'), ("look", '{"y": 2}')),
            usage=Tokens(10, 6, 4),
        )
    ]
    asked: dict[str, Any] = {"model": model, "input": "hi", "instructions": "Be nice.", "tools": TOOLS}
    plain = await client.responses.create(**asked)
    final, events = await streamed(client, **asked)
    for response in (plain, final):
        assert response.status == "completed" and response.output_text == "Hello you."
        # A signature that a model gives with its call is shown as reasoning without words.
        said = [item for item in response.output if item.type != "reasoning" or item.summary]
        assert [item.type for item in said] == ["reasoning", "message", "function_call", "function_call"]
        assert said[0].type == "reasoning" and said[0].summary[0].text == "let me see"
        calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [("look", {"x": 1}), ("look", {"y": 2})]
        assert len({call.call_id for call in calls}) == len({call.id for call in calls}) == 2
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (10, 4)
        assert (response.usage.output_tokens, response.usage.total_tokens) == (6, 16)
        assert response.instructions == "Be nice." and response.model == model
        assert response.tools[0].type == "function" and response.to_dict()["tools"][0]["strict"] in (None, False)
    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert words == ["Hello ", "you."]
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", ["plain", "streamed", "background", "logged", "logged stream"])
async def test_completed_response_says_when_it_was_the_same_at_each_reading(
    client: AsyncOpenAI, upstream: Upstream, model: str, way: str
) -> None:
    headers = {"X-Cauce-Durable": "true"} if "logged" in way else {}
    asked: dict[str, Any] = {"model": model, "input": "hi", "extra_headers": headers}
    if "stream" in way:
        response, _ = await streamed(client, **asked)
    else:
        response = await client.responses.create(**asked, background=way == "background")
    while response.status in ("queued", "in_progress"):
        response = await client.responses.retrieve(response.id)
    assert response.completed_at is not None
    assert response.created_at <= response.completed_at <= response.created_at + 60
    for _ in range(2):
        kept = await client.responses.retrieve(response.id)
        assert kept.completed_at == response.completed_at
        events = [event async for event in await client.responses.retrieve(response.id, stream=True)]
        assert events[0].response.completed_at is None
        assert events[-1].response.completed_at == response.completed_at


async def test_response_that_did_not_complete_was_completed_at_no_time(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b", finish_reason="length")]
    response = await client.responses.create(model="chat/m", input="hi")
    assert (response.status, response.completed_at) == ("incomplete", None)


async def test_ids_of_items_are_the_upstreams_where_it_has_some(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(reasoning="hm", text="x", tool_calls=(("look", "{}"),))]
    plain = await client.responses.create(model="responses/m", input="hi")
    final, _ = await streamed(client, model="responses/m", input="hi")
    for response in (plain, final):
        assert [item.id for item in response.output] == ["rs_0", "msg_0", "fc_0"]
        assert response.id.startswith("resp_") and response.id != "resp_fake"


async def test_structured_output(client: AsyncOpenAI, upstream: Upstream) -> None:
    class Animal(BaseModel):
        name: str
        legs: int

    upstream.answers = [Reply(text='{"name": "cat", "legs": 4}')]
    for model in ("chat/m", "responses/m"):
        response = await client.responses.parse(model=model, input="?", text_format=Animal)
        assert response.output_parsed == Animal(name="cat", legs=4)
    assert upstream.requests[0]["response_format"]["json_schema"]["name"] == "Animal"
    assert upstream.requests[1]["text"]["format"]["name"] == "Animal"


@pytest.mark.parametrize("model", MODELS)
async def test_agent_that_codes_works_with_every_model(served: Served, upstream: Upstream, model: str) -> None:
    arguments = json.dumps({"input": PATCH})
    upstream.answers = [
        Reply(
            text="", reasoning="let me think", tool_calls=(("apply_patch", arguments), ("shell", '{"command": "ls"}'))
        ),
        Reply(text="Done."),
    ]
    if model == "responses/m":
        # A model of the same wire calls the tool by its own name.
        item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_0", "name": "apply_patch", "input": PATCH}
        shell = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell", "arguments": "{}"}
        end = {"type": "response.completed", "response": {"status": "completed", "output": [item, shell]}}
        upstream.answers[0] = Reply(chunks=(encode(end),))
    begin = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Ask before you write."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
    ]
    keys = {"authorization": "Bearer web"}
    first = await ask(served.port, "POST", "/v1/responses", {"model": model, "input": begin, **CODER}, keys)
    assert first.frames()[-1]["type"] == "response.completed"
    items = [frame["item"] for frame in first.frames() if frame["type"] == "response.output_item.done"]
    patch, shell = items[-2:]
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "apply_patch", PATCH)
    assert (shell["type"], shell["name"]) == ("function_call", "shell")
    done = [{name: value for name, value in item.items() if name not in ("id", "status")} for item in items]
    results = [
        {"type": "custom_tool_call_output", "call_id": patch["call_id"], "output": "patched"},
        {"type": "function_call_output", "call_id": shell["call_id"], "output": "a.py"},
    ]
    body = {"model": model, "input": [*begin, *done, *results], **CODER}
    second = await ask(served.port, "POST", "/v1/responses", body, keys)
    assert second.frames()[-1]["response"]["output"][-1]["content"][0]["text"] == "Done."
    _check_turn(model, upstream.requests[1])


def _check_turn(model: str, sent: dict[str, Any]) -> None:
    """What the second turn of the agent looked like to the upstream."""
    match model:
        case "responses/m":
            assert sent["tools"][1] == CODER["tools"][1] and sent["include"] == CODER["include"]
            kinds = [item.get("type") for item in sent["input"]]
            assert kinds[2:] == [
                "custom_tool_call",
                "function_call",
                "custom_tool_call_output",
                "function_call_output",
            ]
            assert sent["input"][2]["input"] == PATCH
        case "chat/m":
            assert [tool["type"] for tool in sent["tools"]] == ["function", "function"]
            assert sent["tools"][1]["function"]["parameters"]["required"] == ["input"]
            called, *results = sent["messages"][-3:]
            assert [json.loads(call["function"]["arguments"]) for call in called["tool_calls"]] == [
                {"input": PATCH},
                {"command": "ls"},
            ]
            assert [result["content"] for result in results] == ["patched", "a.py"]
        case "gem/m":
            patch, shell = [part for part in sent["contents"][-2]["parts"] if "functionCall" in part]
            assert patch["functionCall"]["args"] == {"input": PATCH} and patch["thoughtSignature"]
            assert shell["functionCall"]["args"] == {"command": "ls"}
            results = [part["functionResponse"]["response"] for part in sent["contents"][-1]["parts"]]
            assert results == [{"result": "patched"}, {"result": "a.py"}]
        case _:
            thinking, patch, shell = sent["messages"][-2]["content"]
            assert thinking["type"] == "thinking" and thinking["signature"]
            assert (patch["input"], shell["input"]) == ({"input": PATCH}, {"command": "ls"})
            assert [result["content"] for result in sent["messages"][-1]["content"]] == ["patched", "a.py"]


async def test_tools_that_only_another_maker_runs_are_refused(client: AsyncOpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError, match="web_search"):
        await client.responses.create(model="chat/m", input="hi", tools=[{"type": "web_search"}])
    await client.responses.create(model="responses/m", input="hi", tools=[{"type": "web_search"}])
    assert upstream.requests[0]["tools"] == [{"type": "web_search"}]


@pytest.mark.parametrize("model", MODELS)
async def test_conversation_goes_on_from_a_kept_response(client: AsyncOpenAI, upstream: Upstream, model: str) -> None:
    upstream.answers = [Reply(text="One."), Reply(text="Two."), Reply(text="Three.")]
    first = await client.responses.create(model=model, input="first", instructions="Only now.")
    second, _ = await streamed(client, model=model, input="second", previous_response_id=first.id)
    third = await client.responses.create(model=model, input="third", previous_response_id=second.id)
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    (sent,) = [upstream.requests[2][name] for name in ("messages", "input", "contents") if name in upstream.requests[2]]
    assert [message["role"] == "user" for message in sent] == [True, False, True, False, True]
    said = [message.get("content") or message["parts"] for message in sent]
    assert [one if isinstance(one, str) else one[0]["text"] for one in said] == [
        "first",
        "One.",
        "second",
        "Two.",
        "third",
    ]
    assert "previous_response_id" not in upstream.requests[2]


async def test_result_of_a_tool_goes_on_from_the_call(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", "{}"),)), Reply(text="A cat.")]
    first = await client.responses.create(model="chat/m", input="What is it?", tools=TOOLS)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "a cat"}
    second = await client.responses.create(model="chat/m", input=[result], previous_response_id=first.id, tools=TOOLS)
    assert second.output_text == "A cat."
    _, called, answered = upstream.requests[1]["messages"]
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"] == call.call_id


async def test_kept_response_is_read_listed_and_deleted(client: AsyncOpenAI, upstream: Upstream) -> None:
    first = await client.responses.create(model="chat/m", input="first")
    asked = await client.responses.create(model="chat/m", input="second", previous_response_id=first.id, stream=True)
    second = [event async for event in asked][-1].response
    assert (await client.responses.retrieve(second.id)).to_dict() == second.to_dict()
    listed = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.type for item in listed] == ["message", "message", "message"]
    assert len({item.id for item in listed}) == 3
    await client.responses.delete(first.id)
    for gone in (client.responses.retrieve(first.id), client.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.create(model="chat/m", input="x", previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("model", ["chat/m", "responses/m"])
async def test_events_of_a_kept_response_are_played_again(client: AsyncOpenAI, upstream: Upstream, model: str) -> None:
    upstream.answers = [Reply(reasoning="hm hm", text="a b c", tool_calls=(("look", "{}"),))]
    events = [event async for event in await client.responses.create(model=model, input="hi", stream=True)]
    final = events[-1].response
    again = [event async for event in await client.responses.retrieve(final.id, stream=True)]
    assert [event.to_dict() for event in again] == [event.to_dict() for event in events]
    rest = [event async for event in await client.responses.retrieve(final.id, stream=True, starting_after=6)]
    assert [event.to_dict() for event in rest] == [event.to_dict() for event in events[7:]]
    async with client.responses.stream(response_id=final.id, starting_after=6) as stream:
        assert [event.sequence_number async for event in stream] == list(range(7, len(events)))
    plain = await client.responses.create(model=model, input="hi")
    told = [event async for event in await client.responses.retrieve(plain.id, stream=True)]
    assert told[-1].response.to_dict() == plain.to_dict()


async def test_response_that_is_not_to_be_kept_is_not(client: AsyncOpenAI, upstream: Upstream) -> None:
    plain = await client.responses.create(model="chat/m", input="hi", store=False)
    final, _ = await streamed(client, model="chat/m", input="hi", store=False)
    assert plain.model_extra is not None and plain.model_extra["store"] is False
    for response in (plain, final):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)


async def test_nobody_else_gets_to_see_a_response(client: AsyncOpenAI, upstream: Upstream) -> None:
    response = await client.responses.create(model="chat/m", input="secret")
    other = client.with_options(api_key="other")
    for attempt in (
        other.responses.retrieve(response.id),
        other.responses.delete(response.id),
        other.responses.input_items.list(response.id),
        other.responses.create(model="chat/m", input="x", previous_response_id=response.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await attempt
    assert (await client.responses.retrieve(response.id)).id == response.id


async def test_tokens_are_counted_or_estimated(served: Served, client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(23))]
    exact = await client.responses.input_tokens.with_raw_response.count(model="responses/m", input="How many?")
    assert exact.parse().input_tokens == 23 and "x-cauce-estimated" not in exact.headers
    estimate = await client.responses.input_tokens.with_raw_response.count(model="chat/m", input="How many?")
    assert estimate.parse().input_tokens > 0 and estimate.headers["x-cauce-estimated"] == "true"
    assert estimate.parse().object == "response.input_tokens"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=400, error={"message": "bad"}), openai.BadRequestError),
        (Reply(status=400, error={"message": "no model", "code": "model_not_found"}), openai.NotFoundError),
        (Reply(status=429, error={"message": "slow"}), openai.RateLimitError),
        (Reply(status=500, error={"message": "oops"}), openai.InternalServerError),
        (Reply(error_after=0, error={"message": "money", "code": "insufficient_quota"}), openai.RateLimitError),
    ],
)
async def test_early_errors_keep_their_status(
    client: AsyncOpenAI, upstream: Upstream, reply: Reply, error: type[openai.APIStatusError]
) -> None:
    upstream.answers = [reply]
    with pytest.raises(error):
        await client.responses.create(model="responses/m", input="hi", stream=True)
    if reply.error_after is None:
        with pytest.raises(error):
            await client.responses.create(model="responses/m", input="hi")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fault", [{"cut_after": 2}, {"error_after": 2, "error": {"message": "oops"}}])
async def test_stream_that_breaks_raises_and_never_looks_complete(
    served: Served, client: AsyncOpenAI, upstream: Upstream, model: str, fault: dict[str, Any]
) -> None:
    upstream.answers = [Reply(text="a b c d", **fault)]
    with pytest.raises(openai.APIError):
        async for event in await client.responses.create(model=model, input="hi", stream=True):
            assert event.type != "response.completed"
    body = {"model": model, "input": "hi", "stream": True}
    frames = (await ask(served.port, "POST", "/v1/responses", body, {"authorization": "Bearer web"})).frames()
    if frames:
        assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
        assert [frame["type"] for frame in frames][-2:] == ["error", "response.failed"]
        last = frames[-1]["response"]
        assert last["status"] == "failed" and last["error"]["code"] == "server_error"
        kept = await ask(served.port, "GET", f"/v1/responses/{last['id']}", None, {"authorization": "Bearer web"})
        assert kept.json() == last


async def test_answer_that_is_cut_short_says_so(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b", finish_reason="length")]
    for model in MODELS:
        plain = await client.responses.create(model=model, input="hi", max_output_tokens=16)
        assert plain.status == "incomplete" and plain.incomplete_details is not None
        assert plain.incomplete_details.reason == "max_output_tokens"
        events = [event async for event in await client.responses.create(model=model, input="hi", stream=True)]
        assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize("model", MODELS)
async def test_refusal_is_a_part_of_a_completed_response(client: AsyncOpenAI, upstream: Upstream, model: str) -> None:
    upstream.answers = [Reply(text="", refusal="I will not.")]
    response = await client.responses.create(model=model, input="hi")
    if model in ("claude/m", "gem/m"):
        # Those wires say that the answer is refused, but do not tell the words of a refusal from others.
        assert response.status == "incomplete" and response.incomplete_details is not None
        assert response.incomplete_details.reason == "content_filter"
        return
    assert response.status == "completed"
    (item,) = response.output
    assert item.type == "message" and item.content[0].type == "refusal"
    assert item.content[0].refusal == "I will not."


async def test_client_that_closes_its_stream_closes_the_upstream(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    stream = await client.responses.create(model="responses/m", input="hi", stream=True)
    await anext(aiter(stream))
    await stream.close()
    await within(upstream.closed.wait())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses", 405),
        ("POST", "/v1/responses/resp_1", 405),
        ("POST", "/v1/responses/resp_1/input_items", 405),
        ("GET", "/v1/responses/resp_1/cancel", 405),
        ("GET", "/v1/responses/resp_1", 404),
        ("GET", "/v1/responses/resp_1/nothing", 404),
        ("GET", "/v1/responses/", 404),
    ],
)
async def test_paths_that_are_not_there(served: Served, method: str, path: str, status: int) -> None:
    response = await ask(served.port, method, path, None, {"authorization": "Bearer web"})
    assert response.status == status
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("query", ["starting_after=x", "starting_after=-1", "starting_after=1.5"])
async def test_cursor_that_is_none_is_refused(
    served: Served, client: AsyncOpenAI, upstream: Upstream, query: str
) -> None:
    response = await client.responses.create(model="chat/m", input="hi")
    path = f"/v1/responses/{response.id}?stream=true&{query}"
    refused = await ask(served.port, "GET", path, None, {"authorization": "Bearer web"})
    assert refused.status == 400 and refused.json()["error"]["param"] == "starting_after"
