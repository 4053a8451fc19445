"""Who is asked to go on with an answer that breaks again and again, and how often."""

import asyncio

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Restart, Text, ToolCall
from cauce.domain.errors import ErrorCode, ProviderFailure
from cauce.domain.model import ModelFacts
from cauce.domain.request import Sampling
from cauce.domain.usage import Usage
from cauce.engine.recovery.recovery import recovery
from cauce.ports.provider import Call
from cauce.ports.resilience import RecoverySettings
from cauce.testing.scripted import ScriptedProvider, Step, answering
from tests.unit.engine.guarded import failing
from tests.unit.engine.recovery.test_ladder import BYTES, MORE, seams, shown
from tests.unit.engine.recovery.test_recovery import LONG, Recovered
from tests.unit.engine.recovery.test_takeover import taken_over

pytestmark = pytest.mark.anyio

END = Finish("stop", Usage(1, 1))
MUCH = "and more of it, again and again, until it has had enough of it. "
PREAMBLE = "Sure, here is the rest:\n\n"


def cut(*deltas: Delta) -> tuple[Step, ...]:
    return (*deltas, failing())


def asking(guarded: Recovered) -> list[str]:
    """Who was asked, in turn."""
    return [provider for _, provider, _ in guarded.told]


def all_with(call: Call, **about: object) -> Call:
    changed = tuple([msgspec.structs.replace(one, **about) for one in call.candidates])
    return msgspec.structs.replace(call, candidates=changed)


async def test_continuation_reaches_the_model_that_is_well_past_two_that_break() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG))),
        ScriptedProvider("b", cut(Text(MUCH)), cut(Text("an"))),
        ScriptedProvider("c", answering(MORE)),
    )
    deltas = await guarded.deltas(guarded.call())
    assert asking(guarded) == ["a", "b", "c"] and shown(deltas) == LONG + MUCH + MORE


async def test_model_that_breaks_before_its_head_is_shown_comes_last_too() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG))),
        ScriptedProvider("b", cut(Text("an"))),
        ScriptedProvider("c", answering(MORE)),
    )
    assert shown(await guarded.deltas(guarded.call())) == LONG + MORE
    assert asking(guarded) == ["a", "b", "c"]


async def test_answer_that_is_opened_anew_reaches_the_model_that_is_well() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Reasoning("hm"))),
        ScriptedProvider("b", cut(Reasoning("so"))),
        ScriptedProvider("c", answering(MORE)),
    )
    assert shown(await guarded.deltas(guarded.call())) == MORE
    assert asking(guarded) == ["a", "b", "c"]


async def test_answer_that_begins_anew_in_place_of_another_reaches_the_model_that_is_well() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG))),
        ScriptedProvider("b", cut(Text("an"))),
        ScriptedProvider("c", answering(MORE)),
    )
    call = msgspec.structs.replace(all_with(guarded.call(), midstream="restart"), replaces=True)
    deltas = await guarded.deltas(call)
    assert asking(guarded) == ["a", "b", "c"] and shown(deltas).endswith(MORE)


async def test_model_that_can_go_on_from_its_beginning_does_so_first_and_then_the_others() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG)), cut(Text("x "))),
        ScriptedProvider("b", cut(Text("y "))),
        ScriptedProvider("c", answering(MORE)),
    )
    deltas = await guarded.deltas(all_with(guarded.call(), facts=BYTES))
    assert asking(guarded) == ["a", "a", "b", "c"] and seams(deltas) == ["exact"] * 3


async def test_model_that_begins_anew_from_its_beginning_gives_way_to_the_others() -> None:
    guarded = Recovered(ScriptedProvider("a", cut(Text(LONG)), answering(LONG)), ScriptedProvider("b", answering(MORE)))
    deltas = await guarded.deltas(all_with(guarded.call(), facts=BYTES, midstream="resume"))
    assert asking(guarded) == ["a", "a", "b"] and shown(deltas) == LONG + MORE


