"""What becomes of a reservation, whatever becomes of its call."""

import asyncio
from contextlib import aclosing
from math import inf

import pytest
from msgspec.structs import replace

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import BudgetExceeded, CircuitOpen, ProviderFailure, Throttled, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import Message, OpaquePart, TextPart
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.price import Prices, Rates
from cauce.domain.request import Request, Sampling, Scope
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.amounts import Amounts
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.limit_settings import Budget, BudgetsSettings, KeyRates, LimitsSettings
from cauce.engine.limit_settings import Rates as LimitRates
from cauce.engine.limits import LimitBook, ProviderRates
from cauce.engine.policies.limit import Limiting, limit_caller, limit_candidate
from cauce.ports.limiter import Amount, Denial
from cauce.ports.provider import Call, Candidate, Deltas, Open
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step, answering

pytestmark = pytest.mark.anyio

PRICED = ModelFacts(prices=Prices(Rates.given(1.0, 1_000_000.0)))
"""A dollar per token that is answered."""


_NO_RATES = LimitRates()
_NO_LIMITS = LimitsSettings()
_NO_BUDGETS = BudgetsSettings()


class House:
    """Limits around one scripted provider."""

    def __init__(
        self,
        *scripts: tuple[Step, ...],
        provider: LimitRates = _NO_RATES,
        limits: LimitsSettings = _NO_LIMITS,
        budgets: BudgetsSettings = _NO_BUDGETS,
        facts: ModelFacts = UNKNOWN,
        longest: float = inf,
    ) -> None:
        self.provider = ScriptedProvider("up", *(scripts or (answering("hello"),)))
        self.clock = FakeClock()
        self.limiter = InprocLimiter(self.clock)
        self.book = LimitBook(limits, budgets, {"up": ProviderRates(provider)})
        amounts = Amounts(Estimator(), budgets.assumed_output)
        self.limiting = Limiting(self.limiter, self.book, amounts, PrometheusMetrics())
        self.candidate = Candidate(self.provider, "m", facts=facts)

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        self.open: Open = compose(ask, limit_caller(self.limiting), limit_candidate(self.limiting, longest))

    def call(self, text: str = "hi", **sampling: int) -> Call:
        request = Request("up/m", (Message("user", (TextPart(text),)),), Sampling(**sampling))
        return Call(request=request, scope=Scope(), candidates=(self.candidate,))

    async def under_way(self) -> bool:
        """Whether the one place there is is taken."""
        answer = await self.limiter.reserve(self.book.of_candidate(self.candidate).limits, Amount())
        if isinstance(answer, Denial):
            return True
        await self.limiter.release(answer)
        return False


ONE_AT_ONCE = LimitRates(concurrent=1)


@pytest.mark.parametrize(
    "error",
    [
        ProviderFailure("down", failure="transient", provider="up"),
        ProviderFailure("late", failure="transient", provider="up", code="timeout"),
        Unsupported("it cannot do that"),
        CircuitOpen("left alone"),
    ],
)
async def test_place_is_let_go_when_the_call_fails(error: Exception) -> None:
    house = House((error,), provider=ONE_AT_ONCE)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        await house.open(house.call())
    assert not await house.under_way()


async def test_place_is_held_until_the_answer_has_been_read() -> None:
    house = House(provider=ONE_AT_ONCE)
    deltas = await house.open(house.call())
    assert await house.under_way()
    await collect(deltas)
    assert not await house.under_way()


async def test_place_is_let_go_when_the_answer_is_closed_before_its_end() -> None:
    house = House(provider=ONE_AT_ONCE)
    async with aclosing(await house.open(house.call())):
        assert await house.under_way()
    assert not await house.under_way()


async def test_place_is_let_go_when_the_caller_leaves() -> None:
    house = House((asyncio.Event(),), provider=ONE_AT_ONCE)
    waiting = asyncio.create_task(house.open(house.call()))
    while not house.provider.calls:
        await asyncio.sleep(0)
    assert await house.under_way()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not await house.under_way()


async def test_denial_names_its_bottleneck_and_asks_nobody() -> None:
    house = House(provider=LimitRates(requests_per_minute=10))
    await collect(await house.open(house.call()))
    with pytest.raises(Throttled) as denied:
        await house.open(house.call())
    assert denied.value.bottleneck == "provider:up:requests/minute"
    assert denied.value.retry_after is not None and 5 < denied.value.retry_after < 7
    assert len(house.provider.calls) == 1


