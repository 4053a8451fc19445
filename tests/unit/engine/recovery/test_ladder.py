"""What follows for an answer that broke, by what was shown of it: calls of tools, restarts, prefills, budgets."""

import asyncio

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Refusal, Restart, Status, Text, ToolCall
from cauce.domain.errors import ProviderFailure, Throttled
from cauce.domain.message import Message, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.price import Prices, Rates
from cauce.domain.request import ReasoningOptions, ResponseFormat, Sampling
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.engine.recovery.prefills import VERDICT
from cauce.engine.recovery.recovery import recovery
from cauce.ports.provider import Call, Deltas, Open
from cauce.ports.resilience import RecoverySettings
from cauce.testing.scripted import ScriptedProvider, answering
from tests.unit.engine.guarded import failing, settled
from tests.unit.engine.recovery.test_recovery import LONG, Recovered

pytestmark = pytest.mark.anyio

CALLING = (ToolCall(0, "c", "find", '{"q": '), failing())
MORE = "and then it wakes up again in the morning."
BYTES = ModelFacts(prefill=True, prefill_vouched=True)
CLAIMED = ModelFacts(prefill=True)


def having(call: Call, **changes: object) -> Call:
    return msgspec.structs.replace(call, **changes)


def candidates(call: Call, *about: dict[str, object]) -> Call:
    """`call` with what is said of its candidates, in turn."""
    changed = [msgspec.structs.replace(one, **more) for one, more in zip(call.candidates, about, strict=True)]
    return msgspec.structs.replace(call, candidates=tuple(changed))


def shown(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas if isinstance(delta, Text)])


def seams(deltas: list[Delta]) -> list[str]:
    return [delta.facts["quality"] for delta in deltas if isinstance(delta, Status) and delta.kind == "seam"]


async def test_broken_tool_call_is_abandoned_and_reissued_under_a_new_id() -> None:
    anew = (
        ToolCall(0, "c", "find", '{"q": 1}'),
        ToolCall(0, "c", "find", '{"q": 1}', mark="ready"),
        Finish("tool_calls", Usage(1, 1)),
    )
    guarded = Recovered(ScriptedProvider("p", CALLING, CALLING, anew))
    *calls, _ = await guarded.deltas(having(guarded.call(), abandons=True))
    assert [(one.index, one.call_id, one.mark) for one in calls if isinstance(one, ToolCall)] == [
        (0, "c", "piece"),
        (0, "c", "abandoned"),
        (1, "c_2", "piece"),
        (1, "c_2", "abandoned"),
        (2, "c_3", "piece"),
        (2, "c_3", "ready"),
    ]
    assert [strategy for _, _, strategy in guarded.told] == ["open", "again", "again"]


async def test_call_that_breaks_late_in_a_long_answer_is_abandoned_like_any_other() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider("p", (Text(LONG), CALLING[0], gate, CALLING[1]), answering(MORE))
    guarded = Recovered(provider)
    reading = asyncio.create_task(guarded.deltas(having(guarded.call(), abandons=True)))
    await settled()
    guarded.clock.advance(RecoverySettings().no_progress + 1)
    gate.set()
    deltas = await reading
    assert [one.mark for one in deltas if isinstance(one, ToolCall)] == ["piece", "abandoned"]
    assert shown(deltas) == LONG + MORE


async def test_text_before_a_broken_call_is_gone_on_with_and_the_model_told_of_the_call() -> None:
    provider = ScriptedProvider("p", (Text(LONG), *CALLING), answering(MORE))
    guarded = Recovered(provider)
    deltas = await guarded.deltas(having(guarded.call(), abandons=True))
    assert shown(deltas) == LONG + MORE and seams(deltas) == ["stitched"]
    assert "It was about to call a tool (find)" in provider.calls[1].request.messages[-1].text


