"""Candidates put in order by chance, load, price and time."""

from collections import Counter
from random import Random

import pytest

from cauce.domain.errors import ProviderFailure
from cauce.domain.usage import Usage
from cauce.engine.health import AILING, FORGOTTEN, Health
from cauce.engine.policies.breaker import Breakers
from cauce.engine.routing import Route, Source
from cauce.engine.routing.order import Standing, balanced
from cauce.ports.resilience import BreakerSettings
from cauce.ports.usage import Votes
from cauce.testing.chance import FakeChance
from tests.unit.engine.routing.table import Table, asking, deployment, source

pytestmark = pytest.mark.anyio

THREE = ("a/x", "b/x", "c/x")
SOURCES = (source("a"), source("b"), source("c"), source("offline", sole=True, level="offline"))
BALANCED = Route("b", (*THREE, "offline"), order="balanced")


def two(**settings: float) -> Source:
    deployments = (deployment("up", "one", weight=settings.get("one", 1.0)), deployment("up", "two"))
    return source("up", default_model="m", deployments=deployments)


def measure(table: Table, provider: str, seconds: float, *, streamed: bool = False) -> None:
    candidate = next(one for one in table.router.candidates(asking("b")) if one.provider.name == provider)
    table.health.of(candidate).answered(table.clock.monotonic() - seconds, streamed=streamed)


def test_two_are_drawn_and_the_less_loaded_leads() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0, 0.0))
    measure(table, "a", 3.0)
    measure(table, "b", 1.0)
    measure(table, "c", 0.1)
    # The draws are a, then the first of the others, b: c is faster still, and was not drawn.
    assert table.names(asking("b")) == ["b/x", "c/x", "a/x", "offline"]


def test_small_differences_leave_the_choice_to_chance() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    measure(table, "a", 1.2)
    measure(table, "b", 1.0)
    measure(table, "c", 1.1)
    assert table.names(asking("b"))[0] == "a/x"


def test_one_that_was_slow_is_asked_again_after_a_while() -> None:
    table = Table(Route("b", ("a/x", "b/x"), order="balanced"), sources=SOURCES, chance=FakeChance(0.0))
    measure(table, "a", 4.0)
    measure(table, "b", 1.0)
    assert table.names(asking("b"))[0] == "b/x"
    table.clock.advance(45)
    measure(table, "b", 1.0)
    assert table.names(asking("b"))[0] == "a/x"


def test_times_too_short_to_tell_anything_are_alike() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    measure(table, "a", 0.04)
    measure(table, "b", 0.001)
    assert table.names(asking("b"))[0] == "a/x"


def test_calls_under_way_count_as_load() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    table.health.of(table.router.candidates(asking("b"))[0]).under_way = 1
    assert table.names(asking("b"))[0] == "b/x"


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 0.5, 2.5)])
def test_shares_are_those_of_the_weights_while_all_do_alike(weights: tuple[float, ...]) -> None:
    route = Route("w", THREE, order="balanced", weights=weights)
    table = Table(route, sources=SOURCES, chance=Random(7))
    counted = Counter([table.names(asking("w"))[0] for _ in range(4000)])
    for name, weight in zip(THREE, weights, strict=True):
        assert counted[name] / 4000 == pytest.approx(weight / sum(weights), abs=0.03)


def test_weights_hold_under_load_too() -> None:
    route = Route("w", ("a/x", "b/x"), order="balanced", weights=(3.0, 1.0))
    table = Table(route, sources=SOURCES, chance=Random(7))
    counted: Counter[str] = Counter()
    for _ in range(400):
        first = table.router.candidates(asking("w"))[0]
        table.health.of(first).under_way += 1
        counted[first.name] += 1
    assert counted["a/x"] / 400 == pytest.approx(0.75, abs=0.03)


def test_one_that_failed_a_moment_ago_is_asked_last_until_it_is_well() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    ill = table.router.candidates(asking("b"))[0]
    table.health.of(ill).failed()
    assert table.names(asking("b")) == ["b/x", "c/x", "a/x", "offline"]
    table.clock.advance(AILING)
    assert table.names(asking("b"))[0] == "a/x"


def test_open_circuits_come_last_until_a_probe_is_due() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    breakers = table.conditions.breakers = Breakers(BreakerSettings(), table.clock)
    first = table.router.candidates(asking("b"))[0]
    table.health.of(table.router.candidates(asking("b"))[1]).failed()
    breakers.of(first).trip(ProviderFailure("down", failure="transient", provider="a", retry_after=30.0))
    assert table.names(asking("b")) == ["c/x", "b/x", "a/x", "offline"]
    table.clock.advance(30)
    assert table.names(asking("b"))[0] == "a/x"


def test_all_of_them_ill_are_asked_all_the_same() -> None:
    table = Table(BALANCED, sources=SOURCES, chance=FakeChance(0.0))
    for candidate in table.router.candidates(asking("b"))[:3]:
        table.health.of(candidate).failed()
    assert table.names(asking("b")) == ["a/x", "b/x", "c/x", "offline"]


def test_fastest_asks_whoever_is_not_measured_once_and_then_by_time() -> None:
    table = Table(Route("b", THREE, order="fastest"), sources=SOURCES)
    measure(table, "a", 2.0)
    measure(table, "b", 1.0)
    assert table.names(asking("b")) == ["c/x", "b/x", "a/x"]
    table.health.of(table.router.candidates(asking("b"))[0]).under_way = 1
    assert table.names(asking("b")) == ["b/x", "a/x", "c/x"]
    measure(table, "c", 5.0)
    assert table.names(asking("b")) == ["b/x", "a/x", "c/x"]