async def test_request_that_was_refused_here_counts_for_no_limit() -> None:
    refused = (Unsupported("it cannot do that"),)
    house = House(refused, refused, answering("hello"), limits=LimitsSettings(keys={"*": KeyRates(10)}))
    for _ in range(2):
        with pytest.raises(Unsupported):
            await house.open(house.call())
    await collect(await house.open(house.call()))


async def test_request_the_upstream_failed_counts() -> None:
    failed = (ProviderFailure("down", failure="transient", provider="up"),)
    house = House(failed, answering("hello"), limits=LimitsSettings(keys={"*": KeyRates(10)}))
    with pytest.raises(ProviderFailure):
        await house.open(house.call())
    with pytest.raises(Throttled):
        await house.open(house.call())


async def test_length_of_usual_answers_is_learned() -> None:
    usual = (Text("hello"), Finish("stop", Usage(10, 40)))
    house = House(usual, provider=LimitRates(tokens_per_minute=10_000))
    asked = house.call().request
    assert house.limiting.amounts.tokens(asked, "up/m") > 500
    await collect(await house.open(house.call()))
    assert house.limiting.amounts.tokens(asked, "up/m") < 60


async def test_most_an_answer_may_cost_is_held_and_what_it_cost_is_spent() -> None:
    answer = (Text("hello"), Finish("stop", Usage(10, 5, cost=5.0, cost_source="priced")))
    house = House(answer, budgets=BudgetsSettings(keys={"*": Budget(day=20)}), facts=PRICED)
    deltas = await house.open(house.call(max_tokens=15))
    with pytest.raises(Throttled):
        await house.open(house.call(max_tokens=10))
    await collect(deltas)
    await collect(await house.open(house.call(max_tokens=10)))
    with pytest.raises(BudgetExceeded) as refused:
        await house.open(house.call(max_tokens=11))
    assert refused.value.status == 402 and refused.value.retry_after is not None


async def test_answer_nobody_bounds_is_bound_to_what_is_assumed() -> None:
    budgets = BudgetsSettings(keys={"*": Budget(day=20)}, assumed_output=30)
    house = House(budgets=budgets, facts=PRICED)
    with pytest.raises(BudgetExceeded):
        await house.open(house.call())
    house = House(budgets=budgets, facts=ModelFacts(prices=PRICED.prices, max_output=10))
    await collect(await house.open(house.call()))
    assert house.provider.calls[0].request.sampling.max_tokens is None
    house = House(budgets=BudgetsSettings(keys={"*": Budget(day=40)}, assumed_output=30), facts=PRICED)
    await collect(await house.open(house.call()))
    assert house.provider.calls[0].request.sampling.max_tokens == 30


async def test_answer_that_nobody_bounds_is_bound_to_what_its_budget_has_room_for() -> None:
    """Three at once, of a model that can write 64 tokens, for a dollar each: of 110 dollars there is room for all, for half, for a bit."""
    budgets = BudgetsSettings(keys={"*": Budget(day=110)}, assumed_output=8)
    long = [(Text("hello"), Finish("stop", Usage(10, most, cost=float(most)))) for most in (64, 32, 8)]
    house = House(*long, budgets=budgets, facts=ModelFacts(prices=PRICED.prices, max_output=64))
    under_way = [await house.open(house.call()) for _ in range(3)]
    assert [call.request.sampling.max_tokens for call in house.provider.calls] == [None, 32, 8]
    with pytest.raises(Throttled):
        await house.open(house.call())
    for deltas in under_way:
        await collect(deltas)
    with pytest.raises(BudgetExceeded):
        await house.open(house.call())


async def test_bound_that_its_client_gave_is_never_made_smaller() -> None:
    budgets = BudgetsSettings(keys={"*": Budget(day=40)}, assumed_output=8)
    house = House(budgets=budgets, facts=ModelFacts(prices=PRICED.prices, max_output=64))
    with pytest.raises(BudgetExceeded):
        await house.open(house.call(max_tokens=64))


async def test_model_without_a_price_is_refused_under_a_budget() -> None:
    house = House(budgets=BudgetsSettings(keys={"*": Budget(day=20)}))
    with pytest.raises(BudgetExceeded, match="the price of up/m is not known"):
        await house.open(house.call())
    assert not house.provider.calls