async def test_call_that_is_not_complete_ends_the_answer_where_readers_cannot_take_it_back() -> None:
    provider = ScriptedProvider("p", CALLING, answering("never"))
    guarded = Recovered(provider)
    with pytest.raises(ProviderFailure):
        await guarded.deltas(guarded.call())
    assert len(provider.calls) == 1


@pytest.mark.parametrize("then", [(), (ToolCall(1, "d", "find", '{"q": '),)])
async def test_attempt_cut_after_a_ready_call_ends_the_step_with_it(then: tuple[ToolCall, ...]) -> None:
    ready = ToolCall(0, "c", "find", "{}", mark="ready")
    provider = ScriptedProvider("p", (ToolCall(0, "c", "find", "{}"), ready, *then, failing()), answering("never"))
    guarded = Recovered(provider)
    deltas = await guarded.deltas(having(guarded.call(), abandons=True))
    finish = deltas[-1]
    assert isinstance(finish, Finish) and finish.reason == "tool_calls" and finish.outcome == "completed"
    assert seams(deltas) == ["cut_after_call"] and len(provider.calls) == 1
    given_up = [delta.call_id for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "abandoned"]
    assert given_up == [call.call_id for call in then]


@pytest.mark.parametrize("midstream", ["continue", "resume", "restart", "fail"])
async def test_attempt_that_broke_after_reasoning_only_is_opened_anew_whatever_the_route_says(midstream: str) -> None:
    guarded = Recovered(ScriptedProvider("p", (Reasoning("hm"), failing()), answering("one two")))
    deltas = await guarded.deltas(candidates(guarded.call(), {"midstream": midstream}))
    assert shown(deltas) == "one two" and [strategy for _, _, strategy in guarded.told] == ["open", "again"]


class TestRestart:
    async def test_route_that_restarts_gives_another_answer_in_place_of_what_was_shown(self) -> None:
        provider = ScriptedProvider("p", (Text(LONG), failing()), (failing(),), answering("another answer"))
        guarded = Recovered(provider)
        call = having(candidates(guarded.call(), {"midstream": "restart"}), replaces=True)
        first, restart, *rest = await guarded.deltas(call)
        assert first == Text(LONG) and restart == Restart(1, "it is down")
        assert shown(rest) == "another answer" and provider.calls[-1].request == guarded.call().request
        assert [strategy for _, _, strategy in guarded.told] == ["open", "restart", "restart"]

    async def test_nothing_is_taken_back_where_nobody_can(self) -> None:
        provider = ScriptedProvider("p", (Text(LONG), failing()), answering("never"))
        guarded = Recovered(provider)
        with pytest.raises(ProviderFailure):
            await guarded.deltas(candidates(guarded.call(), {"midstream": "restart"}))
        assert len(provider.calls) == 1

    @pytest.mark.parametrize(
        ("begun", "changes"),
        [
            (Text('{"a": '), {"response_format": ResponseFormat("json_object")}),
            (Refusal("I cannot "), {}),
            (Text("a"), {"sampling": Sampling(logprobs=0)}),
        ],
        ids=["structured", "refusal", "log probabilities"],
    )
    async def test_what_cannot_be_gone_on_with_begins_anew(self, begun: Delta, changes: dict[str, object]) -> None:
        provider = ScriptedProvider("p", (begun, failing()), (Text('{"b": 1}'), Finish("stop", Usage(1, 1))))
        guarded = Recovered(provider)
        asked = having(guarded.asked_for(**changes), replaces=True)
        assert (await guarded.deltas(asked))[1] == Restart(1, "it is down")
        beyond = ScriptedProvider("p", (begun, failing()), answering("never"))
        guarded = Recovered(beyond)
        with pytest.raises(ProviderFailure):
            await guarded.deltas(guarded.asked_for(**changes))
        assert len(beyond.calls) == 1

    async def test_complete_call_is_never_taken_back(self) -> None:
        provider = ScriptedProvider("p", (Text(LONG), ToolCall(0, "c", "f", "{}", "ready"), failing()))
        guarded = Recovered(provider)
        call = having(candidates(guarded.call(), {"midstream": "restart"}), replaces=True, abandons=True)
        deltas = await guarded.deltas(call)
        assert not any([isinstance(delta, Restart) for delta in deltas]) and len(provider.calls) == 1

    async def test_complete_call_beside_one_that_broke_is_not_taken_back_either(self) -> None:
        whole = ToolCall(0, "c", "f", "{}", "ready")
        provider = ScriptedProvider("p", (whole, ToolCall(1, "d", "f", '{"'), failing()), answering("never"))
        guarded = Recovered(provider)
        with pytest.raises(ProviderFailure):
            await guarded.deltas(having(candidates(guarded.call(), {"midstream": "restart"}), replaces=True))
        assert len(provider.calls) == 1

    async def test_whole_answer_has_nothing_of_what_was_taken_back(self) -> None:
        guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), answering("another answer")))
        deltas = await guarded.deltas(having(candidates(guarded.call(), {"midstream": "restart"}), replaces=True))
        [choice] = (await collect(Deltas(None, deltas))).choices
        assert choice.text == "another answer"

    async def test_what_broke_after_a_restart_is_gone_on_with_from_there(self) -> None:
        scripts = ((Text(LONG), failing()), (Text("new "), failing()), (Text("newest"), Finish("stop", Usage(1, 1))))
        guarded = Recovered(ScriptedProvider("p", *scripts))
        deltas = await guarded.deltas(having(candidates(guarded.call(), {"midstream": "restart"}), replaces=True))
        assert shown(deltas) == LONG + "new " + "newest"
        assert [isinstance(delta, Restart) for delta in deltas] == [False, True, False, True, False, False]


