"""Structured answers that take several turns, under budgets and limits: each turn is a call of its own."""

import asyncio
from typing import Any

import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Tokens, Upstream
from cauce.testing.upstream.reply import Ask
from tests.http import Response, ask
from tests.serving import MESSAGES, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

UNQUEUED = {"CAUCE_QUEUE__LENGTH": "0"}
KEY = f'[[auth.keys]]\nname = "one"\nhash = "{hash_key("one")}"\n'
PRICED = '[facts."up/*"]\njson_schema = false\ninput_price = 0\noutput_price = 100_000\n'
"""Half a dollar for the five tokens that the fake upstream answers with."""
GOOD, BAD = '{"legs": 4}', "A cat."
SCHEMA = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
WANTED = {"type": "json_schema", "json_schema": {"name": "animal", "strict": True, "schema": SCHEMA}}


async def asked(served: Served, **more: Any) -> Response:
    body = {"model": "up/m", "messages": MESSAGES, "response_format": WANTED, "max_tokens": 5, **more}
    return await ask(served.port, "POST", "/llm/message", body, {"authorization": "Bearer one"})


def repairs(asked: Ask) -> bool:
    return "cannot be used" in str(asked.body["messages"][-1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("repaired", [GOOD, BAD])
async def test_every_turn_is_held_against_the_budget_and_settled(
    upstream: Upstream, repaired: str, stream: bool
) -> None:
    upstream.answers = [lambda ask: Reply(text=repaired if repairs(ask) else BAD)]
    table = upstream_table("up", upstream.base_url) + PRICED + KEY + '[budgets.keys."*"]\nday = 5\n'
    async with serving(table) as served:
        await asyncio.gather(*[asked(served, stream=stream) for _ in range(30)])
        last = await asked(served)
        usage = await ask(served.port, "GET", "/usage", headers={"authorization": "Bearer one"})
    assert last.status == 402 and last.json()["error_code"] == "quota_exceeded"
    # Half a dollar each, and all of the budget is used.
    assert len(upstream.requests) == 10
    assert usage.json()["total"]["cost"] == pytest.approx(5)


async def test_every_turn_counts_for_the_requests_of_a_provider(upstream: Upstream) -> None:
    upstream.answers = [lambda ask: Reply(text=GOOD if repairs(ask) else BAD)]
    table = upstream_table("up", upstream.base_url, requests_per_minute=20) + PRICED
    async with serving(table, UNQUEUED) as served:
        assert [(await asked(served)).status for _ in range(2)] == [200, 429]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("told", [True, False])
async def test_turn_that_has_to_wait_goes_on_where_it_was(upstream: Upstream, told: bool) -> None:
    def answered(ask: Ask) -> Reply:
        if "response_format" in ask.body and not told:
            return Reply(status=400, error={"message": "This response_format type is unavailable now"})
        return Reply(text=GOOD if repairs(ask) else BAD)

    upstream.answers = [answered]
    table = upstream_table("up", upstream.base_url, max_concurrent=1) + (PRICED if told else "")
    async with serving(table) as served:
        answers = await asyncio.gather(*[asked(served) for _ in range(6)])
    assert [answer.status for answer in answers] == [200] * 6
    assert {answer.json()["response"] for answer in answers} == {GOOD}
    # However often they waited: nothing was asked twice.
    assert len(upstream.requests) == 6 * (2 if told else 4)
    assert upstream.record.most_at_once == 1
    assert {answer.headers["x-cauce-attempts"] for answer in answers} == {"2" if told else "4"}


async def test_turn_before_the_one_that_its_client_left_is_spent(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=BAD), Reply(silent=True), Reply(text=GOOD)]
    table = upstream_table("up", upstream.base_url) + PRICED + KEY + '[budgets.keys."*"]\nday = 1\n'
    async with serving(table, UNQUEUED) as served:
        leaving = asyncio.create_task(asked(served))
        async with asyncio.timeout(10):
            while len(upstream.requests) < 2:
                upstream.asked.clear()
                await upstream.asked.wait()
        leaving.cancel()
        await upstream.closed.wait()
        async with asyncio.timeout(10):
            while (await asked(served)).status == 429:
                pass
        assert (await asked(served)).status == 402


async def test_answer_that_breaks_while_it_is_held_back_is_asked_for_again_and_paid(upstream: Upstream) -> None:
    long = "many words that come one after the other before it breaks"
    upstream.answers = [Reply(text=long, cut_after=9), Reply(text=GOOD)]
    table = upstream_table("up", upstream.base_url) + PRICED + KEY + "[retry]\nbase = 0.001\n"
    async with serving(table) as served:
        answer = await asked(served)
        usage = await ask(served.port, "GET", "/usage", headers={"authorization": "Bearer one"})
    assert (answer.status, answer.json()["response"]) == (200, GOOD)
    assert [attempt["provider"] for attempt in answer.json()["attempts"]] == ["up", "up"]
    assert usage.json()["total"]["output_tokens"] > Tokens().output
