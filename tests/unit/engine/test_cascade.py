"""The cascade before the first delta, on scripted providers."""

import asyncio
from contextlib import aclosing

import pytest

from cauce.domain.delta import Attempt, Finish, Status, Text
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.meter import meter
from cauce.engine.policies.patience import patience
from cauce.engine.policies.trace import trace
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Timeouts
from cauce.stores.inproc.ledger import InprocLedger
from cauce.system.clock import SystemClock
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within

pytestmark = pytest.mark.anyio


def down(failure: str = "transient") -> ProviderFailure:
    return ProviderFailure("it is down", failure=failure, provider="p")  # pyright: ignore[reportArgumentType]


class Cascade:
    """The composed `open`, as bootstrap makes it, with everything it told."""

    def __init__(
        self, *providers: ScriptedProvider, timeouts: Timeouts | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or SystemClock()
        self.ledger = InprocLedger()
        self.noticed: list[Status | Attempt] = []
        self.candidates = tuple([Candidate(provider, "m", timeouts=timeouts or Timeouts()) for provider in providers])

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        one: Open = compose(
            ask, attempt(), meter(self.clock, self.ledger, PrometheusMetrics(), Estimator()), patience(self.clock)
        )
        self.open = compose(one, trace(), deadline(self.clock), fallback(self.clock))

    def call(self, *, timeout: float | None = None, streamed: bool = True) -> Call:
        request = Request("x", (Message("user", (TextPart("hi"),)),), timeout=timeout)
        return Call(request, Scope(), self.candidates, "req_1", notice=self.noticed.append, streamed=streamed)


async def test_next_candidate_answers_when_the_first_fails_before_its_first_delta() -> None:
    first, second = ScriptedProvider("a", [down()]), ScriptedProvider("b", answering("from b"))
    cascade = Cascade(first, second)
    completion = await collect(await cascade.open(cascade.call()))
    assert completion.choices[0].text == "from b"
    assert [(one.provider, one.reason) for one in cascade.noticed if isinstance(one, Attempt)] == [
        ("a", None),
        ("b", "it is down"),
    ]


async def test_every_attempt_has_its_ledger_entry() -> None:
    cascade = Cascade(ScriptedProvider("a", [down()]), ScriptedProvider("b", answering("from b")))
    await collect(await cascade.open(cascade.call()))
    failed, completed = cascade.ledger.entries()
    assert (failed.provider, failed.outcome, failed.error_code) == ("a", "failed", "provider_error")
    assert (completed.provider, completed.outcome, completed.usage.total_tokens) == ("b", "completed", 8)


async def test_answer_that_breaks_after_its_first_delta_is_not_asked_for_elsewhere() -> None:
    first, second = ScriptedProvider("a", [Text("half"), down()]), ScriptedProvider("b", answering("from b"))
    cascade = Cascade(first, second)
    deltas = await cascade.open(cascade.call())
    with pytest.raises(ProviderFailure):
        await collect(deltas)
    assert second.calls == []
    assert [entry.outcome for entry in cascade.ledger.entries()] == ["failed"]


@pytest.mark.parametrize("failure", ["auth", "quota", "overloaded", "rate_limited", "transient"])
async def test_failures_of_one_provider_go_to_the_next(failure: str) -> None:
    cascade = Cascade(ScriptedProvider("a", [down(failure)]), ScriptedProvider("b", answering("ok")))
    assert (await collect(await cascade.open(cascade.call()))).choices[0].text == "ok"


@pytest.mark.parametrize("failure", ["bad_request", "content_filter"])
async def test_mistakes_of_the_caller_are_not_repeated_elsewhere(failure: str) -> None:
    second = ScriptedProvider("b", answering("ok"))
    cascade = Cascade(ScriptedProvider("a", [down(failure)]), second)
    with pytest.raises(ProviderFailure):
        await cascade.open(cascade.call())
    assert second.calls == []


async def test_too_long_a_context_may_fit_the_next_model() -> None:
    long = ProviderFailure("too long", failure="bad_request", provider="a", code="context_length_exceeded")
    cascade = Cascade(ScriptedProvider("a", [long]), ScriptedProvider("b", answering("ok")))
    assert (await collect(await cascade.open(cascade.call()))).choices[0].text == "ok"


async def test_last_error_is_raised_when_nobody_is_left() -> None:
    cascade = Cascade(ScriptedProvider("a", [down("transient")]), ScriptedProvider("b", [down("overloaded")]))
    with pytest.raises(CauceError) as caught:
        await cascade.open(cascade.call())
    assert caught.value.code == "overloaded"


async def test_silent_candidate_is_left_after_its_patience_and_its_upstream_is_closed() -> None:
    silent = ScriptedProvider("a", [asyncio.Event()])
    cascade = Cascade(silent, ScriptedProvider("b", answering("ok")), timeouts=Timeouts(first_delta=0.02))
    assert (await collect(await cascade.open(cascade.call()))).choices[0].text == "ok"
    assert silent.closed.is_set()
    assert [(entry.outcome, entry.error_code) for entry in cascade.ledger.entries()] == [
        ("failed", "timeout"),
        ("completed", None),
    ]


async def test_time_is_shared_out_so_that_the_last_candidate_is_reached_before_the_client_gives_up() -> None:
    clock = FakeClock()
    silent = [ScriptedProvider(name, [asyncio.Event()]) for name in "abc"]
    cascade = Cascade(*silent, ScriptedProvider("d", answering("ok")), clock=clock)
    asking = asyncio.create_task(cascade.open(cascade.call(timeout=28, streamed=False)))
    for provider, share in zip(silent, (7, 7, 7), strict=True):
        await clock.until_waiting()
        assert not provider.closed.is_set()
        clock.advance(share)
        await within(provider.closed.wait())
    assert (await collect(await within(asking))).choices[0].text == "ok"


async def test_no_share_is_below_five_seconds_while_there_is_time() -> None:
    clock = FakeClock()
    silent = [ScriptedProvider(name, [asyncio.Event()]) for name in "abcde"]
    cascade = Cascade(*silent, clock=clock)
    asking = asyncio.create_task(cascade.open(cascade.call(timeout=12, streamed=False)))
    for provider, share in zip(silent, (5, 5, 2), strict=False):
        await clock.until_waiting()
        clock.advance(share)
        await within(provider.closed.wait())
    with pytest.raises(CauceError) as caught:
        await within(asking)
    assert caught.value.code == "timeout"
    assert [bool(provider.calls) for provider in silent] == [True, True, True, False, False]


async def test_used_up_time_is_told_as_a_timeout() -> None:
    cascade = Cascade(ScriptedProvider("a", [asyncio.Event()]))
    with pytest.raises(CauceError) as caught:
        await cascade.open(cascade.call(timeout=0.02, streamed=False))
    assert caught.value.code == "timeout"


async def test_no_candidate_is_asked_after_the_deadline() -> None:
    second = ScriptedProvider("b", answering("ok"))
    cascade = Cascade(ScriptedProvider("a", [asyncio.Event()]), second)
    with pytest.raises((DeadlineExceeded, ProviderFailure)):
        await cascade.open(cascade.call(timeout=0.02, streamed=False))
    assert second.calls == []


async def test_closing_an_answer_closes_its_upstream_and_is_recorded() -> None:
    provider = ScriptedProvider("a", [Text("one"), asyncio.Event()])
    cascade = Cascade(provider)
    deltas = await cascade.open(cascade.call())
    async with aclosing(deltas):
        assert (await deltas.read())[0] == Text("one")
    assert provider.closed.is_set()
    assert [entry.outcome for entry in cascade.ledger.entries()] == ["cancelled"]


async def test_listeners_hear_the_end_before_the_terminal_delta_is_handed_out() -> None:
    provider = ScriptedProvider("a", answering("hi"))
    cascade = Cascade(provider)
    deltas = await cascade.open(cascade.call())
    async for delta in deltas:
        assert bool(cascade.ledger.entries()) == isinstance(delta, Finish)


async def test_source_that_stops_without_finish_has_failed() -> None:
    cascade = Cascade(ScriptedProvider("a", [Text("half")]))
    with pytest.raises(ProviderFailure, match="cut off"):
        await collect(await cascade.open(cascade.call()))


async def test_source_that_gives_nothing_is_no_answer() -> None:
    cascade = Cascade(ScriptedProvider("a", []), ScriptedProvider("b", answering("ok")))
    assert (await collect(await cascade.open(cascade.call()))).choices[0].text == "ok"