class TestPrefill:
    def going_on(self, *scripts: tuple[object, ...], facts: ModelFacts = CLAIMED) -> tuple[Recovered, Call]:
        """A model that breaks, and one of which `facts` are known and that plays `scripts`."""
        guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing())), ScriptedProvider("q", *scripts))  # pyright: ignore[reportArgumentType]
        return guarded, candidates(guarded.call(), {}, {"facts": facts})

    def asked(self, guarded: Recovered) -> list[Call]:
        provider = guarded.candidates[1].provider
        assert isinstance(provider, ScriptedProvider)
        return provider.calls

    async def test_unprobed_prefill_is_not_used(self) -> None:
        guarded, call = self.going_on(answering("One two three four five"), answering(MORE))
        deltas = await guarded.deltas(call)
        assert seams(deltas) == ["stitched"] and shown(deltas) == LONG + MORE
        probe, going_on = self.asked(guarded)
        assert probe.request.continues and not probe.streamed and not going_on.request.continues

    async def test_prefill_that_was_proven_is_used_and_not_proven_again_for_a_day(self) -> None:
        guarded, call = self.going_on(answering(" five six"), answering(MORE))
        for _ in range(2):
            assert seams(await guarded.deltas(call)) == ["exact"]
        assert len(self.asked(guarded)) == 3
        guarded.clock.advance(VERDICT)
        await guarded.deltas(call)
        assert len(self.asked(guarded)) == 5
        assert [entry.outcome for entry in guarded.ledger.entries() if entry.provider == "q"] == ["completed"] * 5

    async def test_prefill_that_the_configuration_vouches_for_is_not_probed(self) -> None:
        guarded, call = self.going_on(answering(MORE), facts=BYTES)
        assert seams(await guarded.deltas(call)) == ["exact"]
        assert len(self.asked(guarded)) == 1

    @pytest.mark.parametrize(
        ("reasoning", "quality"),
        [
            (ReasoningOptions(budget_tokens=2048), "stitched"),
            (ReasoningOptions(effort="high"), "stitched"),
            (ReasoningOptions(enabled=True), "stitched"),
            (ReasoningOptions(effort="none"), "exact"),
            (ReasoningOptions(visible=True), "exact"),
        ],
    )
    async def test_model_that_is_told_to_think_is_given_no_beginning_unless_it_is_vouched_for(
        self, reasoning: ReasoningOptions, quality: str
    ) -> None:
        scripts = (answering("five"), answering(MORE)) if quality == "exact" else (answering(MORE),)
        for facts, seam in ((CLAIMED, quality), (BYTES, "exact")):
            guarded, call = self.going_on(*(scripts if facts is CLAIMED else (answering(MORE),)), facts=facts)
            asked = having(call, request=msgspec.structs.replace(call.request, reasoning=reasoning))
            assert seams(await guarded.deltas(asked)) == [seam]

    async def test_answer_does_not_wait_for_ever_for_a_probe(self) -> None:
        guarded, call = self.going_on((asyncio.Event(),), answering(MORE))
        assert seams(await guarded.deltas(call)) == ["stitched"]

    async def test_answers_that_break_at_once_share_one_probe(self) -> None:
        guarded, call = self.going_on(answering("five"), answering(MORE))
        both = await asyncio.gather(guarded.deltas(call), guarded.deltas(call))
        assert [seams(one) for one in both] == [["exact"], ["exact"]] and len(self.asked(guarded)) == 3

    async def test_prefill_rejection_keeps_the_cause(self) -> None:
        refusing = failing("bad_request", upstream_status=400)
        refusing.provider = "q"
        guarded, call = self.going_on(answering("five"), (refusing,), answering(MORE))
        deltas = await guarded.deltas(call)
        assert shown(deltas) == LONG + MORE and seams(deltas) == ["stitched"]
        told = [one for one in guarded.noticed if isinstance(one, Attempt)]
        assert [(one.strategy, one.reason) for one in told] == [
            ("open", None),
            ("prefill", "it is down"),
            ("continue", "it is down"),
        ]
        await guarded.deltas(call)
        assert not self.asked(guarded)[-1].request.continues and len(self.asked(guarded)) == 4

    async def test_cause_is_what_ends_the_answer_that_nobody_goes_on_with(self) -> None:
        guarded, call = self.going_on((failing("bad_request", upstream_status=400),), facts=BYTES)
        with pytest.raises(ProviderFailure, match="it is down") as raised:
            await guarded.deltas(candidates(call, {"midstream": "resume"}, {"midstream": "resume"}))
        assert raised.value.failure == "transient"


