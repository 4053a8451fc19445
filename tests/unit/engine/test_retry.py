"""Asking the same candidate again before anybody has seen anything."""

import asyncio

import pytest

from cauce.domain.delta import Attempt, Text
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure, Throttled
from cauce.engine.policies.retry import Allowances, retry
from cauce.ports.provider import Call, Deltas, Open
from cauce.ports.resilience import RetrySettings
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.unit.engine.guarded import Guarded, failing, settled

pytestmark = pytest.mark.anyio


async def test_failure_in_passing_is_asked_again_after_a_random_time() -> None:
    up = ScriptedProvider("up", [failing()], [failing()], answering("third"))
    guarded = Guarded(up)
    asking = guarded.asking()
    for wait in (0.125, 0.25):
        await guarded.clock.until_waiting()
        await settled()
        guarded.clock.advance(wait - 0.001)
        asked = len(up.calls)
        await settled()
        assert len(up.calls) == asked
        guarded.clock.advance(0.001)
    assert await within(asking) == "third"


async def test_every_retry_is_an_attempt_that_says_why() -> None:
    guarded = Guarded(ScriptedProvider("up", [failing("overloaded")], answering("second")))
    asking = guarded.asking()
    await guarded.clock.until_waiting()
    guarded.clock.advance(1)
    await within(asking)
    assert guarded.told == [(1, "up", "open"), (2, "up", "retry")]
    again = guarded.noticed[-1]
    assert isinstance(again, Attempt) and (again.reason, again.reason_code) == ("it is down", "overloaded")
    assert [(entry.n, entry.outcome) for entry in guarded.ledger.entries()] == [(1, "failed"), (2, "completed")]


async def test_numbers_go_on_over_retries_and_candidates() -> None:
    guarded = Guarded(ScriptedProvider("a", [failing()]), ScriptedProvider("b", [failing()], answering("b")))
    asking = guarded.asking()
    for _ in range(3):
        await guarded.clock.until_waiting()
        await settled()
        guarded.clock.advance(1)
    await within(asking)
    assert guarded.told == [
        (1, "a", "open"), (2, "a", "retry"), (3, "a", "retry"), (4, "b", "fallback"), (5, "b", "retry"),
    ]  # fmt: skip


@pytest.mark.parametrize("failure", ["bad_request", "auth", "quota", "content_filter"])
async def test_what_will_not_change_is_not_asked_again(failure: str) -> None:
    up = ScriptedProvider("up", [failing(failure)], answering("never"))
    with pytest.raises(ProviderFailure):
        await Guarded(up).ask()
    assert len(up.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        failing(should_retry=False),
        failing(upstream_status=404),
        failing(upstream_status=302),
        failing("quota", should_retry=True),
        DeadlineExceeded("too late"),
        Throttled("full", retry_after=1, bottleneck="k"),
    ],
)
async def test_the_upstreams_no_and_our_own_denials_are_final(error: CauceError) -> None:
    up = ScriptedProvider("up", [error], answering("never"))
    with pytest.raises(CauceError):
        await Guarded(up).ask()
    assert len(up.calls) == 1


async def test_the_upstreams_yes_wins_over_the_status() -> None:
    up = ScriptedProvider("up", [failing(upstream_status=404, should_retry=True)], answering("second"))
    guarded = Guarded(up)
    asking = guarded.asking()
    await guarded.clock.until_waiting()
    guarded.clock.advance(1)
    assert await within(asking) == "second"


async def test_the_upstreams_own_delay_is_waited_for() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=12)], answering("second"))
    guarded = Guarded(up)
    asking = guarded.asking()
    await guarded.clock.until_waiting()
    guarded.clock.advance(12)
    await settled()
    assert len(up.calls) == 1
    guarded.clock.advance(0.25)
    assert await within(asking) == "second"


@pytest.mark.parametrize(("delay", "timeout"), [(30, 28), (61, None)])
async def test_a_delay_beyond_the_time_there_is_is_not_waited_for(delay: float, timeout: float | None) -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=delay)])
    with pytest.raises(ProviderFailure) as caught:
        await Guarded(up).ask(timeout=timeout)
    assert caught.value.retry_after == delay and len(up.calls) == 1