async def test_model_that_won_a_race_and_broke_comes_last_and_not_the_one_it_beat() -> None:
    beaten = ScriptedProvider("b", (asyncio.Event(),), answering(MORE))

    class Beaten:
        async def wait(self) -> None:
            while not beaten.calls:
                await asyncio.sleep(0)

    winner = ScriptedProvider("a", (Beaten(), *cut(Text(LONG))), answering("never"))
    guarded = Recovered(winner, beaten, ScriptedProvider("c", answering("never")))
    first, *others = guarded.call().candidates
    call = msgspec.structs.replace(guarded.call(), candidates=(msgspec.structs.replace(first, hedge=1.0), *others))
    assert shown(await guarded.deltas(call)) == LONG + MORE
    assert (len(winner.calls), len(beaten.calls)) == (1, 2)


async def test_offline_answerer_stays_behind_the_models() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Reasoning("hm")), answering(MORE)), ScriptedProvider("offline", answering("never"))
    )
    assert shown(await guarded.deltas(guarded.call())) == MORE
    assert asking(guarded) == ["a", "a"]


async def test_whoever_answered_in_the_process_before_comes_last() -> None:
    guarded = Recovered(ScriptedProvider("p", answering(MORE)), ScriptedProvider("q", answering("never")))
    begun = (Attempt(1, "p", "m", "primary"), Attempt(2, "q", "m", "primary", strategy="fallback"), Text(LONG))
    assert shown(await guarded.deltas(taken_over(guarded, *begun))) == MORE
    assert asking(guarded) == ["p"]


async def test_continuation_that_talks_is_refused_while_another_model_is_left() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG)), answering("never")),
        ScriptedProvider("b", answering(PREAMBLE + MORE)),
        ScriptedProvider("c", answering(MORE)),
    )
    assert shown(await guarded.deltas(guarded.call())) == LONG + MORE
    assert asking(guarded) == ["a", "b", "c"]
    reasons = [one.reason for one in guarded.noticed if isinstance(one, Attempt)]
    assert reasons == [None, "it is down", "a model that was to go on with an answer talked about going on"]


async def test_answer_does_not_fail_because_every_model_talks_first() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG)), answering(PREAMBLE + "of a")),
        ScriptedProvider("b", answering(PREAMBLE + "of b")),
    )
    deltas = await guarded.deltas(guarded.call())
    assert asking(guarded) == ["a", "b", "a"] and shown(deltas) == LONG + PREAMBLE + "of a"
    assert seams(deltas) == ["stitched"]


async def test_talk_is_better_than_a_failure_where_the_other_model_begins_anew() -> None:
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG)), answering(PREAMBLE + MORE)), ScriptedProvider("b", answering(LONG))
    )
    assert shown(await guarded.deltas(guarded.call())) == LONG + PREAMBLE + MORE


async def test_new_beginning_is_never_taken_for_a_continuation_and_not_paid_for_many_times() -> None:
    guarded = Recovered(ScriptedProvider("a", cut(Text(LONG)), answering(LONG)), ScriptedProvider("b", answering(LONG)))
    with pytest.raises(ProviderFailure, match="it is down"):
        await guarded.deltas(guarded.call())
    assert asking(guarded) == ["a", *"bababa"]