async def test_each_attempt_is_told_with_why_the_one_before_it_broke() -> None:
    worse = failing()
    worse.message = "it is worse now"
    guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), (worse,), answering(MORE)))
    await guarded.deltas(guarded.call())
    assert [one.reason for one in guarded.noticed if isinstance(one, Attempt)] == [
        None,
        "it is down",
        "it is worse now",
    ]


async def test_cause_is_told_though_the_first_candidate_has_no_room_to_go_on() -> None:
    def full(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            if call.strategy != "open" and call.candidate.provider.name == "q":
                raise Throttled("q has no room", retry_after=1, bottleneck="q")
            return await open(call)

        return opened

    broken = ScriptedProvider("p", (Text(LONG), failing()), answering(MORE))
    guarded = Recovered(broken, ScriptedProvider("q", answering("never")), limits=(full,))
    await guarded.deltas(guarded.call())
    told = [(one.provider, one.reason) for one in guarded.noticed if isinstance(one, Attempt)]
    assert told == [("p", None), ("p", "it is down")]


async def test_continuation_keeps_system_prompt_and_language() -> None:
    spanish = "El río nace en la sierra y baja despacio por el valle, entre huertas que lo beben y no se lo acaban. "
    provider = ScriptedProvider("p", (Text(spanish), failing()), answering("Después llega al mar."))
    guarded = Recovered(provider)
    messages = (
        Message("system", (TextPart("Eres un pirata."),)),
        Message("user", (TextPart("What does the river do?"),)),
    )
    await guarded.deltas(guarded.asked_for(messages=messages))
    system, question, said, word = provider.calls[1].request.messages
    assert (system, question) == messages
    assert said.role == "assistant" and said.text == spanish.rstrip()
    assert word.role == "user" and word.text.startswith("Un fallo de red cortó tu última respuesta")


class TestBudgets:
    @pytest.mark.parametrize(("most", "asked"), [(None, 2), (1_000.0, 2), (1.0, 1)])
    async def test_answer_that_has_cost_enough_is_not_gone_on_with(self, most: float | None, asked: int) -> None:
        provider = ScriptedProvider("p", (Text(LONG), failing()), answering(MORE))
        guarded = Recovered(provider)
        guarded.open = recovery(guarded.clock, RecoverySettings(max_cost=most), guarded.chance)(guarded.cascade)
        priced = ModelFacts(prices=Prices(Rates.given(1_000_000, 1_000_000)))
        reading = guarded.deltas(candidates(guarded.call(), {"facts": priced}))
        if asked == 2:
            assert shown(await reading) == LONG + MORE
        else:
            with pytest.raises(ProviderFailure):
                await reading
        assert len(provider.calls) == asked

    async def test_next_try_waits_as_long_as_the_provider_asks(self) -> None:
        busy = failing("overloaded", retry_after=7)
        guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), (busy,), answering(MORE)))
        deltas = await guarded.open(guarded.call())
        await deltas.read()
        reading = asyncio.create_task(deltas.read())
        await settled()
        guarded.clock.advance(6.9)
        await settled()
        assert len(guarded.told) == 2
        guarded.clock.advance(0.2)
        await reading
        assert len(guarded.told) == 3
        await deltas.aclose()

    async def test_wait_that_is_longer_than_the_answer_may_stand_still_ends_it(self) -> None:
        busy = failing("overloaded", retry_after=301)
        guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), (busy,)))
        with pytest.raises(ProviderFailure):
            await guarded.deltas(guarded.call())
        assert len(guarded.told) == 2


