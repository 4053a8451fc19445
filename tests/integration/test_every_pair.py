"""What a client of each wire says, and what a provider of each wire is told: the same, with nothing lost."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.json import decode

from cauce.testing.upstream import Reply, Tokens, Upstream
from tests.http import Response, ask
from tests.integration.pairs import CLIENTS, FAILS, READERS, facts
from tests.recordings.normal import Meaning
from tests.recordings.surfaces import SURFACES
from tests.serving import Served, serving, upstream_table

pytestmark = pytest.mark.anyio

IDS = ["call_a", "call_b", "call_c"]
ODD_NAME = "files.read all " + "x" * 80


def tables(upstream: Upstream, **settings: Any) -> str:
    """A provider of each wire, all of them `upstream`."""
    return (
        upstream_table("gpt", upstream.base_url, default_model="m", **settings)
        + upstream_table("res", upstream.base_url, default_model="m", wire="responses", **settings)
        + upstream_table("claude", upstream.root, default_model="m").replace('"openai"', '"anthropic"')
        + upstream_table("gem", upstream.root, default_model="m").replace('"openai"', '"gemini"')
    )


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(tables(upstream)) as running:
        yield running


@pytest.fixture
async def strict(upstream: Upstream) -> AsyncIterator[Served]:
    """The same with OpenAI itself, which takes nothing it does not know."""
    async with serving(tables(upstream, dialect="openai")) as running:
        yield running


def without_stop(asked: dict[str, Any]) -> None:
    """Take out what providers of the Responses wire refuse."""
    for holder in (asked, asked.get("generationConfig", {})):
        for field in ("stop", "stop_sequences", "stopSequences"):
            holder.pop(field, None)


async def say(served: Served, client: str, model: str, name: str = "look", ids: list[str] = IDS) -> Response:
    asked = CLIENTS[client].body(model, name, ids)
    if model.startswith("res/"):
        without_stop(asked)
    return await ask(served.port, "POST", CLIENTS[client].path.format(model=model), asked)


@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_each_provider_is_told_what_each_client_said(
    served: Served, upstream: Upstream, client: str, model: str
) -> None:
    upstream.answers = [Reply(text='{"x": 1}')]
    response = await say(served, client, model)
    assert response.status == 200, response.body
    told = READERS[model](upstream.requests[0])
    expected = facts(failed=CLIENTS[client].fails)
    if model not in FAILS:
        # That it failed, the words of its answer say.
        expected.turns = [(*one[:3], False) if one[0] == "result" else one for one in expected.turns]
    if model.startswith("res/") or not CLIENTS[client].stops:
        expected.stop = []
    assert told == expected


@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("odd", ["a b.c/é", "x" * 100])
async def test_ids_that_look_odd_still_match(
    strict: Served, upstream: Upstream, client: str, model: str, odd: str
) -> None:
    upstream.answers = [Reply(text='{"x": 1}')]
    response = await say(strict, client, model, ids=[odd, odd + "1", odd + "2"])
    assert response.status == 200
    if model == "gpt/m":
        called = [call["id"] for one in upstream.requests[0]["messages"] for call in one.get("tool_calls", ())]
        assert all(len(one) <= 40 for one in called)
        upstream.requests[0]["max_tokens"] = upstream.requests[0]["max_completion_tokens"]
    calls = [turn for turn in READERS[model](upstream.requests[0]).turns if turn[0] in ("call", "result")]
    assert [turn[1] for turn in calls] == ["1", "2", "2", "1", "3", "3"]


@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", ["chat", "gemini", "messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_whose_names_a_provider_refuses_have_others_there(
    strict: Served, upstream: Upstream, client: str, model: str, stream: bool
) -> None:
    asked = CLIENTS[client].body(model, ODD_NAME, IDS)
    without_stop(asked)
    upstream.answers = [lambda seen: Reply(text="", tool_calls=((_declared(seen.body), '{"x": 1}'),))]
    surface = next(one for one in SURFACES if one.name == client)
    if client != "gemini":
        asked["stream"] = stream
    response = await ask(strict.port, "POST", surface.path(model, stream), asked)
    assert response.status == 200, response.body
    told = str(upstream.requests[0])
    assert ODD_NAME not in told and told.count(_declared(upstream.requests[0])) >= 5
    answered = surface.streamed(_events(response)) if stream else surface.plain(response.json())
    assert answered.calls == [(ODD_NAME, {"x": 1})]


def _declared(body: dict[str, Any]) -> str:
    tool = body["tools"][0]
    if "functionDeclarations" in tool:
        return tool["functionDeclarations"][0]["name"]
    return tool["function"]["name"] if "function" in tool else tool["name"]


def _events(response: Response) -> list[dict[str, Any]]:
    return [decode(line[6:].strip()) for line in response.body.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_is_told_what_each_provider_answers(
    served: Served, upstream: Upstream, client: str, model: str, stream: bool
) -> None:
    usage = Tokens(20, 9, cached=4, reasoning=3)
    upstream.answers = [
        Reply(
            text="I look.",
            reasoning="Let me see.",
            tool_calls=(("look", '{"x": 1}'), ("look", '{"x": 2}')),
            usage=usage,
        )
    ]
    surface = next(one for one in SURFACES if one.name == client)
    calls = [("look", {"x": 1}), ("look", {"x": 2})]
    seen = await surface.ask(served.port, model, stream)
    assert seen == Meaning("I look.", "Let me see.", calls, "tool_calls", (20, 4, 9))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_is_told_how_each_answer_ended(
    served: Served, upstream: Upstream, client: str, model: str, reason: str, stream: bool
) -> None:
    upstream.answers = [Reply(text="One two", finish_reason=reason)]
    surface = next(one for one in SURFACES if one.name == client)
    seen = await surface.ask(served.port, model, stream)
    assert (seen.text, seen.finish) == ("One two", reason)


TOOLS: dict[str, dict[str, Any]] = {
    "chat": {"tools": [{"type": "function", "function": {"name": "look"}}], "reasoning_effort": "low"},
    "responses": {
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}],
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
    },
    "messages": {
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "max_tokens": 2000,
    },
    "gemini": {
        "tools": [{"functionDeclarations": [{"name": "look"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024}},
    },
}


def handed_back(client: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The members of a second request of `client`, which gives `answers` back as they came, and the tool's result."""
    first = answers[0]
    match client:
        case "chat":
            message = first["choices"][0]["message"]
            result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "a cat"}
            return {"messages": [{"role": "user", "content": "?"}, message, result]}
        case "responses":
            called = next(item for item in first["output"] if item["type"] == "function_call")
            result = {"type": "function_call_output", "call_id": called["call_id"], "output": "a cat"}
            return {"input": [{"role": "user", "content": "?"}, *first["output"], result], "store": False}
        case "messages":
            used = next(block for block in first["content"] if block["type"] == "tool_use")
            result = {"type": "tool_result", "tool_use_id": used["id"], "content": "a cat"}
            said = {"role": "assistant", "content": first["content"]}
            return {"messages": [{"role": "user", "content": "?"}, said, {"role": "user", "content": [result]}]}
        case _:
            # As Google's SDK keeps a stream: a content for each piece.
            contents = [answer["candidates"][0]["content"] for answer in answers]
            called = next(part["functionCall"] for one in contents for part in one["parts"] if "functionCall" in part)
            response = {
                **{key: called[key] for key in ("id", "name") if key in called},
                "response": {"result": "a cat"},
            }
            user = {"role": "user", "parts": [{"text": "?"}]}
            return {"contents": [user, *contents, {"role": "user", "parts": [{"functionResponse": response}]}]}


