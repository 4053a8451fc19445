"""Structured output around scripted providers: told, found, checked, asked for once more, or refused."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Refusal, Status, Text, ToolCall
from cauce.domain.errors import CauceError, DeadlineExceeded, InvalidRequest, ProviderFailure, Unsupported
from cauce.domain.message import Message, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.request import Request, ResponseFormat, Sampling, Scope
from cauce.domain.usage import Usage, summed
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.meter import meter
from cauce.engine.policies.structured import structured
from cauce.engine.policies.whole import MAX_TEXT, whole
from cauce.ports.provider import Call, Candidate, Deltas
from cauce.stores.inproc.ledger import InprocLedger
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step, answering

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
GOOD = '{"city": "Sevilla", "people": 681998}'
BAD = '{"city": "Sevilla", "people": "many"}'
USED = Usage(3, 5)
STRICT = ResponseFormat("json_schema", "city", SCHEMA, strict=True)
LENIENT = ResponseFormat("json_schema", "city", SCHEMA)
OBJECT = ResponseFormat("json_object")
CANNOT, CAN, UNKNOWN = ModelFacts(json_schema=False), ModelFacts(json_schema=True), ModelFacts()

NO_FORMAT = Unsupported("this wire has no response_format", field="response_format")


def refused(message: str = "This response_format type is unavailable now") -> ProviderFailure:
    return ProviderFailure(message, failure="bad_request", provider="up", upstream_status=400)


class Asking:
    """The composed `open`, as bootstrap makes it, and everything it told."""

    def __init__(
        self, *scripts: Sequence[Step], facts: ModelFacts = CANNOT, then: ScriptedProvider | None = None
    ) -> None:
        self.provider = ScriptedProvider("up", *scripts)
        self.clock = FakeClock()
        self.ledger = InprocLedger()
        self.noticed: list[Status | Attempt] = []
        others = () if then is None else (Candidate(then, "n"),)
        self.candidates = (Candidate(self.provider, "m", facts=facts), *others)

    async def deltas(
        self, wanted: ResponseFormat | None, *, streamed: bool = True, n: int = 1, timeout: float | None = None
    ) -> Deltas:
        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        metered = meter(self.clock, self.ledger, PrometheusMetrics(), Estimator())
        candidate = compose(ask, structured(self.clock), whole(), attempt(), metered)
        open = compose(candidate, deadline(self.clock), fallback(self.clock))
        said = Message("user", (TextPart("Where?"),))
        request = Request("x", (said,), sampling=Sampling(n=n), response_format=wanted, timeout=timeout)
        return await open(
            Call(request, Scope(), self.candidates, "req_1", notice=self.noticed.append, streamed=streamed)
        )

    async def answer(self, wanted: ResponseFormat | None, *, streamed: bool = True, n: int = 1) -> Completion:
        return await collect(await self.deltas(wanted, streamed=streamed, n=n))

    async def read(self, wanted: ResponseFormat | None) -> list[Delta]:
        async with aclosing(await self.deltas(wanted)) as deltas:
            return [delta async for delta in deltas]

    @property
    def asked(self) -> list[Request]:
        return [call.request for call in self.provider.calls]

    @property
    def attempts(self) -> list[tuple[str, str]]:
        return [(one.provider, one.strategy) for one in self.noticed if isinstance(one, Attempt)]


def said(request: Request, role: str) -> list[str]:
    return [message.text for message in request.messages if message.role == role]


async def test_text_is_left_alone() -> None:
    asking = Asking(answering("not JSON at all"))
    for wanted in (None, ResponseFormat("text")):
        assert (await asking.answer(wanted)).choices[0].text == "not JSON at all"
    assert said(asking.asked[0], "system") == []


async def test_model_that_cannot_is_told_the_schema_and_its_answer_is_checked() -> None:
    asking = Asking(answering(GOOD))
    completion = await asking.answer(LENIENT)
    assert completion.choices[0].text == GOOD
    (instruction,) = said(asking.asked[0], "system")
    assert msgspec.json.encode(SCHEMA).decode() in instruction
    assert asking.asked[0].response_format == OBJECT
    assert asking.attempts == [("up", "open")]


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\n",
        f"Sure! Here it is:\n\n{GOOD}\n\nLet me know.",
        f'For example {{"city": 5}}, so {GOOD}',
        f"<think>Perhaps {BAD}?</think>\n{GOOD}",
        f"\ufeff \n{GOOD}\n",
        f'First ```json\n{{"a": 1}}\n``` and then ```json\n{GOOD}\n```',
    ],
)
async def test_json_is_found_where_the_model_put_it(text: str) -> None:
    asking = Asking([Reasoning("Hm."), Text(text[:9]), Text(text[9:]), Finish("stop", USED)])
    deltas = await asking.read(LENIENT)
    assert deltas == [Reasoning("Hm."), Text(GOOD), Finish("stop", USED)]
    assert len(asking.asked) == 1


async def test_wrong_answer_is_asked_for_once_more_with_what_is_wrong() -> None:
    asking = Asking(answering(BAD), answering(f"```json\n{GOOD}\n```"))
    completion = await asking.answer(LENIENT)
    assert completion.choices[0].text == GOOD
    again = asking.asked[1]
    assert [message.role for message in again.messages] == ["system", "user", "assistant", "user"]
    assert said(again, "assistant") == [BAD]
    assert '$.people: "many" is not of type "integer"' in said(again, "user")[1]
    assert again.response_format == OBJECT


async def test_both_turns_are_paid_shown_and_in_the_ledger() -> None:
    first = [Text("no"), Finish("stop", Usage(10, 2, cost=0.5, cost_source="reported"))]
    second = [Text(GOOD), Finish("stop", Usage(20, 4, cost=1.0, cost_source="priced"))]
    asking = Asking(first, second)
    completion = await asking.answer(LENIENT)
    assert completion.usage == Usage(30, 6, cost=1.5, cost_source="priced")
    assert [entry.usage.input_tokens for entry in asking.ledger.entries()] == [10, 20]
    assert asking.attempts == [("up", "open"), ("up", "repair")]
    repairing = [one for one in asking.noticed if isinstance(one, Status)]
    assert [(one.kind, one.facts["model"]) for one in repairing] == [("repairing", "up/m")]
    assert "not valid JSON" in str(asking.noticed[-1].reason)  # pyright: ignore[reportAttributeAccessIssue]


async def test_answer_that_is_wrong_twice_is_an_error_that_holds_it() -> None:
    asking = Asking(answering("no"), answering(BAD))
    with pytest.raises(ProviderFailure, match="many") as caught:
        await asking.deltas(LENIENT)
    assert (caught.value.code, caught.value.status, caught.value.should_retry) == ("provider_error", 502, False)
    assert caught.value.facts == {"answer": BAD}
    assert len(asking.asked) == 2


async def test_next_candidate_is_asked_when_one_is_wrong_twice() -> None:
    other = ScriptedProvider("other", answering(GOOD))
    asking = Asking(answering("no"), then=other)
    assert (await asking.answer(LENIENT)).choices[0].text == GOOD
    assert asking.attempts == [("up", "open"), ("up", "repair"), ("other", "fallback")]
    assert other.calls[0].request.response_format == LENIENT


async def test_empty_answer_is_asked_for_again_without_an_empty_message() -> None:
    asking = Asking([Finish("stop", USED)], answering(GOOD))
    await asking.answer(LENIENT)
    assert [message.role for message in asking.asked[1].messages] == ["system", "user", "user"]


@pytest.mark.parametrize(
    "script",
    [
        [Text('{"city": "Sev'), Finish("length", USED)],
        [Text("I must not"), Finish("content_filter", USED)],
        [Refusal("I will not."), Finish("stop", USED)],
        [ToolCall(0, "c1", "look", "{}"), ToolCall(0, "c1", "look", "{}", "ready"), Finish("tool_calls", USED)],
    ],
)
@pytest.mark.parametrize("facts", [CANNOT, CAN])
async def test_what_ended_for_another_reason_is_handed_on_as_it_is(script: list[Delta], facts: ModelFacts) -> None:
    asking = Asking(script, facts=facts)
    assert await asking.read(STRICT) == script
    assert len(asking.asked) == 1


async def test_model_that_can_streams_straight_through() -> None:
    asking = Asking([Text("no"), Text(" JSON"), Finish("stop", USED)], facts=CAN)
    async with aclosing(await asking.deltas(LENIENT)) as deltas:
        assert await deltas.read() == (Text("no"),)
    assert asking.provider.closed.is_set()
    assert asking.asked[0].response_format == LENIENT and said(asking.asked[0], "system") == []


@pytest.mark.parametrize("facts", [CAN, UNKNOWN])
async def test_strict_stream_is_checked_at_its_end_and_ends_in_an_error(facts: ModelFacts) -> None:
    asking = Asking([Text(BAD[:5]), Text(BAD[5:]), Finish("stop", USED)], facts=facts)
    *before, finish = await asking.read(STRICT)
    assert before == [Text(BAD[:5]), Text(BAD[5:])]
    assert isinstance(finish, Finish) and finish.error is not None
    assert (finish.reason, finish.outcome, finish.usage) == ("error", "incomplete", USED)
    assert finish.error.code == "provider_error" and "many" in finish.error.message


async def test_strict_stream_that_is_right_is_not_changed() -> None:
    script = [Text(GOOD[:5]), Text(GOOD[5:]), Finish("stop", USED)]
    assert await Asking(script, facts=CAN).read(STRICT) == script


async def test_strict_stream_whose_reader_leaves_before_reading_closes_the_upstream() -> None:
    asking = Asking([Text(GOOD[:5]), Text(GOOD[5:]), Finish("stop", USED)], facts=CAN)
    await (await asking.deltas(STRICT)).aclose()
    assert asking.provider.closed.is_set()


async def test_strict_plain_answer_is_repaired_before_anybody_sees_it() -> None:
    asking = Asking([[Text(BAD), Finish("stop", USED)]], [[Text(GOOD), Finish("stop", USED)]], facts=CAN)
    completion = await asking.answer(STRICT, streamed=False)
    assert completion.choices[0].text == GOOD and completion.usage == Usage(6, 10)
    assert [request.response_format for request in asking.asked] == [STRICT, STRICT]


async def test_strict_stream_that_comes_in_one_batch_is_repaired_too() -> None:
    asking = Asking([[Text(BAD), Finish("stop", USED)]], [[Text(GOOD), Finish("stop", USED)]], facts=CAN)
    assert await asking.read(STRICT) == [Text(GOOD), Finish("stop", Usage(6, 10))]


async def test_each_of_several_strict_answers_is_checked() -> None:
    def answers(second: str) -> list[Step]:
        return [[Text(GOOD, 0), Text(second, 1), Finish("stop", USED, ("stop", "stop"))]]

    assert len((await Asking(answers(GOOD), facts=CAN).answer(STRICT, streamed=False, n=2)).choices) == 2
    with pytest.raises(ProviderFailure, match="many"):
        await Asking(answers(BAD), facts=CAN).deltas(STRICT, streamed=False, n=2)


async def test_several_answers_of_a_model_that_must_be_told_are_unsupported() -> None:
    with pytest.raises(Unsupported) as caught:
        await Asking(answering(GOOD)).deltas(LENIENT, n=2)
    assert caught.value.field == "n"


async def test_adapter_that_says_it_cannot_is_told_in_words() -> None:
    asking = Asking([NO_FORMAT], [NO_FORMAT], answering(GOOD), facts=UNKNOWN)
    assert (await asking.answer(LENIENT)).choices[0].text == GOOD
    assert [request.response_format for request in asking.asked] == [LENIENT, OBJECT, None]
    # Nobody was asked before the third.
    assert asking.attempts == [("up", "open")]
    assert [(entry.n, entry.outcome) for entry in asking.ledger.entries()] == [(1, "completed")]


async def test_object_that_an_adapter_cannot_ask_for_is_told_in_words() -> None:
    asking = Asking([NO_FORMAT], answering("[1]"), answering("{}"), facts=UNKNOWN)
    assert (await asking.answer(OBJECT)).choices[0].text == "{}"
    assert [request.response_format for request in asking.asked] == [OBJECT, None, None]
    assert "not a JSON object" in said(asking.asked[2], "user")[-1]


async def test_other_things_an_adapter_cannot_do_go_to_the_next_candidate() -> None:
    asking = Asking([Unsupported("one answer only", field="n")], facts=UNKNOWN)
    with pytest.raises(Unsupported):
        await asking.deltas(LENIENT)
    assert len(asking.asked) == 1


async def test_server_that_refuses_response_format_is_told_in_words_and_that_is_shown() -> None:
    asking = Asking([refused()], answering(GOOD), facts=UNKNOWN)
    assert (await asking.answer(LENIENT)).choices[0].text == GOOD
    assert asking.attempts == [("up", "open"), ("up", "prompted")]
    assert [entry.outcome for entry in asking.ledger.entries()] == ["failed", "completed"]


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (refused("max_tokens is too large"), UNKNOWN),
        (refused("Invalid schema for response_format 'city'"), CAN),
        (ProviderFailure("structured output is not for me", failure="bad_request", provider="offline"), UNKNOWN),
        (
            ProviderFailure("json_schema worker crashed", failure="transient", provider="up", upstream_status=500),
            UNKNOWN,
        ),
    ],
)
async def test_other_refusals_stay_refusals(error: CauceError, facts: ModelFacts) -> None:
    asking = Asking([error], facts=facts)
    with pytest.raises(ProviderFailure):
        await asking.deltas(LENIENT)
    assert len(asking.asked) == 1


async def test_answer_that_breaks_while_it_is_held_back_goes_to_the_next_candidate() -> None:
    cut = ProviderFailure("it was cut", failure="transient", provider="up")
    asking = Asking([Text("{"), cut], then=ScriptedProvider("other", answering(GOOD)))
    assert (await asking.answer(LENIENT)).choices[0].text == GOOD


async def test_answer_that_is_too_long_to_be_held_back_is_given_up() -> None:
    asking = Asking([Text("x" * MAX_TEXT), Text("y"), Finish("stop", USED)])
    with pytest.raises(ProviderFailure, match="longer than"):
        await asking.deltas(LENIENT)
    assert asking.provider.closed.is_set()


async def test_repair_has_no_more_time_than_is_left() -> None:
    clock = FakeClock()

    class Slow(ScriptedProvider):
        async def open(self, call: Call) -> Deltas:
            clock.advance(4)
            return await super().open(call)

    asking = Asking(answering(BAD))
    asking.clock = clock
    asking.candidates = (Candidate(slow := Slow("up", answering(BAD)), "m", facts=CANNOT),)
    with pytest.raises(ProviderFailure):
        await asking.deltas(LENIENT, timeout=10)
    assert [call.candidate.timeouts.total for call in slow.calls] == [10, 6]
    with pytest.raises(DeadlineExceeded):
        await asking.deltas(LENIENT, timeout=4)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "string", "pattern": "("},
    ],
)
async def test_schema_that_is_none_is_the_clients_mistake(schema: dict[str, Any]) -> None:
    asking = Asking(answering("{}"))
    with pytest.raises(InvalidRequest) as caught:
        await asking.deltas(ResponseFormat("json_schema", "x", schema))
    assert caught.value.field == "response_format.json_schema.schema"
    assert asking.asked == []


async def test_schema_reads_no_files(tmp_path: Path) -> None:
    """The file is a valid schema: whoever read it would find nothing wrong."""
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    asking = Asking(answering("{}"))
    with pytest.raises(InvalidRequest, match="Retrieval is disabled"):
        await asking.deltas(ResponseFormat("json_schema", "x", {"$ref": (tmp_path / "schema.json").as_uri()}))


def test_sum_of_two_usages_is_as_sure_as_the_less_sure() -> None:
    known, unknown = Usage(1, 2, 3, 4, 5, 1.0, "reported"), Usage(1, 1, 1, 1, 1, 0.0, "unpriced", estimated=True)
    assert summed(known, unknown) == Usage(2, 3, 4, 5, 6, 1.0, "unpriced", estimated=True)


async def test_usage_of_a_strict_stream_that_breaks_is_that_of_its_attempt() -> None:
    asking = Asking((Text('{"city": '), refused()), facts=CAN)
    deltas = await asking.deltas(STRICT)
    with pytest.raises(ProviderFailure):
        while await deltas.read():
            pass
    [entry] = asking.ledger.entries()
    assert deltas.used == entry.usage and entry.usage.input_tokens > 0
