"""Going on with an answer that a process before this one began."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Restart, Status, Text, ToolCall
from cauce.domain.errors import InvalidRequest, Overloaded
from cauce.domain.stream import Upstream
from cauce.domain.usage import Usage
from cauce.engine.recovery.recovery import recovery
from cauce.ports.provider import Call, Deltas, Midstream
from cauce.ports.resilience import RecoverySettings
from cauce.testing.scripted import ScriptedProvider, answering
from tests.unit.engine.guarded import failing
from tests.unit.engine.recovery.test_recovery import LONG, Recovered

pytestmark = pytest.mark.anyio

ACCEPTED = Status("accepted", facts={"model": "x"})
FIRST = Attempt(1, "p", "m", "primary")


def taken_over(guarded: Recovered, *begun: Delta, midstream: Midstream = "continue", **changes: object) -> Call:
    call = guarded.call()
    candidates = tuple([msgspec.structs.replace(one, midstream=midstream) for one in call.candidates])
    return msgspec.structs.replace(call, begun=(ACCEPTED, *begun), candidates=candidates, **changes)


def shown(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas if isinstance(delta, Text)])


async def test_answer_that_another_process_began_is_gone_on_with_and_not_begun() -> None:
    provider = ScriptedProvider("p", answering("and then it wakes up again in the morning."))
    guarded = Recovered(provider)
    deltas = await guarded.deltas(taken_over(guarded, FIRST, Text(LONG)))
    assert shown(deltas) == "and then it wakes up again in the morning."
    assert isinstance(deltas[0], Status) and deltas[0].kind == "seam" and deltas[0].facts["quality"] == "stitched"
    [asked] = provider.calls
    assert asked.request.messages[-2].text.startswith(LONG.rstrip()) and asked.begun == ()
    assert guarded.told == [(2, "p", "continue")]


async def test_answer_of_which_only_reasoning_was_shown_is_opened_anew() -> None:
    provider = ScriptedProvider("p", answering("one two three"))
    guarded = Recovered(provider)
    deltas = await guarded.deltas(taken_over(guarded, FIRST, Reasoning("hm"), midstream="fail"))
    assert shown(deltas) == "one two three" and guarded.told == [(2, "p", "again")]


async def test_stream_that_had_only_waited_is_opened_like_any_other() -> None:
    guarded = Recovered(ScriptedProvider("p", answering("one two three")))
    guarded.open = recovery(guarded.clock, RecoverySettings(attempts=0), guarded.chance)(guarded.cascade)
    deltas = await guarded.deltas(taken_over(guarded))
    assert shown(deltas) == "one two three" and guarded.told == [(1, "p", "open")]


async def test_complete_calls_that_another_process_wrote_end_the_step() -> None:
    provider = ScriptedProvider("p", answering("never"))
    guarded = Recovered(provider)
    call = taken_over(guarded, FIRST, ToolCall(0, "c", "f", "{}"), ToolCall(0, "c", "f", "{}", mark="ready"))
    *_, seam, finish = await guarded.deltas(call)
    assert isinstance(seam, Status) and seam.facts["quality"] == "cut_after_call"
    assert isinstance(finish, Finish) and finish.reason == "tool_calls" and not provider.calls


@pytest.mark.parametrize(("midstream", "attempts"), [("fail", 10), ("continue", 0)])
async def test_answer_that_may_not_be_gone_on_with_ends_in_an_honest_error(midstream: Midstream, attempts: int) -> None:
    provider = ScriptedProvider("p", answering("never"))
    guarded = Recovered(provider)
    guarded.open = recovery(guarded.clock, RecoverySettings(attempts=attempts), guarded.chance)(guarded.cascade)
    with pytest.raises(Overloaded, match="the server stopped before the answer was complete"):
        await guarded.deltas(taken_over(guarded, FIRST, Text(LONG), midstream=midstream))
    assert not provider.calls


async def test_recoveries_and_attempts_of_before_count() -> None:
    broken = [Attempt(n, "p", "m", "primary", strategy="continue", reason="it broke") for n in range(2, 21)]
    provider = ScriptedProvider("p", (Text("and more of it, "), failing()))
    guarded = Recovered(provider)
    with pytest.raises(Overloaded):
        await guarded.deltas(taken_over(guarded, FIRST, Text(LONG), *broken))
    assert len(provider.calls) == 1 and guarded.told == [(21, "p", "continue")]


async def test_answer_that_is_too_old_is_not_gone_on_with() -> None:
    provider = ScriptedProvider("p", answering("never"))
    guarded = Recovered(provider)
    guarded.clock.advance(1801)
    old = msgspec.structs.replace(ACCEPTED, facts={"created": guarded.clock.now() - 1801})
    call = msgspec.structs.replace(taken_over(guarded), begun=(old, FIRST, Text(LONG)))
    with pytest.raises(Overloaded):
        await guarded.deltas(call)
    assert not provider.calls


async def test_usage_has_an_estimate_of_what_the_process_before_spent() -> None:
    guarded = Recovered(ScriptedProvider("p", (Text("and more of it."), Finish("stop", Usage(10, 4)))))
    *_, finish = await guarded.deltas(taken_over(guarded, FIRST, Text(LONG)))
    assert isinstance(finish, Finish) and finish.usage.estimated
    assert finish.usage.output_tokens > 4 + len(LONG) / 8 and finish.usage.input_tokens > 10


async def test_provider_s_own_stream_comes_first_where_it_can_be_attached_to() -> None:
    provider = ScriptedProvider("p", (Text(" and the rest"), Finish("stop", Usage(7, 7))))
    guarded = Recovered(provider)
    upstream = Upstream("p", "resp_1", "17")
    begun = (FIRST, Text(LONG), ToolCall(0, "c", "f", '{"q'))
    seam, text, finish = await guarded.deltas(taken_over(guarded, *begun, upstream=upstream))
    assert isinstance(seam, Status) and seam.facts == {"quality": "exact", "dropped": 0, "attached": True}
    assert text == Text(" and the rest") and guarded.told == [(2, "p", "attach")]
    assert provider.calls[0].upstream == upstream and provider.calls[0].request == guarded.call().request
    assert isinstance(finish, Finish) and finish.usage == Usage(7, 7)


async def test_provider_s_own_stream_that_is_gone_gives_way_to_the_next_rung() -> None:
    provider = ScriptedProvider("p", (InvalidRequest("no such response"),), answering("and then it wakes up again."))
    guarded = Recovered(provider)
    call = taken_over(guarded, FIRST, Text(LONG), upstream=Upstream("p", "resp_1", "17"))
    assert shown(await guarded.deltas(call)) == "and then it wakes up again."
    assert [call.upstream is None for call in provider.calls] == [False, True]


@pytest.mark.parametrize("since", [Status("seam", "", {"quality": "stitched"}), Restart(3, "it broke")])
async def test_provider_s_own_stream_is_left_alone_once_another_attempt_has_gone_on(since: Delta) -> None:
    provider = ScriptedProvider("p", answering("and then it wakes up again."))
    guarded = Recovered(provider)
    call = taken_over(guarded, FIRST, Text("x"), since, Text(LONG), upstream=Upstream("p", "resp_1", "17"))
    await guarded.deltas(call)
    assert [call.upstream for call in provider.calls] == [None]


async def test_position_is_that_of_the_stream_the_answer_began_with_and_of_no_other() -> None:
    provider = ScriptedProvider("p", (Text(LONG), failing()), answering("and then it wakes up again."))
    guarded = Recovered(provider)
    at = Upstream("p", "resp_1", "17")

    async def placed(call: Call) -> Deltas:
        deltas = await guarded.cascade(call)
        deltas.position = lambda: at
        return deltas

    guarded.open = recovery(guarded.clock, RecoverySettings(), guarded.chance)(placed)
    deltas = await guarded.open(guarded.call())
    positions: list[Upstream | None] = []
    while await deltas.read():
        positions.append(deltas.position())
    assert positions[0] == at and positions[1:] and set(positions[1:]) == {None}


async def test_position_of_a_stream_that_was_attached_to_is_told() -> None:
    at = Upstream("p", "resp_1", "18")
    guarded = Recovered(ScriptedProvider("p", (Text(" and the rest"), Finish("stop", Usage(7, 7)))))

    async def placed(call: Call) -> Deltas:
        deltas = await guarded.cascade(call)
        deltas.position = lambda: at
        return deltas

    guarded.open = recovery(guarded.clock, RecoverySettings(), guarded.chance)(placed)
    deltas = await guarded.open(taken_over(guarded, FIRST, Text(LONG), upstream=Upstream("p", "resp_1", "17")))
    await deltas.read()
    assert deltas.position() == at
    await deltas.aclose()


class Attachable(ScriptedProvider):
    """A provider whose answers go on by themselves."""

    def __init__(self, *scripts: Any) -> None:
        super().__init__("p", *scripts)
        self.given_up: list[Upstream] = []

    def give_up(self, upstream: Upstream) -> None:
        self.given_up.append(upstream)


@pytest.mark.parametrize("why", ["no budget", "another has gone on", "attached", "it is refused there"])
async def test_provider_s_own_stream_that_nobody_attaches_to_is_given_up(why: str) -> None:
    upstream = Upstream("p", "resp_1", "17")
    refused = (InvalidRequest("no such response"),) if why == "it is refused there" else ()
    provider = Attachable(refused or answering("and the rest."), answering("and the rest."))
    guarded = Recovered(provider)
    begun: list[Delta] = [FIRST, Text(LONG)]
    if why == "no budget":
        guarded.open = recovery(guarded.clock, RecoverySettings(attempts=0), guarded.chance)(guarded.cascade)
    elif why == "another has gone on":
        begun.append(Restart(2, "anew"))
    with contextlib.suppress(Overloaded):
        await guarded.deltas(taken_over(guarded, *begun, upstream=upstream))
    assert provider.given_up == ([upstream] if why in ("no budget", "another has gone on") else [])


async def test_provider_s_own_stream_is_given_up_where_the_attempt_at_it_is_denied() -> None:
    upstream, provider = Upstream("p", "resp_1", "17"), Attachable()
    guarded = Recovered(provider)

    async def denied(call: Call) -> Deltas:
        raise Overloaded("its breaker is open")

    guarded.open = recovery(guarded.clock, RecoverySettings(attempts=1), guarded.chance)(denied)
    with pytest.raises(Overloaded):
        await guarded.deltas(taken_over(guarded, FIRST, Text(LONG), upstream=upstream))
    assert provider.given_up == [upstream]


@pytest.mark.parametrize("begun", [True, False], ids=["of another process", "of its own"])
async def test_nobody_else_is_asked_before_it_is_known_that_the_stream_is_still_ours(*, begun: bool) -> None:
    provider = ScriptedProvider("p", (Text(LONG), failing()))
    guarded = Recovered(provider)
    before = len(provider.calls)

    async def renewed() -> None:
        nonlocal before
        before = len(provider.calls)
        raise asyncio.CancelledError

    call = msgspec.structs.replace(taken_over(guarded, FIRST, Text(LONG)), renewed=renewed)
    with pytest.raises(asyncio.CancelledError):
        await guarded.deltas(call if begun else msgspec.structs.replace(call, begun=()))
    assert len(provider.calls) == before == (0 if begun else 1)