def test_streams_and_plain_answers_are_measured_apart() -> None:
    table = Table(Route("b", ("a/x", "b/x"), order="fastest"), sources=SOURCES)
    for provider, streamed, plain in (("a", 0.2, 9.0), ("b", 0.4, 2.0)):
        measure(table, provider, streamed, streamed=True)
        measure(table, provider, plain)
    assert table.names(asking("b")) == ["b/x", "a/x"]
    assert table.names(asking("b", stream=True)) == ["a/x", "b/x"]


def test_what_was_measured_long_ago_is_forgotten() -> None:
    table = Table(Route("b", ("a/x", "b/x"), order="fastest"), sources=SOURCES)
    measure(table, "a", 5.0)
    measure(table, "b", 1.0)
    table.clock.advance(FORGOTTEN - 1)
    measure(table, "b", 1.0)
    table.clock.advance(2)
    assert table.names(asking("b"))[0] == "a/x"


async def test_averages_follow_the_newest_measurements() -> None:
    table = Table(BALANCED, sources=SOURCES)
    candidate = table.router.candidates(asking("b"))[0]
    vitals = table.health.of(candidate)
    measure(table, candidate.provider.name, 1.0)
    for _ in range(20):
        vitals.answered(table.clock.monotonic() - 2.0, streamed=False)
    latency, age = vitals.latency(streamed=False) or (0.0, 0.0)
    assert latency == pytest.approx(2.0, abs=0.01) and age == 0
    vitals.under_way = 1
    vitals.ended("completed", Usage(), None)
    assert vitals.under_way == 0 and not vitals.ailing


def test_health_is_bounded_and_keeps_those_with_calls_under_way() -> None:
    table = Table(BALANCED, sources=SOURCES)
    health = Health(table.clock, most=2)
    busy, idle, new, _ = table.router.candidates(asking("b"))
    health.of(busy).under_way = 1
    health.of(idle).failed()
    assert not health.of(new).ailing
    assert health.figures(busy, streamed=False).under_way == 1
    assert not health.figures(idle, streamed=False).ailing


def test_tiered_is_the_order_of_auto_over_what_is_listed() -> None:
    listed = ("offline", "here/gguf", "ollama/qwen", "other/large", "other/small", "cloud/big")
    table = Table(Route("t", listed, order="tiered"))
    told = table.router.decide(asking("t"))
    assert [one.name for one in told.candidates] == [
        "cloud/big",
        "other/large",
        "other/small",
        "here/gguf",
        "ollama/qwen",
        "offline",
    ]
    assert set(told.whys) == {"tier", "resort"}


def test_tiers_hold_on_each_side_that_a_rule_makes_and_follow_their_providers() -> None:
    table = Table(Route("t", ("here/gguf", "other/small", "cloud/big"), order="tiered", prefer="local"))
    assert table.names(asking("t")) == ["here/gguf", "cloud/big", "other/small"]
    table.router.add(source("cloud", default_model="big", tier=9))
    assert table.names(asking("t")) == ["here/gguf", "other/small", "cloud/big"]


def test_cheapest_compares_what_the_call_is_thought_to_cost() -> None:
    prices = {"a": 3.0, "b": 1.0}
    table = Table(Route("c", THREE, order="cheapest"), sources=SOURCES, prices=prices)
    assert table.names(asking("c")) == ["b/x", "a/x", "c/x"]


def test_a_model_of_this_machine_costs_nothing() -> None:
    table = Table(Route("c", ("cloud/big", "here/gguf", "offline"), order="cheapest"), prices={"cloud": 0.1})
    assert table.names(asking("c")) == ["here/gguf", "cloud/big", "offline"]


def test_a_model_of_this_machine_costs_what_it_was_given_as_its_price() -> None:
    route = Route("c", ("here/gguf", "cloud/big", "offline"), order="cheapest")
    assert Table(route, prices={"cloud": 0.1, "here": 5.0}).names(asking("c"))[:2] == ["cloud/big", "here/gguf"]


def test_best_rated_asks_first_what_people_liked() -> None:
    class Liked:
        def approval(self, model: str) -> Votes | None:
            return {"b/x": Votes(up=9, down=1), "a/x": Votes(up=1, down=1), "c/x": None}[model]

    table = Table(Route("r", THREE, order="best_rated"), sources=SOURCES)
    table.conditions.feedback = Liked()  # pyright: ignore[reportAttributeAccessIssue]
    assert table.names(asking("r")) == ["b/x", "a/x", "c/x"]


def test_deployments_are_tried_before_the_next_candidate_and_count_as_one() -> None:
    table = Table(Route("r", ("up", "a/x")), sources=(two(), *SOURCES), chance=FakeChance(0.9, 0.0))
    found = table.router.candidates(asking("r"))
    assert [(one.name, one.deployment, one.level) for one in found] == [
        ("up/m", "two", "primary"),
        ("up/m", "one", "primary"),
        ("a/x", "", "fallback"),
    ]


def test_deployments_share_by_weight() -> None:
    table = Table(sources=(two(one=4.0),), chance=Random(3))
    counted = Counter([table.deployments(asking("up"))[0] for _ in range(2000)])
    assert counted["one"] / 2000 == pytest.approx(0.8, abs=0.03)


def test_balance_of_one_is_that_one() -> None:
    assert balanced([Standing("only")], FakeChance()) == ["only"]
