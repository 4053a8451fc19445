"""Candidates that are not well are left alone, and found again when they are."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import CauceError, CircuitOpen, ProviderFailure
from cauce.domain.request import Prompt
from cauce.engine.policies.breaker import MOST
from cauce.ports.resilience import BreakerSettings, RetrySettings
from cauce.testing.scripted import ScriptedProvider, Step, answering
from tests.http import within
from tests.unit.engine.guarded import ONCE, Guarded, failing, settled

pytestmark = pytest.mark.anyio


def guarded(*providers: ScriptedProvider, breaking: BreakerSettings | None = None) -> Guarded:
    return Guarded(*providers, retries=ONCE, breaking=breaking)


async def broken(system: Guarded, times: int = 5) -> None:
    """Ask in vain so many times."""
    for _ in range(times):
        with pytest.raises(CauceError):
            await system.ask()


def state(system: Guarded, place: int = 0) -> str:
    return system.breakers.state(system.candidates[place])


async def test_opens_when_half_of_at_least_five_results_are_failures() -> None:
    up = ScriptedProvider("up", answering("a"), answering("b"), answering("c"), [failing()])
    system = guarded(up)
    for _ in range(3):
        await system.ask()
    await broken(system, 2)
    assert state(system) == "closed"
    await broken(system, 1)
    assert state(system) == "open"


async def test_results_of_long_ago_do_not_count() -> None:
    system = guarded(ScriptedProvider("up", [failing()]))
    await broken(system, 4)
    system.clock.advance(34)
    await broken(system, 1)
    assert state(system) == "closed"


@pytest.mark.parametrize(
    "error",
    [
        failing("bad_request"),
        failing("content_filter"),
        failing(upstream_status=404),
        failing(shape=True),
        failing("bad_request", code="context_length_exceeded"),
    ],
)
async def test_what_says_nothing_of_its_health_does_not_count(error: CauceError) -> None:
    system = guarded(ScriptedProvider("up", [error]))
    await broken(system, 10)
    assert state(system) == "closed"


@pytest.mark.parametrize(
    "error",
    [
        failing(),
        failing(upstream_status=500),
        failing(upstream_status=408),
        failing(upstream_status=409),
        failing("overloaded", upstream_status=529),
        failing("rate_limited", upstream_status=429),
        failing(code="timeout"),
    ],
)
async def test_what_says_that_it_is_not_well_counts(error: CauceError) -> None:
    system = guarded(ScriptedProvider("up", [error]))
    await broken(system)
    assert state(system) == "open"


async def test_streams_that_are_cut_count() -> None:
    system = guarded(ScriptedProvider("up", [Text("half"), failing()]))
    await broken(system)
    assert state(system) == "open"


async def test_clients_that_leave_say_nothing() -> None:
    hanging: tuple[Step, ...] = (Text("a"), asyncio.Event())
    system = guarded(ScriptedProvider("up", *[hanging] * 10, [failing()]))
    for _ in range(10):
        async with aclosing(await system.open(system.call())) as deltas:
            await deltas.read()
    await broken(system, 4)
    assert state(system) == "closed"


async def test_open_candidate_is_passed_over_without_being_asked() -> None:
    down, well = ScriptedProvider("down", [failing()]), ScriptedProvider("well", answering("from well"))
    system = guarded(down, well)
    for _ in range(20):
        assert await system.ask() == "from well"
    assert len(down.calls) == 5
    assert system.told[-1][1:] == ("well", "fallback")
    assert [entry.provider for entry in system.ledger.entries()].count("down") == 5


async def test_recovers_by_one_probe_at_a_time() -> None:
    gate = asyncio.Event()
    down = ScriptedProvider("down", *[[failing()]] * 5, [gate, *answering("well again")], answering("well"))
    system = guarded(down, ScriptedProvider("other", answering("from other")))
    for _ in range(5):
        await system.ask()
    system.clock.advance(5)
    probe = system.asking()
    await settled()
    assert state(system) == "half_open"
    assert await system.ask() == "from other"
    gate.set()
    assert await within(probe) == "well again" and state(system) == "closed"
    assert await system.ask() == "well"


async def test_cool_down_doubles_up_to_a_minute_and_begins_anew_when_well() -> None:
    script = [[failing()]] * 11 + [answering("well")] + [[failing()]]
    system = guarded(ScriptedProvider("down", *script), ScriptedProvider("other", answering("ok")))
    for _ in range(5):
        await system.ask()
    for cooldown in (5, 10, 20, 40, 60, 60):
        assert round(next(one.seconds for one in system.breakers.standing() if one.provider == "down")) == cooldown
        system.clock.advance(cooldown)
        await system.ask()
    system.clock.advance(60)
    assert await system.ask() == "well"
    for _ in range(5):
        await system.ask()
    assert next(one.seconds for one in system.breakers.standing() if one.provider == "down") == 5


async def test_probe_that_hangs_counts_as_failed() -> None:
    system = guarded(
        ScriptedProvider("down", *[[failing()]] * 5, [asyncio.Event()]), ScriptedProvider("other", answering("ok"))
    )
    for _ in range(5):
        await system.ask()
    system.clock.advance(5)
    probe = system.asking()
    await settled()
    system.clock.advance(10)
    assert await system.ask() == "ok"
    assert state(system) == "open"
    probe.cancel()


async def test_probe_that_its_client_leaves_lets_the_next_call_be_the_probe() -> None:
    system = guarded(
        ScriptedProvider("down", *[[failing()]] * 5, [asyncio.Event()], answering("well")),
        ScriptedProvider("other", answering("ok")),
    )
    for _ in range(5):
        await system.ask()
    system.clock.advance(5)
    probe = system.asking()
    await settled()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert await system.ask() == "well"


async def test_announced_reset_is_how_long_it_stays_open() -> None:
    system = guarded(
        ScriptedProvider("down", [failing("rate_limited", retry_after=40)]), ScriptedProvider("b", answering("b"))
    )
    for _ in range(5):
        await system.ask()
    [down] = [one for one in system.breakers.standing() if one.state == "open"]
    assert (down.provider, down.seconds) == ("down", 40)


@pytest.mark.parametrize(
    "error", [failing("auth", upstream_status=401), failing("quota", retry_after=3600), failing("auth")]
)
async def test_refused_key_and_used_up_quota_open_it_at_once(error: ProviderFailure) -> None:
    down = ScriptedProvider("down", [error])
    system = guarded(down, ScriptedProvider("b", answering("b")))
    assert [await system.ask(), await system.ask()] == ["b", "b"]
    assert len(down.calls) == 1
    [standing] = [one for one in system.breakers.standing() if one.state == "open"]
    assert standing.seconds == (error.retry_after or 60)


async def test_refused_key_opens_every_model_of_it_and_a_probe_that_passes_closes_them_all() -> None:
    up = ScriptedProvider("up", [failing("auth", upstream_status=401)], answering("key is back"), answering("n"))
    system = guarded(up, ScriptedProvider("b", answering("b")))
    first, other = system.candidates
    second, third = msgspec.structs.replace(first, model="n"), msgspec.structs.replace(first, deployment="spare")
    system.breakers.of(second)
    await system.ask()
    fourth = msgspec.structs.replace(first, model="never asked")
    assert [system.breakers.of(one).circuit.state for one in (first, second, fourth)] == ["open"] * 3
    assert system.breakers.of(third).circuit.state == "closed"
    system.clock.advance(60)
    assert await system.ask() == "key is back"
    assert [system.breakers.of(one).circuit.state for one in (first, second, fourth, other)] == ["closed"] * 4


async def test_used_up_quota_of_one_model_leaves_the_others_of_its_provider() -> None:
    up = ScriptedProvider("up", [failing("quota", upstream_status=429)], answering("smaller one"))
    system = guarded(up)
    large = system.candidates[0]
    system.candidates = (large, msgspec.structs.replace(large, model="small"))
    assert await system.ask() == "smaller one"


async def test_completions_have_a_circuit_of_their_own() -> None:
    system = guarded(ScriptedProvider("up", *[[failing()]] * 5, answering("ok")))
    await broken(system)
    call = system.call()
    prompted = msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, prompt=Prompt("Once")))
    async with aclosing(await system.open(prompted)) as deltas:
        assert await deltas.read()
    assert state(system) == "open"


async def test_sole_route_is_never_removed_and_recovers_with_the_first_call_after_the_outage() -> None:
    up = ScriptedProvider("up", *[[failing()]] * 7, answering("well"))
    system = guarded(up)
    await broken(system, 7)
    assert len(up.calls) == 7 and state(system) == "open"
    assert await system.ask() == "well"
    assert system.told[-1] == (1, "up", "probe") and state(system) == "closed"


async def test_outage_of_a_sole_route_costs_each_request_one_try_and_no_waiting() -> None:
    up = ScriptedProvider("up", [failing()])
    system = Guarded(up, retries=RetrySettings(base=0))
    await broken(system, 3)
    asked = len(up.calls)
    await broken(system, 10)
    assert len(up.calls) == asked + 10 and system.clock.waiting == 0


async def test_others_wait_for_the_outcome_of_the_probe_of_a_sole_route() -> None:
    gate = asyncio.Event()
    up = ScriptedProvider("up", *[[failing()]] * 5, [gate, *answering("well again")], answering("and well"))
    system = guarded(up)
    await broken(system)
    asking = [system.asking() for _ in range(20)]
    await settled()
    assert len(up.calls) == 6
    gate.set()
    answers = await within(asyncio.gather(*asking))
    assert answers == ["well again"] + ["and well"] * 19


async def test_those_who_wait_for_a_probe_that_fails_are_told_so() -> None:
    gate = asyncio.Event()
    up = ScriptedProvider("up", *[[failing()]] * 5, [gate, failing()])
    system = guarded(up)
    await broken(system)
    asking = [system.asking() for _ in range(20)]
    await settled()
    gate.set()
    errors = await within(asyncio.gather(*asking, return_exceptions=True))
    assert len(up.calls) == 6
    assert isinstance(errors[0], ProviderFailure)
    assert all(isinstance(error, CircuitOpen) and error.retry_after for error in errors[1:])


async def test_those_who_wait_for_a_probe_wait_no_longer_than_it_may_hang() -> None:
    system = guarded(ScriptedProvider("up", *[[failing()]] * 5, [asyncio.Event()]))
    await broken(system)
    probe, other = system.asking(), system.asking()
    await settled()
    system.clock.advance(10)
    with pytest.raises(CircuitOpen):
        await within(other)
    probe.cancel()


async def test_of_several_that_rest_the_one_that_may_soonest_be_well_is_probed() -> None:
    refused = ScriptedProvider("refused", [failing("auth", upstream_status=401)])
    down = ScriptedProvider("down", *[[failing()]] * 5, answering("well"))
    system = guarded(refused, down)
    await broken(system)
    assert await system.ask() == "well"
    assert len(refused.calls) == 1


async def test_circuits_of_names_that_nobody_has_are_not_kept() -> None:
    system = guarded(ScriptedProvider("up", answering("ok")))
    for number in range(5000):
        system.breakers.of(msgspec.structs.replace(system.candidates[0], model=f"m{number}"))
    assert len(system.breakers.standing()) <= 2000


async def test_an_answer_that_only_ends_with_the_length_is_a_good_one() -> None:
    system = guarded(ScriptedProvider("up", [Text("a"), Finish("length")]))
    for _ in range(10):
        await system.ask()
    assert state(system) == "closed"


async def hurried(system: Guarded) -> None:
    """Ask in vain, six times, with half a second for each."""
    for _ in range(6):
        asking = system.asking(timeout=0.5)
        await system.clock.until_waiting()
        system.clock.advance(0.5)
        with pytest.raises(CauceError):
            await within(asking)


async def test_client_that_gives_a_candidate_no_time_says_nothing_of_one_that_answers_others() -> None:
    system = guarded(ScriptedProvider("up", answering("ok"), [asyncio.Event()]))
    await system.ask()
    await hurried(system)
    assert state(system) == "closed"


async def test_candidate_that_hangs_is_left_alone_however_little_time_its_clients_have() -> None:
    system = guarded(ScriptedProvider("up", [asyncio.Event()]))
    await hurried(system)
    assert state(system) == "open"


async def test_probe_that_is_given_no_time_says_nothing() -> None:
    system = guarded(ScriptedProvider("up", *[[failing()]] * 5, [asyncio.Event()], answering("ok")))
    await broken(system)
    system.clock.advance(5)
    asking = system.asking(timeout=0.5)
    await system.clock.until_waiting()
    system.clock.advance(0.5)
    with pytest.raises(CauceError):
        await within(asking)
    assert await system.ask() == "ok" and state(system) == "closed"


async def test_stream_that_is_cut_by_the_client_s_own_time_says_nothing() -> None:
    late = asyncio.Event()
    system = guarded(ScriptedProvider("up", (Text("one "), late, failing(code="timeout"))))
    asking = [system.asking(timeout=20) for _ in range(6)]
    await settled()
    system.clock.advance(20)
    late.set()
    outcomes = await within(asyncio.gather(*asking, return_exceptions=True))
    assert all([isinstance(outcome, ProviderFailure) for outcome in outcomes])
    assert state(system) == "closed"


async def test_models_of_a_refused_key_are_forgotten_when_they_are_too_many() -> None:
    system = guarded(ScriptedProvider("up", [failing("auth", upstream_status=401)]))
    names = [msgspec.structs.replace(system.candidates[0], model=f"m{number}") for number in range(MOST + 100)]
    for candidate in names:
        with pytest.raises(CauceError):
            await system.open(msgspec.structs.replace(system.call(), candidates=(candidate,)))
    assert len(system.breakers.standing()) <= MOST
    assert {system.breakers.of(candidate).circuit.state for candidate in names} == {"open"}
