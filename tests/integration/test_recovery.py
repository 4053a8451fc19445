"""Answers whose provider fails after its first delta, on every surface: they are gone on with, or end as what they are."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from openai import AsyncOpenAI

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.http import ask, within
from tests.serving import serving
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

ORACLE = " ".join([f"palabra{place}ñ" for place in range(60)])
"""Every piece says where it stands."""


def table(name: str, upstream: Upstream) -> str:
    return (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.base_url}"\napi_key = "k"\ndefault_model = "m"\n'
    )


def going_on(request: Ask) -> Reply:
    """What a model answers that goes on from the beginning of its own answer."""
    last = request.body["messages"][-1]
    assert last["role"] == "assistant", "the beginning of the answer is the last message"
    begun = last["content"]
    assert ORACLE.startswith(begun) and not begun.endswith(" "), begun
    return Reply(ORACLE[len(begun) :])


async def asked(surface: Surface, port: int) -> str:
    outcome = await within(surface.asked(port, "route", stream=True), 30)
    assert outcome.kind == "answer", (surface.name, outcome)
    return outcome.text


ROUTE = '[models.route]\ncandidates = ["one/m", "two/m"]\n[retry]\nattempts = 1\n[breaker]\nenabled = false\n'


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_answer_cut_after_any_delta_is_whole_byte_for_byte_where_a_model_goes_on_exactly(
    surface: Surface,
) -> None:
    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=1)))
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        for place in range(1, 51):
            cutting.script(Reply(ORACLE, cut_after=place, reset=place % 2 == 0))
            assert await asked(surface, served.port) == ORACLE, place
        assert len(exact.requests) == 50


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_any_model_is_asked_to_continue_and_what_it_repeats_is_not_shown(surface: Surface) -> None:
    def continuing(request: Ask) -> Reply:
        said, word = request.body["messages"][-2:]
        assert said["role"] == "assistant" and word["role"] == "user" and said["content"][-100:] in word["content"]
        assert "Un fallo de red" in word["content"] or "network failure" in word["content"]
        return Reply(said["content"][-30:] + ORACLE[len(said["content"]) :])

    async with Upstream(Reply(ORACLE, cut_after=20)) as cutting, Upstream(continuing) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            assert await asked(surface, served.port) == ORACLE


async def test_ledger_and_frames_tell_of_each_attempt_and_the_usage_is_the_sum() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(going_on) as exact:
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            response = await ask(served.port, "POST", "/llm/message", body)
            frames = response.frames()
            told = (await ask(served.port, "GET", "/usage?group_by=provider")).json()
    kinds = [frame["type"] for frame in frames]
    assert kinds.count("complete") == 1 and kinds[-1] == "complete"
    broken = next(frame for frame in frames if frame["type"] == "error")
    assert broken["retrying"] is True and broken["strategy"] == "prefill"
    seam = next(frame for frame in frames if frame.get("status") == "seam")
    assert seam["quality"] == "exact"
    assert frames[-1]["data"] == ORACLE and len(frames[-1]["attempts"]) == 2
    assert frames[-1]["usage"]["output_tokens"] > 5
    groups = {group["provider"]: group for group in told["groups"]}
    assert groups["one"]["output_tokens"] > 0 and told["estimated"]["output_tokens"] == groups["one"]["output_tokens"]
    total = sum([group["output_tokens"] for group in groups.values()])
    assert frames[-1]["usage"]["output_tokens"] == total


async def test_route_that_forbids_it_ends_with_the_error() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("never")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", 'midstream = "fail"\n[retry]')
        async with serving(toml) as served:
            outcome = await SURFACES[0].asked(served.port, "route", stream=True)
    assert outcome.kind == "broken off" and not other.requests


async def test_model_that_begins_anew_is_refused_and_the_next_one_asked() -> None:
    def continuing(request: Ask) -> Reply:
        said: Any = request.body["messages"][-2]["content"]
        return Reply(ORACLE[len(said) :].lstrip())

    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=20)))
        anew = await stack.enter_async_context(Upstream(Reply(ORACLE)))
        third = await stack.enter_async_context(Upstream(continuing))
        toml = table("one", cutting) + table("two", anew) + table("three", third)
        toml += ROUTE.replace('"two/m"]', '"two/m", "three/m"]')
        served = await stack.enter_async_context(serving(toml))
        outcome = await within(SURFACES[0].asked(served.port, "route", stream=True), 30)
    assert outcome.kind == "answer" and outcome.text == ORACLE


async def test_complete_calls_of_a_cut_answer_end_the_step() -> None:
    calls = Reply("", tool_calls=(("find", '{"q": "río"}'),), cut_after=3)
    async with Upstream(calls) as cutting, Upstream(Reply("never")) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            body = {
                "model": "route",
                "messages": [{"role": "user", "content": "Find."}],
                "stream": True,
                "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
            }
            response = await ask(served.port, "POST", "/v1/chat/completions", body)
    assert response.complete or not other.requests
    assert not other.requests


async def test_client_that_leaves_while_it_is_gone_on_with_closes_the_upstream() -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply(" more", gate=gate)) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(served.port, "POST", "/llm/message", body), 0.5)
            await within(other.closed.wait())


async def test_openai_s_sdk_gets_the_answer_byte_for_byte_wherever_it_was_cut() -> None:
    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=1)))
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        sdk = await stack.enter_async_context(AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0))
        for place in range(1, 51):
            cutting.script(Reply(ORACLE, cut_after=place))
            async with sdk.chat.completions.stream(
                model="route", messages=[{"role": "user", "content": "Tell."}]
            ) as chat:
                completion = await chat.get_final_completion()
            assert completion.choices[0].message.content == ORACLE, place
            assert completion.choices[0].finish_reason == "stop"
            async with sdk.responses.stream(model="route", input="Tell.") as events:
                response = await events.get_final_response()
            assert response.output_text == ORACLE and response.status == "completed", place


async def test_answer_that_many_share_is_gone_on_with_once() -> None:
    async with Upstream(Reply(ORACLE, cut_after=20, pace=0.005)) as cutting, Upstream(going_on) as exact:
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {
                "model": "route",
                "messages": [{"role": "user", "content": "Tell."}],
                "temperature": 0,
                "stream": True,
            }
            asked_at_once = [ask(served.port, "POST", "/llm/message", body) for _ in range(20)]
            answers = await within(asyncio.gather(*asked_at_once), 30)
    assert {answer.frames()[-1]["data"] for answer in answers} == {ORACLE}
    assert (len(cutting.requests), len(exact.requests)) == (1, 1)