def marked(place: str, **control: str) -> Request:
    """A request that has something cached, as Anthropic's wire says it."""
    fields: dict[str, object] = {"cache_control": {"type": "ephemeral", **control}}
    block = Extra("anthropic_messages", {"block": fields})
    part = OpaquePart("anthropic_messages", fields) if place == "opaque" else TextPart("hi" * 1000)
    request = Request("up/m", (Message("user", (part,)),), Sampling(max_tokens=1))
    match place:
        case "part":
            return replace(request, messages=(Message("user", (TextPart("hi" * 1000, block),)),))
        case "result":
            return replace(request, messages=(Message("tool", (part,), call_id="c", extra=block),))
        case "tool":
            return replace(request, tools=(Tool("look", extra=block),))
        case "request":
            return replace(request, extra=Extra("anthropic_messages", {"body": fields, "headers": {}}))
        case _:
            return request


@pytest.mark.parametrize("place", ["part", "result", "tool", "request", "opaque"])
@pytest.mark.parametrize(("control", "times"), [({}, 1.25), ({"ttl": "5m"}, 1.25), ({"ttl": "1h"}, 2.0)])
def test_input_that_may_be_written_to_a_cache_is_held_at_the_price_of_that(
    place: str, control: dict[str, str], times: float
) -> None:
    amounts = Amounts(Estimator(), 1)
    rates = Rates.given(1.0, 0.0, cache_write=1.25, long_cache_write=2.0)
    candidate = Candidate(ScriptedProvider("up"), "m", facts=ModelFacts(prices=Prices(rates)))
    plain = Candidate(ScriptedProvider("up"), "m", facts=ModelFacts(prices=Prices(Rates.given(1.0, 0.0))))
    request = marked(place, **control)
    unmarked = marked("no")
    assert amounts.dollars(request, candidate, 1) == pytest.approx(times * amounts.dollars(request, plain, 1))
    assert amounts.dollars(unmarked, candidate, 1) == amounts.dollars(unmarked, plain, 1)


def test_input_of_a_model_that_may_write_caches_by_itself_is_held_at_the_price_of_that() -> None:
    amounts = Amounts(Estimator(), 1)
    rates = Rates.given(1.0, 0.0, cached=0.1, cache_write=1.25)
    candidate = Candidate(ScriptedProvider("up"), "m", facts=ModelFacts(prices=Prices(rates)))
    plain = Candidate(ScriptedProvider("up"), "m", facts=ModelFacts(prices=Prices(Rates.given(1.0, 0.0))))
    request = marked("no")
    assert amounts.dollars(request, candidate, 1) == pytest.approx(1.25 * amounts.dollars(request, plain, 1))


async def test_calls_that_write_a_cache_for_an_hour_at_once_spend_no_more_than_the_budget() -> None:
    rates = Rates.given(3.0, 15.0, 0.3, 3.75, 6.0)
    # What the request is estimated at, and a little more.
    tokens = round(1.2 * Estimator().estimate(marked("part", ttl="1h"), "up/m"))
    spent = 6.0 * tokens / 1_000_000
    answer = (Text("ok"), Finish("stop", Usage(tokens, cost=spent, cost_source="priced")))
    house = House(
        answer, budgets=BudgetsSettings(keys={"*": Budget(day=10 * spent)}), facts=ModelFacts(prices=Prices(rates))
    )
    answers: list[Deltas] = []
    with pytest.raises(Throttled):
        for _ in range(30):
            call = house.call()
            answers.append(await house.open(replace(call, request=marked("part", ttl="1h"))))
    for deltas in answers:
        await collect(deltas)
    assert 0 < len(house.provider.calls) <= 10


async def test_upstream_that_is_over_its_limit_is_left_alone_for_as_long_as_it_says() -> None:
    limited = ProviderFailure("slow down", failure="rate_limited", provider="up", retry_after=20)
    house = House((limited,), answering("hello"))
    with pytest.raises(ProviderFailure):
        await house.open(house.call())
    with pytest.raises(Throttled, match="what up/m says it takes now"):
        await house.open(house.call())
    house.clock.advance(20.1)
    await collect(await house.open(house.call()))


async def test_where_one_is_to_try_before_a_long_delay_is_over_limits_do_not_deny_it() -> None:
    limited = ProviderFailure("slow down", failure="rate_limited", provider="up", retry_after=3600)
    house = House((limited,), answering("hello"), longest=60)
    with pytest.raises(ProviderFailure):
        await house.open(house.call())
    house.clock.advance(59)
    with pytest.raises(Throttled):
        await house.open(house.call())
    house.clock.advance(1.1)
    await collect(await house.open(house.call()))
