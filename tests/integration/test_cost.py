"""What an answer cost, as clients and operators see it, in front of a fake upstream."""

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Tokens
from tests.http import ask
from tests.serving import MESSAGES, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

PRICE = '[facts."up/gpt-5-mini*"]\ninput_price = 0.25\noutput_price = 2\ncached_price = 0.025\n'
TOKENS = Reply(usage=Tokens(input=2006, output=300, cached=1920, reasoning=192))
DOLLARS = 0.0006695
"""86 x 0.25 + 1,920 x 0.025 + 300 x 2, over a million."""


def entry(served: Served, provider: str = "up") -> dict[str, object]:
    last = served.runtime.services.last_entry(provider)
    assert last is not None
    return msgspec.structs.asdict(last)


async def test_plain_answer_shows_its_cost_and_where_it_comes_from(upstream: Upstream) -> None:
    upstream.answers = [TOKENS]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini-2025-08-07", "messages": MESSAGES}
        answer = (await ask(served.port, "POST", "/llm/message", body)).json()
        written = entry(served)
        figures = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert (answer["cost"], answer["cost_source"]) == (pytest.approx(DOLLARS), "priced")
    assert (written["listed_cost"], written["price_snapshot"]) == (pytest.approx(DOLLARS), "configuration")
    assert 'cauce_cost_usd_total{model="gpt-5-mini-2025-08-07",provider="up",source="priced"}' in figures


async def test_streamed_answer_shows_the_same_in_its_last_frame(upstream: Upstream) -> None:
    upstream.answers = [TOKENS]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES, "stream": True}
        last = (await ask(served.port, "POST", "/llm/message", body)).frames()[-1]
    assert (last["cost"], last["cost_source"]) == (pytest.approx(DOLLARS), "priced")


async def test_stream_with_an_id_shows_it_to_every_reader(upstream: Upstream) -> None:
    upstream.answers = [TOKENS]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES}
        first = (await ask(served.port, "POST", "/chat/stream/s1", body)).frames()[-1]
        again = (await ask(served.port, "GET", "/chat/stream/s1/resume")).frames()[-1]
    assert first["cost"] == again["cost"] == pytest.approx(DOLLARS)
    assert first["cost_source"] == again["cost_source"] == "priced"


async def test_cost_that_the_provider_reports_is_the_one_shown(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage={"prompt_tokens": 1000, "completion_tokens": 100, "cost": 0.5})]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES}
        answer = (await ask(served.port, "POST", "/llm/message", body)).json()
        written = entry(served)
    assert (answer["cost"], answer["cost_source"]) == (0.5, "reported")
    assert written["listed_cost"] == pytest.approx(0.00045)


async def test_usage_that_nobody_reports_makes_an_estimated_cost(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=None)]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES}
        answer = (await ask(served.port, "POST", "/llm/message", body)).json()
    assert answer["cost_source"] == "estimated" and 0 < answer["cost"] < 0.0001


@pytest.mark.parametrize("wire", ["/llm/message", "/chat/stream/s1"])
async def test_server_on_this_machine_costs_nothing_whatever_its_model_is_called(upstream: Upstream, wire: str) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES}
        answer = await ask(served.port, "POST", wire, body)
        predicted = (await ask(served.port, "POST", "/usage/estimate", body)).json()["candidates"]
        used = (await ask(served.port, "GET", "/usage")).json()
        figures = (await ask(served.port, "GET", "/metrics")).body.decode()
    told = answer.json() if wire == "/llm/message" else answer.frames()[-1]
    assert (told["cost"], told["cost_source"]) == (0.0, "priced")
    nothing = {"low": 0.0, "expected": 0.0, "high": 0.0}
    assert [(one["cost"], one["cost_source"]) for one in predicted] == [(nothing, "priced")]
    assert used["total"]["attempts"] == 1 and used["unpriced"]["attempts"] == 0
    assert 'cauce_unpriced_attempts_total{model="gpt-5-mini",provider="up"} 0.0' in figures


async def test_offline_answerer_is_predicted_to_cost_nothing() -> None:
    async with serving() as served:
        body = {"model": "offline", "messages": MESSAGES}
        [predicted] = (await ask(served.port, "POST", "/usage/estimate", body)).json()["candidates"]
    assert (predicted["cost"]["high"], predicted["cost_source"]) == (0.0, "priced")


async def test_what_costs_nothing_is_priced_though_its_tokens_are_estimated(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=None)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        answer = (await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES})).json()
    assert (answer["cost"], answer["cost_source"]) == (0.0, "priced") and answer["usage"]["input_tokens"] > 0


@pytest.mark.parametrize(("model", "settings"), [("m", {"local": False}), ("gpt-oss:120b-cloud", {})])
async def test_proxy_on_this_machine_and_a_model_that_is_passed_on_have_no_known_price(
    upstream: Upstream, model: str, settings: dict[str, bool]
) -> None:
    async with serving(upstream_table("up", upstream.base_url, **settings)) as served:
        body = {"model": f"up/{model}", "messages": MESSAGES}
        answer = (await ask(served.port, "POST", "/llm/message", body)).json()
        [predicted] = (await ask(served.port, "POST", "/usage/estimate", body)).json()["candidates"]
        figures = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert (answer["cost"], answer["cost_source"]) == (0.0, "unpriced")
    assert (predicted["cost"], predicted["cost_source"]) == (None, "unpriced")
    assert f'cauce_unpriced_attempts_total{{model="{model}",provider="up"}} 1.0' in figures


async def test_embeddings_have_a_cost_too(upstream: Upstream) -> None:
    facts = '[facts."up/text-embedding*"]\ninput_price = 1000\noutput_price = 0\n'
    async with serving(upstream_table("up", upstream.base_url) + facts) as served:
        body = {"model": "up/text-embedding-3-small", "input": "hello"}
        response = await ask(served.port, "POST", "/v1/embeddings", body)
        written = entry(served)
    tokens = response.json()["usage"]["prompt_tokens"]
    assert written["listed_cost"] == pytest.approx(tokens / 1000) and tokens > 0


async def test_count_of_an_upstream_that_cannot_count_learns_from_its_answers(upstream: Upstream) -> None:
    text = "What does a river do when it comes to a mountain? " * 20
    question = {"model": "up/m", "messages": [{"role": "user", "content": text}], "max_tokens": 9}
    upstream.answers = [Reply(usage={"prompt_tokens": 1000, "completion_tokens": 1})]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        before = (await ask(served.port, "POST", "/v1/messages/count_tokens", question)).json()["input_tokens"]
        await ask(served.port, "POST", "/v1/messages", question)
        after = (await ask(served.port, "POST", "/v1/messages/count_tokens", question)).json()["input_tokens"]
    assert before < 300
    assert after == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("none", [0, None])
async def test_usage_that_counts_nothing_of_a_long_answer_makes_an_estimated_cost(
    upstream: Upstream, none: int | None, stream: bool
) -> None:
    usage = {"prompt_tokens": none, "completion_tokens": none, "total_tokens": none}
    upstream.answers = [Reply(text="word " * 300, usage=usage)]
    async with serving(upstream_table("up", upstream.base_url) + PRICE) as served:
        body = {"model": "up/gpt-5-mini", "messages": MESSAGES, "stream": stream}
        response = await ask(served.port, "POST", "/llm/message", body)
        answer = response.frames()[-1] if stream else response.json()
        total = (await ask(served.port, "GET", "/usage")).json()
    assert answer["cost_source"] == "estimated" and answer["cost"] > 0.0005
    assert total["estimated"]["output_tokens"] == answer["usage"]["output_tokens"] > 300
