"""What each attempt is written down as: its tokens, its cost and where the figures come from."""

import asyncio
from contextlib import aclosing

import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.price import Prices, Rates
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Upstream
from cauce.domain.tokens import estimate_input_tokens
from cauce.domain.usage import Usage
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.policies.meter import meter
from cauce.engine.policies.patience import patience
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call, Candidate, Deltas, Open
from cauce.stores.inproc.ledger import InprocLedger
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step

pytestmark = pytest.mark.anyio

PRICED = ModelFacts(prices=Prices(Rates.given(1, 10), snapshot="list/1"))
REQUEST = Request("x", (Message("user", (TextPart("What does a river do when it comes to a mountain? " * 10),)),))
INPUT = estimate_input_tokens(REQUEST)


class Metered:
    """A provider behind the meter."""

    def __init__(self, *script: Step, facts: ModelFacts = PRICED) -> None:
        self.clock = FakeClock()
        self.ledger = InprocLedger()
        self.metrics = PrometheusMetrics()
        self.estimator = Estimator()
        self.provider = ScriptedProvider("up", script)
        self.candidate = Candidate(self.provider, "m", facts=facts)

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        metered = meter(self.clock, self.ledger, self.metrics, self.estimator)
        self._open: Open = compose(ask, metered, patience(self.clock))

    async def open(self, patience: float | None = None, upstream: Upstream | None = None) -> Deltas:
        call = Call(REQUEST, Scope(), (self.candidate,), patience=patience, upstream=upstream)
        return await self._open(call)

    @property
    def entry(self) -> Entry:
        [entry] = self.ledger.entries()
        return entry

    @property
    def figures(self) -> str:
        return self.metrics.exposition()[0].decode()


def finish(usage: Usage) -> tuple[Text, Finish]:
    return Text("hi"), Finish("stop", usage)


async def test_finish_says_what_the_answer_cost_and_so_does_the_ledger() -> None:
    metered = Metered(*finish(Usage(1000, 100)))
    completion = await collect(await metered.open())
    assert (completion.usage.cost, completion.usage.cost_source) == (pytest.approx(0.002), "priced")
    assert metered.entry.usage == completion.usage
    assert (metered.entry.listed_cost, metered.entry.price_snapshot) == (pytest.approx(0.002), "list/1")
    assert 'cauce_cost_usd_total{model="m",provider="up",source="priced"} 0.002' in metered.figures


async def test_reported_cost_wins_and_ours_stands_beside_it() -> None:
    metered = Metered(*finish(Usage(1000, 100, cost=0.5, cost_source="reported")))
    completion = await collect(await metered.open())
    assert (completion.usage.cost, completion.usage.cost_source) == (0.5, "reported")
    assert (metered.entry.usage.cost, metered.entry.listed_cost) == (0.5, pytest.approx(0.002))


async def test_model_without_a_price_is_unpriced_and_raises_a_figure() -> None:
    metered = Metered(*finish(Usage(1000, 100)), facts=UNKNOWN)
    completion = await collect(await metered.open())
    assert (completion.usage.cost, completion.usage.cost_source) == (0.0, "unpriced")
    assert (metered.entry.listed_cost, metered.entry.price_snapshot) == (None, "")
    assert 'cauce_unpriced_attempts_total{model="m",provider="up"} 1.0' in metered.figures


async def test_answer_that_costs_nothing_is_not_unpriced() -> None:
    metered = Metered(*finish(Usage(10, 10, cost=0.0, cost_source="priced")), facts=UNKNOWN)
    assert (await collect(await metered.open())).usage.cost_source == "priced"
    assert 'cauce_unpriced_attempts_total{model="m",provider="up"} 0.0' in metered.figures