class TestLastResort:
    """Readers who can take back what they have, on a route that goes on."""

    def begun(self, *others: ScriptedProvider, again: tuple[Step, ...] = ()) -> tuple[Recovered, Call]:
        breaking = ScriptedProvider("a", cut(Text(LONG)), again or answering(LONG))
        guarded = Recovered(breaking, *others)
        return guarded, msgspec.structs.replace(guarded.call(), replaces=True, abandons=True)

    async def test_answer_begins_anew_once_everybody_else_has_tried_to(self) -> None:
        guarded, call = self.begun(ScriptedProvider("b", answering(LONG + MORE)))
        deltas = await guarded.deltas(call)
        place = next(place for place, delta in enumerate(deltas) if isinstance(delta, Restart))
        assert shown(deltas[:place]) == LONG and shown(deltas[place:]) == LONG + MORE
        assert asking(guarded) == ["a", "b", "a", "b"]
        assert [strategy for *_, strategy in guarded.told] == ["open", "continue", "continue", "restart"]
        reason = [one.reason for one in guarded.noticed if isinstance(one, Attempt)][-1]
        assert reason == "a model that was to go on with an answer began it anew"

    async def test_nothing_is_taken_back_while_somebody_goes_on(self) -> None:
        guarded, call = self.begun(ScriptedProvider("b", answering(LONG)), ScriptedProvider("c", answering(MORE)))
        deltas = await guarded.deltas(call)
        assert shown(deltas) == LONG + MORE and not any([isinstance(delta, Restart) for delta in deltas])

    async def test_nothing_is_taken_back_because_nobody_answers_for_a_while(self) -> None:
        down = (failing("overloaded"),)
        guarded, call = self.begun(ScriptedProvider("b", down, down, answering(MORE)), again=down)
        deltas = await guarded.deltas(call)
        assert shown(deltas) == LONG + MORE and not any([isinstance(delta, Restart) for delta in deltas])

    async def test_answer_does_not_wait_for_one_that_is_away_where_the_other_begins_anew(self) -> None:
        guarded, call = self.begun(ScriptedProvider("b", answering(LONG + MORE)), again=(failing("overloaded"),))
        deltas = await guarded.deltas(call)
        assert shown(deltas) == LONG + LONG + MORE and guarded.told[-1][1:] == ("b", "fallback")

    @pytest.mark.parametrize("code", ["invalid_request", "context_length_exceeded"])
    async def test_answer_begins_anew_where_what_asks_for_the_rest_is_refused(self, code: ErrorCode) -> None:
        refusing = (failing("bad_request", code=code, upstream_status=400),)
        guarded, call = self.begun(ScriptedProvider("b", refusing, answering(MORE)), again=refusing)
        deltas = await guarded.deltas(call)
        assert any([isinstance(delta, Restart) for delta in deltas]) and shown(deltas) == LONG + MORE

    async def test_new_beginning_is_within_the_budget_of_attempts(self) -> None:
        guarded, call = self.begun(ScriptedProvider("b", answering(LONG)))
        guarded.open = recovery(guarded.clock, RecoverySettings(attempts=2), guarded.chance)(guarded.cascade)
        with pytest.raises(ProviderFailure, match="it is down"):
            await guarded.deltas(call)
        assert asking(guarded) == ["a", "b", "a"]

    async def test_complete_call_is_not_taken_back_by_it(self) -> None:
        ready = ToolCall(0, "c", "f", "{}", "ready")
        guarded = Recovered(ScriptedProvider("a", cut(Text(LONG), ready)), ScriptedProvider("b", answering(LONG)))
        call = msgspec.structs.replace(guarded.call(), replaces=True, withheld=True, abandons=True)
        assert not any([isinstance(delta, Restart) for delta in await guarded.deltas(call)])
        assert asking(guarded) == ["a"]


class TestNothingIsShown:
    """Answers that are shown at their end, on a route that goes on."""

    def withheld(self, guarded: Recovered, **about: object) -> Call:
        return msgspec.structs.replace(all_with(guarded.call(), **about), replaces=True, withheld=True, abandons=True)

    async def test_nobody_is_asked_to_go_on_in_other_words(self) -> None:
        guarded = Recovered(ScriptedProvider("a", cut(Text(LONG))), ScriptedProvider("b", answering("Another answer.")))
        deltas = await guarded.deltas(self.withheld(guarded))
        assert deltas[:2] == [Text(LONG), Restart(1, "it is down")] and shown(deltas[2:]) == "Another answer."
        assert [strategy for *_, strategy in guarded.told] == ["open", "restart"]

    async def test_what_is_exact_is_gone_on_with(self) -> None:
        guarded = Recovered(ScriptedProvider("a", cut(Text(LONG)), answering(MORE)))
        deltas = await guarded.deltas(self.withheld(guarded, facts=BYTES))
        assert seams(deltas) == ["exact"] and shown(deltas) == LONG + MORE

    async def test_who_begins_anew_from_the_beginning_of_its_answer_is_asked_for_all_of_it(self) -> None:
        guarded = Recovered(ScriptedProvider("a", cut(Text(LONG)), answering(LONG), answering(LONG + MORE)))
        deltas = await guarded.deltas(self.withheld(guarded, facts=BYTES))
        assert shown(deltas) == LONG + LONG + MORE and seams(deltas) == []
        assert [strategy for *_, strategy in guarded.told] == ["open", "prefill", "restart"]

    @pytest.mark.parametrize("midstream", ["resume", "fail"])
    async def test_route_that_forbids_another_answer_gives_none(self, midstream: str) -> None:
        guarded = Recovered(ScriptedProvider("a", cut(Text(LONG))), ScriptedProvider("b", answering("never")))
        with pytest.raises(ProviderFailure, match="it is down"):
            await guarded.deltas(self.withheld(guarded, midstream=midstream))
        assert asking(guarded) == ["a"]


