"""Requests made to fit a window."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import Prompt, Request, ResponseFormat, Sampling
from cauce.domain.tokens import weigh
from cauce.domain.tool import Tool
from cauce.engine.summary import summary
from cauce.engine.window import bound, fit, is_measurable, noted, shortened

LONG = "word " * 100


def said(role: Role, *parts: Part | str, call_id: str | None = None) -> Message:
    return Message(role, tuple([TextPart(part) if isinstance(part, str) else part for part in parts]), call_id=call_id)


def called(*ids: str) -> Message:
    return said("assistant", *[ToolCallPart(id, "look", "{}") for id in ids])


def answered(id: str) -> Message:
    return said("tool", LONG, call_id=id)


def kept(messages: list[Message], most: float) -> list[int]:
    cut = shortened(Request("m", tuple(messages)), most)
    return [messages.index(message) for message in cut.request.messages]


def test_request_that_fits_is_left_as_it_is() -> None:
    request = Request("m", (said("user", "hi"),))
    assert shortened(request, 1000).request is request


def test_oldest_turns_go_first_and_whole() -> None:
    messages = [
        said("system", "Be kind."),
        said("user", "one " + LONG),
        said("assistant", "two " + LONG),
        said("user", "three " + LONG),
        said("assistant", "four " + LONG),
        said("user", "five"),
    ]
    assert kept(messages, 350) == [0, 3, 4, 5]
    assert kept(messages, 30) == [0, 5]


def test_what_system_and_developer_say_stays_wherever_it_stands() -> None:
    messages = [
        said("user", "one " + LONG),
        said("developer", "Be brief."),
        said("system", "Be kind."),
        said("user", "two"),
    ]
    messages.insert(1, said("assistant", "yes"))
    assert kept(messages, 20) == [2, 3, 4]


def test_last_turn_of_the_user_stays_though_it_is_too_long() -> None:
    messages = [said("user", "old"), said("assistant", "yes"), said("user", LONG), said("user", "and this " + LONG)]
    cut = shortened(Request("m", tuple(messages)), 10)
    assert [message.text for message in cut.request.messages] == [LONG, "and this " + LONG]
    assert cut.weight > 10


def test_calls_and_their_results_stay_or_go_together() -> None:
    messages = [
        said("user", "one"),
        called("a", "b"),
        answered("a"),
        answered("b"),
        said("user", "two"),
        called("c"),
        answered("c"),
        said("assistant", "done"),
        said("user", "three"),
    ]
    assert kept(messages, 220) == [4, 5, 6, 7, 8]
    assert kept(messages, 60) == [8]


def test_oldest_calls_of_the_turn_under_way_go_when_all_else_is_gone() -> None:
    messages = [said("user", "old"), said("assistant", LONG), said("user", "do it")]
    for number in range(6):
        messages += [called(str(number)), answered(str(number))]
    assert kept(messages, 300) == [2, 11, 12, 13, 14]
    assert kept(messages, 1) == [2, 13, 14]


def test_result_that_came_after_the_user_spoke_again_goes_with_its_call() -> None:
    messages = [
        said("user", "one " + LONG),
        called("late"),
        said("user", "two"),
        said("tool", "here", call_id="late"),
        said("assistant", "yes"),
        said("user", "three"),
    ]
    assert kept(messages, 60) == [2, 4, 5]


ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


def test_result_that_comes_after_other_words_stays_with_its_call() -> None:
    messages = [called("a"), said("assistant", "wait"), answered("a"), said("assistant", "done")]
    assert kept(messages, 0) == [0, 2, 3]


class Watched(tuple[Part, ...]):
    """Parts that count how often somebody goes through them."""

    looks = 0

    def __iter__(self) -> Iterator[Part]:
        Watched.looks += 1
        return super().__iter__()


def test_results_of_calls_that_nobody_made_are_not_looked_for_in_every_message() -> None:
    turn = [said("user", "hi")]
    for number in range(50):
        turn += [Message("assistant", Watched((TextPart("well"),))), said("tool", "none", call_id=f"alien {number}")]
    Watched.looks = 0
    assert len(kept(turn, 0)) == 3 and Watched.looks <= 3 * 50


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages: list[Message] = []
    open_calls: list[str] = []
    for number in range(draw(st.integers(1, 14))):
        role = draw(st.sampled_from(ROLES))
        if role == "tool" and not open_calls:
            role = "user"
        text = f"{number} " + "x" * draw(st.integers(0, 400))
        if role == "tool":
            messages.append(said("tool", text, call_id=open_calls.pop(0)))
        elif role == "assistant" and draw(st.booleans()):
            ids = [f"{number}-{each}" for each in range(draw(st.integers(1, 3)))]
            open_calls += ids
            messages.append(called(*ids))
        else:
            messages.append(said(role, text))
    return tuple(messages)


@given(conversations(), st.floats(0, 1500))
def test_whatever_is_cut_the_rest_is_a_conversation(messages: tuple[Message, ...], most: float) -> None:
    cut = shortened(Request("m", messages), most)
    left = cut.request.messages
    assert len(left) + len(cut.dropped) == len(messages)
    assert [message for message in messages if message in left] == list(left)
    assert all(message in left for message in messages if message.role in ("system", "developer"))
    users = [message for message in messages if message.role == "user"]
    assert not users or users[-1] in left
    calls = {part.call_id for message in left for part in message.parts if isinstance(part, ToolCallPart)}
    asked = {part.call_id for message in messages for part in message.parts if isinstance(part, ToolCallPart)}
    results = {message.call_id for message in messages if message.role == "tool"}
    left_results = {message.call_id for message in left if message.role == "tool"}
    assert left_results <= calls
    assert calls & results == left_results
    assert asked >= calls
    assert cut.weight == pytest.approx(weigh(cut.request), abs=0.01)
    if not cut.dropped:
        assert cut.request.messages == messages


@given(conversations(), st.integers(0, 3), st.booleans())
def test_bound_is_never_below_the_estimate(messages: tuple[Message, ...], tools: int, schema: bool) -> None:
    extra = said(
        "user",
        ImagePart("https://a/b.png"),
        DocumentPart("https://a/b.pdf"),
        DocumentPart("data:application/pdf;base64," + "L1R5cGUgL1BhZ2Ug" * 900),
        DocumentPart("data:text/plain," + "日本語 🎉" * 3_000),
        ReasoningPart("Ünïcödé “quoted”…"),
        "日本語 🎉",
    )
    request = Request(
        "m",
        (*messages, extra),
        tools=tuple([Tool(f"tool{number}", "does", {"type": "object"}) for number in range(tools)]),
        response_format=ResponseFormat("json_schema", schema={"type": "object"}) if schema else None,
        prompt=Prompt("", "日本語 🎉" * 100, 20_000) if schema else None,
    )
    assert bound(request) >= weigh(request)


def test_what_only_one_wire_knows_is_not_measured() -> None:
    assert is_measurable(Request("m", (said("user", "hi"),)))
    assert not is_measurable(Request("m", (said("user", OpaquePart("gemini", {"inlineData": "x" * 99})),)))


def test_what_a_long_document_is_the_upstream_says() -> None:
    def measured(url: str) -> bool:
        return is_measurable(Request("m", (said("user", "hi", DocumentPart(url)),)))

    assert measured("https://a/b.pdf") and measured("data:text/plain," + "x" * 200_000)
    assert not measured("data:application/pdf;base64," + "A" * 200_000)


@pytest.mark.parametrize(
    ("window", "max_tokens", "room"), [(8192, None, 7168), (1000, None, 750), (8192, 2000, 6192), (1000, 4000, 500)]
)
def test_the_answer_has_its_part_of_the_window(window: int, max_tokens: int | None, room: int) -> None:
    request = Request("m", (), Sampling(max_tokens=max_tokens))
    assert fit(request, 10, window).room == room


def test_note_stands_in_front_of_the_first_words_of_the_user() -> None:
    request = noted(Request("m", (said("system", "s"), said("user", "u"))), "note ")
    assert [message.text for message in request.messages] == ["s", "note u"]
    assert [message.role for message in noted(Request("m", (said("assistant", "a"),)), "n").messages] == [
        "user",
        "assistant",
    ]


CONVERSATION = (
    said("user", "My name is Lucía and I live in Sevilla. The weather is nice. Our wedding is on 14 June."),
    said("assistant", "Congratulations! Sure. Shall we look for a place for the wedding in Sevilla?"),
    said("tool", "secret tool output about the wedding"),
    said("user", "Sí. El presupuesto de la boda es de 12000 euros. Vale."),
)


def test_summary_keeps_what_was_said_most_and_who_said_it() -> None:
    told = summary(CONVERSATION, 60)
    assert "User: My name is Lucía and I live in Sevilla." in told
    assert "User: El presupuesto de la boda es de 12000 euros." in told
    assert "secret" not in told and "Vale" not in told
    assert told.index("Lucía") < told.index("presupuesto")


@given(conversations(), st.floats(0, 200))
def test_summary_keeps_to_its_size_and_is_always_the_same(messages: tuple[Message, ...], most: float) -> None:
    told = summary(messages, most)
    assert weigh(Request("m", (said("user", told),))) <= most + 4 + 2 * told.count("\n") + 4
    assert told == summary(messages, most)


def test_summary_of_nothing_is_empty() -> None:
    assert summary((), 100) == ""
    assert summary((said("user", "  \n "),), 100) == ""
    assert summary(CONVERSATION, 0) == ""