async def test_input_that_nobody_counted_is_estimated_as_the_model_has_taught() -> None:
    metered = Metered(*finish(Usage(1, 100, estimated=True)))
    metered.estimator.learn(REQUEST, "up/m", Usage(INPUT * 2, 1))
    usage = (await collect(await metered.open())).usage
    assert usage.input_tokens == pytest.approx(INPUT * 2, rel=0.02)
    assert (usage.output_tokens, usage.cost_source, usage.estimated) == (100, "estimated", True)
    assert usage.cost == pytest.approx((usage.input_tokens + 1000) / 1_000_000)


async def test_reported_usage_teaches_the_estimator_once_the_answer_has_left() -> None:
    metered = Metered(*finish(Usage(INPUT * 3, 100)))
    await collect(await metered.open())
    assert metered.estimator.estimate(REQUEST, "up/m") == INPUT
    await asyncio.sleep(0)
    assert metered.estimator.estimate(REQUEST, "up/m") == pytest.approx(INPUT * 3, rel=0.02)


async def test_failure_before_the_first_delta_used_nothing_that_is_known_of() -> None:
    metered = Metered(ProviderFailure("no", failure="transient", provider="up"))
    with pytest.raises(ProviderFailure):
        await metered.open()
    assert (metered.entry.outcome, metered.entry.usage) == ("failed", Usage(estimated=True))
    assert metered.entry.listed_cost == 0.0


async def test_answer_that_breaks_off_cost_at_least_its_input() -> None:
    metered = Metered(Text("half"), ProviderFailure("cut", failure="transient", provider="up"))
    with pytest.raises(ProviderFailure):
        await collect(await metered.open())
    assert metered.entry.outcome == "failed"
    assert metered.entry.usage == Usage(
        INPUT, cost=pytest.approx(INPUT / 1_000_000), cost_source="estimated", estimated=True
    )


async def test_answer_that_its_reader_leaves_cost_at_least_its_input() -> None:
    metered = Metered(Text("half"), asyncio.Event())
    async with aclosing(await metered.open()) as deltas:
        await deltas.read()
    assert (metered.entry.outcome, metered.entry.usage.input_tokens) == ("cancelled", INPUT)
    assert metered.entry.usage.cost_source == "estimated"


async def test_model_that_thinks_until_time_runs_out_cost_its_input() -> None:
    metered = Metered(asyncio.Event())
    opening = asyncio.ensure_future(metered.open(patience=20))
    await metered.clock.until_waiting(1)
    metered.clock.advance(21)
    with pytest.raises(ProviderFailure, match="no answer within"):
        await opening
    assert (metered.entry.error_code, metered.entry.usage.input_tokens) == ("timeout", INPUT)


async def test_server_that_cannot_be_connected_to_in_time_cost_nothing() -> None:
    metered = Metered(ProviderFailure("late", failure="transient", provider="up", code="timeout"))
    with pytest.raises(ProviderFailure):
        await metered.open()
    assert metered.entry.usage.input_tokens == 0


async def test_caller_that_leaves_while_the_model_thinks_leaves_an_estimate() -> None:
    metered = Metered(asyncio.Event())
    opening = asyncio.ensure_future(metered.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (metered.entry.outcome, metered.entry.usage.input_tokens) == ("cancelled", INPUT)


BROKEN = ProviderFailure("cut", failure="transient", provider="up")


@pytest.mark.parametrize("script", [(asyncio.Event(),), (Text(""), BROKEN)], ids=["silent", "cut before it spoke"])
async def test_attempt_that_read_a_stream_on_and_got_nothing_of_it_leaves_the_bill_to_whoever_asked(
    script: tuple[Step, ...],
) -> None:
    metered = Metered(*script)
    opening = asyncio.ensure_future(metered.open(patience=20, upstream=Upstream("up", "resp_1", "17")))
    if len(script) == 1:
        await metered.clock.until_waiting(1)
        metered.clock.advance(21)
    with pytest.raises(ProviderFailure):
        await collect(await opening)
    assert (metered.entry.outcome, metered.entry.usage) == ("failed", Usage(estimated=True))