async def converse(served: Served, client: str, model: str, stream: bool, **fields: Any) -> list[dict[str, Any]]:
    surface = next(one for one in SURFACES if one.name == client)
    asked = {**surface.body(model, stream), **TOOLS[client], **fields}
    response = await ask(served.port, "POST", surface.path(model, stream), asked)
    assert response.status == 200, response.body
    return _events(response) if stream else [response.json()]


SIGNED = "c2lnbmVkIGJ5IHRoZSBtb2RlbA=="


@pytest.mark.parametrize("model", ["res/m", "claude/claude-haiku-4-5", "gem/gemini-3-pro"])
@pytest.mark.parametrize(
    ("client", "stream"),
    [("chat", False), ("responses", False), ("messages", False), ("gemini", False), ("gemini", True)],
)
async def test_signature_comes_back_to_its_maker_and_goes_to_nobody_else(
    strict: Served, upstream: Upstream, client: str, model: str, stream: bool
) -> None:
    upstream.answers = [
        Reply(text="", reasoning="Let me see.", signature=SIGNED, tool_calls=(("look", '{"x": 1}'),)),
        Reply(text="A cat."),
    ]
    said = handed_back(client, await converse(strict, client, model, stream))
    await converse(strict, client, model, False, **said)
    told = upstream.requests[1]
    signed = [
        *(item["encrypted_content"] for item in told.get("input", ()) if item.get("type") == "reasoning"),
        *(
            block["signature"]
            for message in told.get("messages", ())
            for block in message["content"]
            if isinstance(block, dict) and block["type"] == "thinking"
        ),
        *(
            part["thoughtSignature"]
            for content in told.get("contents", ())
            for part in content["parts"]
            if "thoughtSignature" in part
        ),
    ]
    assert signed == [SIGNED]
    if model.startswith("claude/"):
        assert told["messages"][1]["content"][0]["thinking"] == "Let me see."
        assert told["thinking"]["type"] == "enabled"
    for other in READERS.keys() - {model}:
        await converse(strict, client, other, False, **said)
        assert SIGNED not in str(upstream.requests[-1]) and "Y2F1Y2Uu" not in str(upstream.requests[-1])


async def test_claude_does_not_think_on_in_a_turn_whose_thinking_nobody_kept(
    served: Served, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", "{}"),)), Reply(text="A cat.")]
    said = handed_back("chat", await converse(served, "chat", "gpt/m", False))
    await converse(served, "chat", "claude/claude-haiku-4-5", False, **said)
    assert "thinking" not in upstream.requests[1]
    await converse(served, "chat", "claude/claude-haiku-4-5", False, messages=[{"role": "user", "content": "?"}])
    assert upstream.requests[2]["thinking"]["type"] == "enabled"


async def test_calls_that_have_no_id_get_one_that_no_other_turn_has(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", "{}"),))]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "look"}]
    ids: list[str] = []
    for _ in "123":
        response = await ask(served.port, "POST", "/v1/chat/completions", {"model": "gem/m", "messages": messages})
        said = response.json()["choices"][0]["message"]
        ids.append(said["tool_calls"][0]["id"])
        messages += [said, {"role": "tool", "tool_call_id": ids[-1], "content": "1"}]
    assert len(set(ids)) == 3 and all(len(one) <= 40 for one in ids)
