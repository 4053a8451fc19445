"""What logged streams of the chat and Anthropic wires show of each record."""

from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Delta, Failed, Finish, Restart, Status, Text, ToolCall
from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.logged import LoggedMessagesProjector
from cauce.wire.numbering import Projector
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_chat.logged import LoggedChatProjector
from cauce.wire.openai_chat.tools import AnswerStyle
from cauce.wire.openai_completions.logged import LoggedCompletionProjector
from cauce.wire.sse import SSEDecoder

HEAD = Head("s", "up/m", 1)
ACCEPTED = Status("accepted", facts={"model": "up/m"})
BROKEN = Finish("error", Usage(3, 2), outcome="incomplete", error=Failed("provider_error", "it broke"))
FAILED = Finish("error", Usage(3, 0), outcome="failed", error=Failed("overloaded", "busy"))
CANCELLED = Finish("cancelled", Usage(3, 2), outcome="cancelled")


def chat(*deltas: Delta, **settings: Any) -> list[Any]:
    return events(LoggedChatProjector(HEAD, **settings), *deltas)


def anthropic(*deltas: Delta) -> list[Any]:
    return events(LoggedMessagesProjector("s", "up/m", input_tokens=9), *deltas)


def completion(*deltas: Delta) -> list[Any]:
    return events(LoggedCompletionProjector(HEAD), *deltas)


def events(projector: Projector, *deltas: Delta) -> list[Any]:
    framed = SSEDecoder().feed(b"".join([projector.feed((delta,)) for delta in deltas]))
    return ["[DONE]" if event.data == b"[DONE]" else msgspec.json.decode(event.data) for event in framed]


def called(index: int, call_id: str, *pieces: str) -> list[Delta]:
    made: list[Delta] = [ToolCall(index, call_id, "look", piece) for piece in pieces]
    return [*made, ToolCall(index, call_id, "look", "".join(pieces), "ready")]


def test_role_chunk_comes_with_the_first_record_and_once() -> None:
    first, *rest = chat(ACCEPTED, Text("a"), Text("b"))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["delta"] for chunk in rest] == [{"content": "a"}, {"content": "b"}]


def test_message_start_comes_with_the_first_record_and_estimates_the_input() -> None:
    start, *rest = anthropic(ACCEPTED, Text("a"))
    assert start["type"] == "message_start" and start["message"]["usage"]["input_tokens"] == 9
    assert [event["type"] for event in rest] == ["content_block_start", "ping", "content_block_delta"]


def test_broken_tool_call_is_never_shown_and_the_next_has_the_first_place() -> None:
    deltas = [
        ACCEPTED,
        ToolCall(0, "call_a", "look", '{"x'),
        ToolCall(0, "call_a", "look", "", "abandoned"),
        *called(1, "call_b", '{"y"', ": 2}"),
        Finish("tool_calls", Usage(3, 2)),
    ]
    calls = [call for chunk in chat(*deltas)[:-1] for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"], call["function"]["arguments"]) for call in calls] == [(0, "call_b", '{"y": 2}')]
    blocks = [event for event in anthropic(*deltas) if event["type"].startswith("content_block")]
    assert [event["type"] for event in blocks] == ["content_block_start", "content_block_delta", "content_block_stop"]
    assert blocks[0]["content_block"]["id"] == "call_b" and blocks[1]["delta"]["partial_json"] == '{"y": 2}'


def test_calls_whose_pieces_are_mixed_each_come_whole() -> None:
    deltas: list[Delta] = [
        ACCEPTED,
        ToolCall(0, "a", "look", "{"),
        ToolCall(1, "b", "look", "{"),
        ToolCall(0, "a", "look", "}"),
        ToolCall(1, "b", "look", "}"),
        ToolCall(0, "a", "look", "{}", "ready"),
        ToolCall(1, "b", "look", "{}", "ready"),
    ]
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chat(*deltas)[1:]]
    assert [(call["index"], call["id"], call["function"]["arguments"]) for call in calls] == [
        (0, "a", "{}"),
        (1, "b", "{}"),
    ]


def test_call_of_a_custom_tool_comes_whole_as_such() -> None:
    extra = Extra("openai_chat", {"custom": "hi there"})
    deltas: list[Delta] = [
        ACCEPTED,
        ToolCall(0, "a", "say", '{"input":"hi ', extra=Extra("openai_chat", {"custom": "hi "})),
        ToolCall(0, "a", "say", 'there"}', extra=Extra("openai_chat", {"custom": "there"})),
        ToolCall(0, "a", "say", '{"input":"hi there"}', "ready", extra=extra),
    ]
    (chunk,) = chat(*deltas, style=AnswerStyle(custom=frozenset({"say"})))[1:]
    (call,) = chunk["choices"][0]["delta"]["tool_calls"]
    assert call["custom"] == {"name": "say", "input": "hi there"}


def test_fields_only_this_wire_knows_of_a_call_come_back_with_it() -> None:
    deltas: list[Delta] = [
        ACCEPTED,
        ToolCall(0, "a", "look", "{}", extra=Extra("openai_chat", {"chunk": {"fingerprint": "f"}})),
        ToolCall(0, "a", "look", "{}", "ready", extra=Extra("openai_chat", {"call": {"tag": 1}})),
    ]
    chunk = chat(*deltas)[-1]
    assert chunk["fingerprint"] == "f" and chunk["choices"][0]["delta"]["tool_calls"][0]["tag"] == 1


@pytest.mark.parametrize("end", [BROKEN, Restart(2, "reset")])
def test_answer_that_broke_off_ends_for_its_length_and_says_it_is_incomplete(end: Delta) -> None:
    *_, last, done = chat(ACCEPTED, Text("half"), end, Text("never shown"))
    assert last["choices"][0]["finish_reason"] == "length" and last["cauce"] == {"incomplete": True}
    assert done == "[DONE]"
    *_, last, done = completion(ACCEPTED, Text("half"), end, Text("never shown"))
    assert last["choices"][0]["finish_reason"] == "length" and last["cauce"] == {"incomplete": True}
    assert done == "[DONE]"
    *_, stop, delta, over = anthropic(ACCEPTED, Text("half"), end, Text("never shown"))
    assert (stop["type"], over["type"]) == ("content_block_stop", "message_stop")
    assert delta["delta"]["stop_reason"] == "max_tokens" and delta["cauce"] == {"incomplete": True}


def test_usage_of_an_incomplete_answer_is_told_where_it_was_asked_for() -> None:
    *_, usage, done = chat(ACCEPTED, Text("half"), BROKEN, include_usage=True)
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 5, "[DONE]")


@pytest.mark.parametrize(("end", "message"), [(FAILED, "busy"), (CANCELLED, "the answer was cancelled")])
def test_failed_or_cancelled_answer_ends_in_an_error_and_never_as_if_it_were_whole(end: Finish, message: str) -> None:
    for made in (chat(ACCEPTED, Text("half"), end), completion(ACCEPTED, Text("half"), end)):
        assert made[-1]["error"]["message"] == message and "[DONE]" not in made
    last = anthropic(ACCEPTED, Text("half"), end)[-1]
    assert (last["type"], last["error"]["message"]) == ("error", message)