async def test_head_of_a_slow_continuation_is_held_for_two_seconds_at_most() -> None:
    gate = asyncio.Event()
    slow = (Text("Later "), gate, Text("on, "), Text("it wakes."), Finish("stop", Usage(1, 1)))
    guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), slow))
    deltas = await guarded.open(guarded.call())
    await deltas.read()
    reading = asyncio.create_task(deltas.read())
    await settled()
    guarded.clock.advance(1.9)
    await settled()
    assert not reading.done()
    guarded.clock.advance(0.1)
    assert shown(list(await reading)) == "Later "
    gate.set()
    rest = [*await deltas.read(), *await deltas.read(), *await deltas.read()]
    assert shown(rest) == "on, it wakes." and isinstance(rest[-1], Finish)


async def test_reader_that_leaves_while_the_head_is_held_closes_the_upstream() -> None:
    provider = ScriptedProvider("p", (Text(LONG), failing()), (Text("Later "), asyncio.Event()))
    guarded = Recovered(provider)
    deltas = await guarded.open(guarded.call())
    await deltas.read()
    reading = asyncio.create_task(deltas.read())
    await guarded.clock.until_waiting()
    await settled()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await deltas.aclose()
    assert provider.closed.is_set()
    assert [entry.outcome for entry in guarded.ledger.entries()] == ["failed", "cancelled"]


async def test_end_that_is_repeated_is_held_though_nothing_more_comes_for_a_while() -> None:
    gate = asyncio.Event()
    slow = (Text(LONG[-40:-20]), gate, Text(LONG[-20:] + "It wakes."), Finish("stop", Usage(1, 1)))
    guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), slow))
    deltas = await guarded.open(guarded.call())
    await deltas.read()
    reading = asyncio.create_task(deltas.read())
    await settled()
    guarded.clock.advance(3)
    await settled()
    assert not reading.done()
    gate.set()
    assert shown(list(await reading)) == "It wakes."
    await deltas.aclose()
