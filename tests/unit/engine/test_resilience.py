"""Candidates whose providers and routes say for themselves how their failures are met."""

import contextlib

import msgspec
import pytest

from cauce.domain.delta import Text
from cauce.domain.errors import CauceError, CircuitOpen, Overloaded, ProviderFailure
from cauce.ports.provider import Call
from cauce.ports.resilience import BreakerSettings, RecoverySettings, Resilience, RetrySettings
from cauce.testing.scripted import ScriptedProvider, Step, answering
from tests.unit.engine.guarded import ONCE, Guarded, failing
from tests.unit.engine.recovery.test_recovery import LONG, Recovered
from tests.unit.engine.recovery.test_takeover import FIRST, taken_over

pytestmark = pytest.mark.anyio

AT_ONCE = {"base": 0.0, "cap": 0.0}


def meeting(system: Guarded, *own: Resilience) -> None:
    """Give the candidates of `system` what is their own."""
    system.candidates = tuple(
        [msgspec.structs.replace(one, resilience=each) for one, each in zip(system.candidates, own, strict=True)]
    )


def meant(call: Call, *own: RecoverySettings | None) -> Call:
    """`call` whose candidates have these settings of recovery."""
    candidates = [
        msgspec.structs.replace(one, resilience=Resilience(recovery=each))
        for one, each in zip(call.candidates, own, strict=True)
    ]
    return msgspec.structs.replace(call, candidates=tuple(candidates))


def cut(text: str) -> tuple[Step, ...]:
    return Text(text), failing()


async def test_each_candidate_is_asked_as_often_as_its_own_settings_say() -> None:
    a, b, c = [ScriptedProvider(name, [failing()]) for name in "abc"]
    system = Guarded(a, b, c, retries=RetrySettings(2, **AT_ONCE))
    meeting(system, Resilience(RetrySettings(4, **AT_ONCE)), Resilience(RetrySettings(1)), Resilience())
    with pytest.raises(ProviderFailure):
        await system.ask()
    assert (len(a.calls), len(b.calls), len(c.calls)) == (4, 1, 2)


async def test_each_candidate_has_a_breaker_of_its_own_settings() -> None:
    a, b, c = [ScriptedProvider(name, [failing()]) for name in "abc"]
    system = Guarded(a, b, c, retries=ONCE)
    off = BreakerSettings(enabled=False)
    meeting(system, Resilience(breaker=BreakerSettings(results=1)), Resilience(), Resilience(breaker=off))
    for _ in range(7):
        with pytest.raises(CauceError):
            await system.ask()
    assert (len(a.calls), len(b.calls), len(c.calls)) == (1, 5, 7)
    assert [(one.provider, one.state) for one in system.breakers.standing()] == [("a", "open"), ("b", "open")]


async def test_route_with_a_breaker_of_its_own_counts_its_calls_alone() -> None:
    up = ScriptedProvider("up", [failing()])
    system = Guarded(up, retries=ONCE)
    shared = system.candidates
    meeting(system, Resilience(breaker=BreakerSettings(results=2), route="r"))
    routed = system.candidates
    for system.candidates in (shared, routed, shared, shared):
        with pytest.raises(ProviderFailure):
            await system.ask()
    states = [(one.route, one.state) for one in system.breakers.standing()]
    assert states == [("", "closed"), ("r", "closed")], "neither has failed often enough by itself"
    system.candidates = routed
    with pytest.raises(ProviderFailure):
        await system.ask()
    assert system.breakers.state(routed[0]) == "open" and system.breakers.state(shared[0]) == "closed"


async def test_key_that_is_refused_opens_the_circuits_of_every_route_and_closes_them_again() -> None:
    up = ScriptedProvider("up", [failing()], [failing("auth", upstream_status=401)], answering("well again"))
    system = Guarded(up, retries=ONCE)
    shared = system.candidates
    meeting(system, Resilience(breaker=BreakerSettings(results=100, longest=10), route="r"))
    routed = system.candidates
    for system.candidates in (routed, shared):
        with pytest.raises(ProviderFailure):
            await system.ask()
    assert {one.state for one in system.breakers.standing()} == {"open"}
    system.clock.advance(10)
    system.candidates = routed
    assert await system.ask() == "well again"
    assert {one.state for one in system.breakers.standing()} == {"closed"}