async def test_each_attempt_counts_though_several_are_refused_in_one_go() -> None:
    others = [ScriptedProvider(name, answering(LONG)) for name in "bcdef"]
    guarded = Recovered(ScriptedProvider("a", cut(Text(LONG)), answering(LONG)), *others)
    guarded.open = recovery(guarded.clock, RecoverySettings(attempts=3), guarded.chance)(guarded.cascade)
    with pytest.raises(ProviderFailure):
        await guarded.deltas(guarded.call())
    assert asking(guarded) == ["a", "b", "c", "d"]


async def test_refused_beginning_and_what_follows_it_count_both() -> None:
    refusing = failing("bad_request", upstream_status=400)
    guarded = Recovered(
        ScriptedProvider("a", cut(Text(LONG)), (refusing,), answering("never")),
    )
    guarded.open = recovery(guarded.clock, RecoverySettings(attempts=1), guarded.chance)(guarded.cascade)
    with pytest.raises(ProviderFailure, match="it is down"):
        await guarded.deltas(all_with(guarded.call(), facts=BYTES))
    assert asking(guarded) == ["a", "a"]


async def test_answer_ends_at_once_where_there_is_nobody_to_ask() -> None:
    guarded = Recovered(ScriptedProvider("a", cut(Text(LONG))))
    deltas = await guarded.open(all_with(guarded.call(), midstream="resume", facts=ModelFacts()))
    await deltas.read()
    with pytest.raises(ProviderFailure, match="it is down"):
        await deltas.read()


class TestSeveralChoices:
    def asked(self, guarded: Recovered, **changes: object) -> Call:
        return msgspec.structs.replace(guarded.asked_for(sampling=Sampling(n=2)), **changes)

    async def test_several_answers_of_which_nothing_was_shown_are_asked_for_anew(self) -> None:
        whole = (Text("one"), Text("two", choice=1), END)
        guarded = Recovered(ScriptedProvider("p", cut(Reasoning("hm")), whole))
        assert shown(await guarded.deltas(self.asked(guarded))) == "onetwo"

    @pytest.mark.parametrize("begun", [Text(LONG), Text(LONG, choice=1), ToolCall(0, "c", "f", '{"', choice=1)])
    async def test_several_answers_begin_anew_where_readers_can_take_them_back(self, begun: Delta) -> None:
        whole = (Text("one"), Text("two", choice=1), END)
        guarded = Recovered(ScriptedProvider("p", cut(begun), whole))
        deltas = await guarded.deltas(self.asked(guarded, replaces=True))
        place = next(place for place, delta in enumerate(deltas) if isinstance(delta, Restart))
        assert shown(deltas[place:]) == "onetwo"

    async def test_several_answers_are_not_gone_on_with(self) -> None:
        provider = ScriptedProvider("p", cut(Text(LONG)), answering("never"))
        guarded = Recovered(provider)
        with pytest.raises(ProviderFailure):
            await guarded.deltas(self.asked(guarded))
        assert len(provider.calls) == 1