async def test_with_another_model_to_ask_nobody_waits_long() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=12)])
    assert await Guarded(up, ScriptedProvider("b", answering("from b"))).ask() == "from b"
    assert len(up.calls) == 1


async def test_the_offline_answerer_is_no_reason_to_leave_a_model_that_is_busy() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=12)], answering("second"))
    guarded = Guarded(up, ScriptedProvider("offline", answering("no model")))
    asking = guarded.asking()
    await guarded.clock.until_waiting()
    guarded.clock.advance(13)
    assert await within(asking) == "second"


async def test_retries_share_the_time_of_their_candidate() -> None:
    silent = ScriptedProvider("up", [failing()], [asyncio.Event()])
    guarded = Guarded(silent, ScriptedProvider("b", answering("from b")))
    asking = guarded.asking(timeout=20, streamed=False)
    await guarded.clock.until_waiting()
    guarded.clock.advance(0.125)
    await settled()
    assert [call.patience for call in silent.calls] == [10, 9.875]
    guarded.clock.advance(9.875)
    assert await within(asking) == "from b"


async def test_hanging_once_is_enough_where_another_model_may_be_asked() -> None:
    up = ScriptedProvider("up", [failing(code="timeout")])
    assert await Guarded(up, ScriptedProvider("b", answering("from b"))).ask() == "from b"
    assert len(up.calls) == 1


async def test_a_socket_that_hangs_is_left_for_another_once_where_nobody_else_is_there() -> None:
    up = ScriptedProvider("up", [asyncio.Event()], answering("second"))
    guarded = Guarded(up)
    asking = guarded.asking(timeout=200)
    for seconds in (60, 1):
        await guarded.clock.until_waiting()
        await settled()
        guarded.clock.advance(seconds)
    assert await within(asking) == "second"
    # Less the second that passed between them.
    assert [call.patience for call in up.calls] == [60, 59]


async def test_hanging_twice_is_enough() -> None:
    up = ScriptedProvider("up", [asyncio.Event()])
    guarded = Guarded(up)
    asking = guarded.asking(timeout=600)
    for seconds in (60, 1, 60):
        await guarded.clock.until_waiting()
        await settled()
        guarded.clock.advance(seconds)
    with pytest.raises(ProviderFailure, match="no answer within"):
        await within(asking)
    assert len(up.calls) == 2


async def test_an_answer_that_breaks_after_its_first_delta_is_not_asked_for_again() -> None:
    up = ScriptedProvider("up", [Text("half"), failing()])
    with pytest.raises(ProviderFailure):
        await Guarded(up).ask()
    assert len(up.calls) == 1


async def test_retries_add_a_fifth_to_the_load_at_most() -> None:
    up = ScriptedProvider("up", [failing()])
    guarded = Guarded(up, retries=RetrySettings(attempts=3, base=0))
    open = _only_retry(guarded)
    for _ in range(100):
        with pytest.raises(ProviderFailure):
            await open(guarded.call())
    # Three that a fresh candidate has, and one for each five calls.
    assert 100 + 3 + 18 <= len(up.calls) <= 100 + 3 + 20


async def test_a_quiet_time_saves_up_no_storm() -> None:
    up = ScriptedProvider("up", *[answering("ok")] * 500, [failing()])
    guarded = Guarded(up, retries=RetrySettings(attempts=3, base=0))
    open = _only_retry(guarded)
    for _ in range(500):
        await (await open(guarded.call())).aclose()
    for _ in range(10):
        with pytest.raises(ProviderFailure):
            await open(guarded.call())
    assert len(up.calls) - 510 <= 12


def _only_retry(guarded: Guarded) -> Open:
    async def ask(call: Call) -> Deltas:
        return await call.candidate.provider.open(call)

    settings = RetrySettings(attempts=3, base=0)
    return retry(settings, guarded.clock, guarded.chance, Allowances())(ask)
