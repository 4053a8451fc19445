"""What a client of each wire says, and what a provider of each wire is told: the same, with nothing lost."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.json import decode

from cauce.testing.upstream import Reply, Tokens, Upstream
from tests.http import Response, ask
from tests.integration.pairs import CLIENTS, FAILS, READERS, SCHEMA, facts
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


async def say(served: Served, client: str, model: str, name: str = "look", ids: list[str] = IDS) -> Response:
    asked = CLIENTS[client].body(model, name, ids)
    if model.startswith("res/"):
        for holder, field in (
            (asked, "stop"),
            (asked, "stop_sequences"),
            (asked.get("generationConfig"), "stopSequences"),
        ):
            if holder is not None:
                holder.pop(field, None)
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
    expected = facts(failed=CLIENTS[client].fails and model in FAILS)
    if CLIENTS[client].fails and model not in FAILS:
        expected = facts(failed=True)
        # That it failed, the words of its answer say.
        expected.turns = [(*one[:3], False) if one[0] == "result" else one for one in expected.turns]
    if model.startswith("res/") or not CLIENTS[client].stops:
        expected.stop = []
    assert told == expected


@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("odd", ["a b.c/é", "x" * 100])
async def test_ids_that_look_odd_still_match(
    served: Served, upstream: Upstream, client: str, model: str, odd: str
) -> None:
    upstream.answers = [Reply(text='{"x": 1}')]
    response = await say(served, client, model, ids=[odd, odd + "1", odd + "2"])
    assert response.status == 200
    calls = [turn for turn in READERS[model](upstream.requests[0]).turns if turn[0] in ("call", "result")]
    assert [turn[1] for turn in calls] == ["1", "2", "2", "1", "3", "3"]


@pytest.mark.parametrize("model", ["claude/claude-haiku-4-5", "gem/gemini-3-pro", "gpt/m", "res/m"])
@pytest.mark.parametrize("client", ["chat", "gemini", "messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_whose_names_a_provider_refuses_have_others_there(
    upstream: Upstream, client: str, model: str, stream: bool
) -> None:
    async with serving(tables(upstream, dialect="openai")) as served:
        asked = CLIENTS[client].body(model, ODD_NAME, IDS)
        for holder, field in (
            (asked, "stop"),
            (asked, "stop_sequences"),
            (asked.get("generationConfig", {}), "stopSequences"),
        ):
            holder.pop(field, None)
        upstream.answers = [lambda seen: Reply(text="", tool_calls=((_declared(seen.body), '{"x": 1}'),))]
        surface = next(one for one in SURFACES if one.name == client)
        if client != "gemini":
            asked["stream"] = stream
        response = await ask(served.port, "POST", surface.path(model, stream), asked)
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


def test_the_schema_of_the_conversation_is_one_that_every_provider_takes() -> None:
    assert SCHEMA["additionalProperties"] is False and SCHEMA["required"] == list(SCHEMA["properties"])