async def test_open_circuit_of_a_route_keeps_nobody_else_away() -> None:
    up = ScriptedProvider("up", [failing()], [failing()], answering("a"))
    system = Guarded(up, ScriptedProvider("spare", answering("spare")), retries=ONCE)
    shared = system.candidates
    meeting(system, Resilience(breaker=BreakerSettings(results=1), route="r"), Resilience())
    assert [await system.ask() for _ in range(2)] == ["spare", "spare"] and len(up.calls) == 1
    system.candidates = shared
    assert [await system.ask() for _ in range(2)] == ["spare", "a"] and len(up.calls) == 3


@pytest.mark.parametrize(
    ("own", "calls"), [(RecoverySettings(attempts=2), 3), (RecoverySettings(attempts=0), 1), (None, 21)]
)
async def test_broken_answer_is_gone_on_with_as_often_as_its_candidate_says(
    own: RecoverySettings | None, calls: int
) -> None:
    provider = ScriptedProvider("p", cut(LONG), cut("and then "))
    guarded = Recovered(provider)
    with pytest.raises(ProviderFailure):
        await guarded.deltas(meant(guarded.call(), own))
    assert len(provider.calls) == calls


async def test_whoever_broke_says_how_far_its_answer_is_gone_on_with() -> None:
    never = RecoverySettings(attempts=0)

    async def asked(first: RecoverySettings | None, second: RecoverySettings | None) -> tuple[int, int]:
        a, b = ScriptedProvider("a", cut(LONG), answering("the end of it.")), ScriptedProvider("b", cut("and then "))
        guarded = Recovered(a, b)
        with contextlib.suppress(ProviderFailure):
            await guarded.deltas(meant(guarded.call(), first, second))
        return len(a.calls), len(b.calls)

    assert await asked(never, None) == (1, 0)
    assert await asked(None, never) == (1, 1), "b broke, and is not gone on with"
    assert await asked(None, None) == (2, 1)


async def test_who_answers_says_it_and_not_who_was_asked_before() -> None:
    a, b = ScriptedProvider("a", [failing()]), ScriptedProvider("b", cut(LONG), answering("the end of it."))
    guarded = Recovered(a, b)
    deltas = await guarded.deltas(meant(guarded.call(), RecoverySettings(attempts=0), None))
    assert len(b.calls) == 2 and "".join([one.text for one in deltas if isinstance(one, Text)]).endswith(
        "the end of it."
    )


@pytest.mark.parametrize("last", ["p", "q"])
async def test_answer_of_another_process_is_bounded_by_who_wrote_it_last(last: str) -> None:
    p, q = ScriptedProvider("p", answering("the end of it.")), ScriptedProvider("q", answering("never"))
    guarded = Recovered(p, q)
    begun = (msgspec.structs.replace(FIRST, provider=last), Text(LONG))
    call = meant(taken_over(guarded, *begun), RecoverySettings(attempts=0), None)
    if last == "p":
        with pytest.raises(Overloaded):
            await guarded.deltas(call)
    else:
        await guarded.deltas(call)
    assert (len(p.calls), len(q.calls)) == ((0, 0) if last == "p" else (1, 0))


async def test_denial_names_how_long_its_own_circuit_is_open() -> None:
    up = ScriptedProvider("up", [failing()])
    system = Guarded(up, retries=ONCE)
    meeting(system, Resilience(breaker=BreakerSettings(results=1, cooldown=42)))
    with pytest.raises(ProviderFailure):
        await system.ask()
    with pytest.raises(CircuitOpen) as denied:
        await system.breakers.of(system.candidates[0]).admit(system.call())
    assert denied.value.retry_after == 42
