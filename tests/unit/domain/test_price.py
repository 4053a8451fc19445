"""What calls cost: a golden table from providers' own usage objects, and what must hold of any price."""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.domain.price import Prices, Rates, Tier, cost, settled
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.usage import parse_usage as anthropic
from cauce.wire.gemini.usage import parse_usage as gemini
from cauce.wire.openai_chat.usage import parse_usage as chat
from cauce.wire.openai_responses.usage import parse_usage as responses

CATALOGUE = PackagedCatalogue()

# Each sum is reckoned by hand from the provider's page of prices, in USD per million tokens, as they stood in November 2026.
GOLDEN: dict[str, tuple[Callable[[dict[str, Any]], Usage | None], str, str, dict[str, Any], float]] = {
    # platform.openai.com/docs/pricing: 0.25, cached 0.025, output 2: 86 x 0.25 + 1,920 x 0.025 + 300 x 2
    "OpenAI with a cache hit and thinking": (
        chat,
        "openai",
        "gpt-5-mini-2025-08-07",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
            "completion_tokens_details": {"reasoning_tokens": 192},
        },
        0.0006695,
    ),
    # The same price in the other wire.
    "OpenAI Responses": (
        responses,
        "openai",
        "gpt-5-mini",
        {
            "input_tokens": 2006,
            "output_tokens": 300,
            "input_tokens_details": {"cached_tokens": 1920},
            "output_tokens_details": {"reasoning_tokens": 192},
        },
        0.0006695,
    ),
    # docs.claude.com/en/docs/about-claude/pricing: 3, 5-minute write 3.75, 1-hour write 6, read 0.30, output 15:
    # 21 x 3 + 1,000 x 3.75 + 500 x 6 + 18,808 x 0.3 + 393 x 15
    "Anthropic with both kinds of cache writes": (
        anthropic,
        "anthropic",
        "claude-sonnet-4-5-20250929",
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 1500,
            "cache_read_input_tokens": 18808,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
            "output_tokens": 393,
        },
        0.0183504,
    ),
    # The same page, long context above 200,000 tokens of input: 6, read 0.60, output 22.50:
    # 100,000 x 6 + 150,000 x 0.6 + 1,000 x 22.5
    "Anthropic above 200,000 tokens": (
        anthropic,
        "anthropic",
        "claude-sonnet-4-5",
        {"input_tokens": 100000, "cache_read_input_tokens": 150000, "output_tokens": 1000},
        0.7125,
    ),
    # ai.google.dev/gemini-api/docs/pricing, prompts above 200k: 2.50, cached 0.25, output with thinking 15:
    # 200,000 x 2.5 + 100,000 x 0.25 + 3,000 x 15
    "Gemini above 200,000 tokens": (
        gemini,
        "google",
        "models/gemini-2.5-pro",
        {
            "promptTokenCount": 300000,
            "cachedContentTokenCount": 100000,
            "candidatesTokenCount": 1000,
            "thoughtsTokenCount": 2000,
        },
        0.57,
    ),
    # ... and at 200,000 still the lower price: 200,000 x 1.25 + 100 x 10
    "Gemini at 200,000 tokens": (
        gemini,
        "google",
        "gemini-2.5-pro",
        {"promptTokenCount": 200000, "candidatesTokenCount": 100},
        0.251,
    ),
    # api-docs.deepseek.com/quick_start/pricing: cache miss 0.15, hit 0.003, output 0.60: 2,000 x 0.15 + 8,000 x 0.003 + 500 x 0.6
    "DeepSeek, which calls its cache otherwise": (
        chat,
        "deepseek",
        "deepseek-v4-flash",
        {
            "prompt_tokens": 10000,
            "completion_tokens": 500,
            "prompt_cache_hit_tokens": 8000,
            "prompt_cache_miss_tokens": 2000,
        },
        0.000624,
    ),
    # mistral.ai/pricing: 0.15, output 0.60: 1,000 x 0.15 + 100 x 0.6
    "Mistral": (
        chat,
        "mistral",
        "mistral-small-latest",
        {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        0.00021,
    ),
    # docs.x.ai/docs/models: 3, cached 0.75, output 15; thinking stands beside the completion, as the total tells:
    # 32 x 3 + (9 + 94) x 15
    "xAI, which counts thinking apart": (
        chat,
        "x-ai",
        "grok-4",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        0.001641,
    ),
    # groq.com/pricing: 0.59, output 0.79: 500 x 0.59 + 200 x 0.79
    "Groq": (
        chat,
        "groq",
        "llama-3.3-70b-versatile",
        {"prompt_tokens": 500, "completion_tokens": 200, "total_tokens": 700},
        0.000453,
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_usage_of_a_provider_costs_what_its_price_list_says(case: str) -> None:
    parse, vendor, model, raw, dollars = GOLDEN[case]
    usage = parse(raw)
    prices = CATALOGUE.facts("up", vendor, model).prices
    assert usage is not None and prices is not None
    assert cost(usage, prices) == pytest.approx(dollars, rel=1e-12)


def test_figures_of_a_provider_are_never_priced_twice() -> None:
    raw = {"prompt_tokens": 7, "completion_tokens": 5, "cost": {"total_cost": 0.006, "request_cost": 0.005}}
    usage = settled(chat(raw), CATALOGUE.facts("up", "openai", "gpt-4o").prices)
    assert (usage.cost, usage.cost_source) == (0.006, "reported")


counts = st.integers(0, 2_000_000)
dollars = st.floats(0, 100)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any usage in the normal form."""
    asked, answered = draw(counts), draw(counts)
    cached = draw(st.integers(0, asked))
    written = draw(st.integers(0, asked - cached))
    return Usage(
        asked,
        answered,
        cached,
        written,
        draw(st.integers(0, answered)),
        long_cache_write_tokens=draw(st.integers(0, written)),
    )


rates = st.builds(Rates, dollars, dollars, dollars, dollars, dollars, dollars)


@st.composite
def sensible(draw: st.DrawFn) -> Rates:
    """Rates at which a part that is priced apart is no dearer than the whole, but for cache writes."""
    input, output = draw(dollars), draw(dollars)
    return Rates(input, output, draw(st.floats(0, input)), draw(dollars), draw(dollars), draw(st.floats(0, output)))


@given(usages(), rates)
def test_classes_do_not_overlap_and_leave_nothing_out(usage: Usage, rate: Rates) -> None:
    dear = max(rate.input, rate.cached, rate.cache_write, rate.long_cache_write)
    cheap = min(rate.input, rate.cached, rate.cache_write, rate.long_cache_write)
    most = usage.input_tokens * dear + usage.output_tokens * max(rate.output, rate.reasoning)
    least = usage.input_tokens * cheap + usage.output_tokens * min(rate.output, rate.reasoning)
    got = cost(usage, Prices(rate)) * 1_000_000
    assert least * (1 - 1e-9) <= got <= most * (1 + 1e-9)


@given(usages(), st.floats(0, 100), st.floats(0, 100))
def test_one_price_for_all_classes_is_the_price_of_the_whole(usage: Usage, input: float, output: float) -> None:
    got = cost(usage, Prices(Rates.given(input, output)))
    assert got == pytest.approx(
        (usage.input_tokens * input + usage.output_tokens * output) / 1_000_000, rel=1e-9, abs=1e-15
    )


@given(usages(), sensible(), st.integers(1, 1000))
def test_more_tokens_never_cost_less(usage: Usage, rate: Rates, more: int) -> None:
    prices = Prices(rate, (Tier(200_000, msgspec.structs.replace(rate, input=rate.input * 2, output=rate.output * 2)),))
    before = cost(usage, prices)
    asked = msgspec.structs.replace(usage, input_tokens=usage.input_tokens + more)
    answered = msgspec.structs.replace(usage, output_tokens=usage.output_tokens + more)
    assert cost(asked, prices) >= before * (1 - 1e-12)
    assert cost(answered, prices) >= before * (1 - 1e-12)


@given(usages(), sensible())
def test_token_from_the_cache_never_costs_more_than_one_that_is_not(usage: Usage, rate: Rates) -> None:
    uncached = msgspec.structs.replace(usage, cached_tokens=0)
    assert cost(usage, Prices(rate)) <= cost(uncached, Prices(rate)) * (1 + 1e-12)


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "google", "deepseek", "mistral", "x-ai", "groq"])
def test_caches_are_listed_as_no_dearer_than_input(vendor: str) -> None:
    listed = CATALOGUE._vendor(vendor)
    assert listed is not None
    rates = [(model.names or model.globs, model.price) for model in listed.models if len(model.price) > 2]
    assert rates
    assert [names for names, price in rates if price[2] is not None and price[2] > (price[0] or 0)] == []


@given(st.builds(Usage, *[st.integers(-10, 10)] * 5, long_cache_write_tokens=st.integers(-10, 10)), rates)
def test_nonsense_of_an_upstream_makes_no_negative_cost(usage: Usage, rate: Rates) -> None:
    assert cost(usage, Prices(rate)) >= 0


def test_parts_larger_than_their_whole_count_as_the_whole() -> None:
    prices = Prices(Rates(10, 10, 1, 2, 3, 4))
    assert cost(Usage(100, 100, 500, 500, 500), prices) == pytest.approx((100 * 1 + 100 * 4) / 1_000_000)


def test_tier_holds_for_the_whole_call_and_above_its_bound_only() -> None:
    prices = Prices(Rates.given(1, 1), (Tier(100, Rates.given(2, 2)), Tier(200, Rates.given(3, 3))))
    assert [round(cost(Usage(asked, 10), prices) * 1_000_000) for asked in (100, 101, 200, 201)] == [110, 222, 420, 633]


def test_price_per_request_is_added_once() -> None:
    assert cost(Usage(1_000_000, 0), Prices(Rates.given(1, 1), per_request=0.005)) == pytest.approx(1.005)


def test_cost_says_where_it_comes_from() -> None:
    prices = Prices(Rates.given(1, 1))
    assert settled(Usage(10, 10), None).cost_source == "unpriced"
    assert settled(Usage(10, 10), prices).cost_source == "priced"
    assert settled(Usage(10, 10, estimated=True), prices).cost_source == "estimated"
    assert settled(Usage(10, 10, cost=0.0, cost_source="priced"), prices).cost == 0.0


@pytest.mark.parametrize("reported", [-1.0, inf, nan])
def test_cost_that_can_be_none_is_not_taken_from_a_provider(reported: float) -> None:
    usage = Usage(10, 10, cost=reported, cost_source="reported")
    assert settled(usage, None) == Usage(10, 10)
    assert settled(usage, Prices(Rates.given(1, 1))).cost == pytest.approx(20 / 1_000_000)
