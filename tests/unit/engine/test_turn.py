"""The call that a request makes: what its candidates are given to answer it."""

import pytest

from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.policies.deadline import deadline
from cauce.engine.routing.route import Route
from cauce.engine.routing.router import Router
from cauce.engine.routing.source import Source
from cauce.engine.turn import Defaults, Turn
from cauce.ports.provider import Call, Deltas, Timeouts
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("timeouts", "asked", "plain", "logged"),
    [
        (Timeouts(), None, 600.0, 86_400.0),
        (Timeouts(total=50.0, logged=50.0), None, 50.0, 50.0),
        (Timeouts(), 1200.0, 1200.0, 1200.0),
    ],
    ids=["nobody says", "configured", "its client says"],
)
async def test_answer_in_the_log_is_cut_by_what_somebody_set_and_by_no_default(
    timeouts: Timeouts, asked: float | None, plain: float, logged: float
) -> None:
    clock, calls = FakeClock(), list[Call]()

    async def open(call: Call) -> Deltas:
        calls.append(call)
        return Deltas(None, ())

    router = Router([Route("r", ("up/m",))], {}, "r")
    router.add(Source(ScriptedProvider("up"), timeouts=timeouts))
    turn = Turn(router, deadline(clock)(open), Defaults())
    request = Request("r", (Message("user", (TextPart("hi"),)),), timeout=asked)
    for is_logged in (False, True):
        await turn.open(turn.call(request, Scope(), request_id="q", streamed=True, logged=is_logged))
    one, other = calls
    assert (one.deadline, other.deadline) == (clock.monotonic() + plain, clock.monotonic() + logged)
    # The transport ends an answer by its candidate's own time.
    assert one.candidate.timeouts.total == timeouts.total
    assert other.candidate.timeouts.total == timeouts.logged
