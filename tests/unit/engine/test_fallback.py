"""What the cascade does with denials, with answers of before and with the last resort."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from cauce.domain.delta import Attempt
from cauce.domain.errors import BudgetExceeded, CauceError, CircuitOpen, DeadlineExceeded, Throttled
from cauce.ports.provider import Call, Deltas, Open, Policy
from cauce.ports.resilience import RetrySettings
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.unit.engine.guarded import ONCE, Guarded, failing, settled

pytestmark = pytest.mark.anyio


def denying(**denials: CauceError) -> Policy:
    """Denies candidates by the names of their providers."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            denial = denials.get(call.candidate.provider.name)
            if denial is not None:
                raise denial
            return await open(call)

        return opened

    return policy


def passing() -> Policy:
    """Somebody above who waits for room."""
    return lambda inner: inner


def full(seconds: float = 3, key: str = "k") -> Throttled:
    return Throttled("full", retry_after=seconds, bottleneck=key)


async def before(_: Call) -> Deltas | None:
    return await ScriptedProvider("cache", answering("of before")).open(_)


@pytest.mark.parametrize("denial", [full(), CircuitOpen("rests"), BudgetExceeded("too dear")])
async def test_denied_candidate_is_passed_over_and_is_no_attempt(denial: CauceError) -> None:
    a = ScriptedProvider("a", answering("from a"))
    system = Guarded(a, ScriptedProvider("b", answering("from b")), limits=(denying(a=denial),))
    assert await system.ask() == "from b"
    assert a.calls == [] and system.told == [(1, "b", "fallback")]
    assert [entry.provider for entry in system.ledger.entries()] == ["b"]
    [attempt] = [one for one in system.noticed if isinstance(one, Attempt)]
    assert attempt.reason is None


async def test_call_that_waits_is_not_answered_by_less_than_a_model() -> None:
    offline = ScriptedProvider("offline", answering("no model"))
    system = Guarded(
        ScriptedProvider("a", answering("a")),
        ScriptedProvider("b", answering("b")),
        offline,
        limits=(denying(a=full(9, "a"), b=full(4, "b")),),
        entry=(passing(),),
        stale=before,
    )
    with pytest.raises(Throttled) as caught:
        await system.ask()
    assert (caught.value.retry_after, caught.value.bottleneck) == (4, "b")
    assert caught.value.waits == {"a": 9, "b": 4}
    assert offline.calls == []


@pytest.mark.parametrize("waits", [True, False])
async def test_without_anybody_to_wait_the_answer_of_before_comes_first_then_the_offline_answerer(waits: bool) -> None:
    offline = ScriptedProvider("offline", answering("no model"))
    for stale, text in ((before, "of before"), (None, "no model")):
        system = Guarded(
            ScriptedProvider("a", answering("a")), offline, limits=(denying(a=full()),),
            entry=(passing(),) if not waits else (), stale=stale,
        )  # fmt: skip
        call = system.call()
        if not waits:
            call = _hurried(call)
        async with aclosing(await system.open(call)) as deltas:
            said = "".join([getattr(delta, "text", "") async for delta in deltas])
        assert said == text


def _hurried(call: Call) -> Call:
    return msgspec.structs.replace(call, waits=False)


async def test_answer_of_before_is_better_than_an_error() -> None:
    assert await Guarded(ScriptedProvider("a", [failing()]), retries=ONCE, stale=before).ask() == "of before"


async def test_mistake_of_the_caller_is_told_and_not_covered_by_an_answer_of_before() -> None:
    with pytest.raises(CauceError) as caught:
        await Guarded(ScriptedProvider("a", [failing("bad_request")]), stale=before).ask()
    assert caught.value.code == "invalid_request"


async def test_offline_answerer_that_was_asked_for_is_asked_first() -> None:
    assert await Guarded(ScriptedProvider("offline", answering("no model")), stale=before).ask() == "no model"


async def test_models_behind_the_offline_answerer_are_asked_before_it() -> None:
    system = Guarded(
        ScriptedProvider("a", [failing()]),
        ScriptedProvider("offline", answering("no model")),
        ScriptedProvider("b", answering("from b")),
        retries=ONCE,
    )
    assert await system.ask() == "from b"


async def test_what_the_offline_answerer_cannot_do_hides_nothing() -> None:
    offline = ScriptedProvider("offline", [failing("bad_request")])
    with pytest.raises(CauceError) as caught:
        await Guarded(ScriptedProvider("a", [failing("overloaded")]), offline, retries=ONCE).ask()
    assert caught.value.code == "overloaded"


async def test_budget_that_no_candidate_fits_is_what_the_client_is_told() -> None:
    dear = BudgetExceeded("too dear")
    system = Guarded(ScriptedProvider("a", answering("a")), limits=(denying(a=dear),))
    with pytest.raises(BudgetExceeded) as caught:
        await system.ask()
    assert caught.value.status == 402


async def test_failure_of_a_model_is_told_before_a_denial_of_another() -> None:
    system = Guarded(
        ScriptedProvider("a", [failing("overloaded")]),
        ScriptedProvider("b", answering("b")),
        retries=ONCE,
        limits=(denying(b=BudgetExceeded("too dear")),),
    )
    with pytest.raises(CauceError) as caught:
        await system.ask()
    assert caught.value.code == "overloaded"


async def test_rests_of_all_models_are_cut_short_by_a_probe_after_an_answer_of_before() -> None:
    resting = CircuitOpen("rests", retry_after=4)
    up = ScriptedProvider("a", answering("from a"))
    with pytest.raises(CircuitOpen):
        await Guarded(up, limits=(denying(a=resting),)).ask()
    assert await Guarded(up, limits=(denying(a=resting),), stale=before).ask() == "of before"


async def test_time_that_is_used_up_is_what_the_client_is_told() -> None:
    silent = ScriptedProvider("a", [asyncio.Event()])
    system = Guarded(silent, ScriptedProvider("b", [asyncio.Event()]), retries=RetrySettings())
    asking = system.asking(timeout=8, streamed=False)
    for seconds in (5, 3):
        await system.clock.until_waiting()
        await settled()
        system.clock.advance(seconds)
    with pytest.raises(CauceError) as caught:
        await within(asking)
    assert caught.value.code == "timeout" and not isinstance(caught.value, DeadlineExceeded)
