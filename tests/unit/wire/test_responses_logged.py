"""Responses written from a log: what is taken back, how it ends, and that every reader gets the same events from any place on."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import (
    Attempt,
    Delta,
    Failed,
    Finish,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
)
from cauce.domain.errors import Conflict
from cauce.domain.signature import Signature
from cauce.domain.stream import Record
from cauce.domain.surviving import surviving
from cauce.domain.usage import Usage
from cauce.wire.numbering import Cursor, parse_cursor
from cauce.wire.openai_responses.history import surviving_items
from cauce.wire.openai_responses.logged import LoggedProjector
from cauce.wire.openai_responses.replay import numbered, replay, tape_of
from cauce.wire.openai_responses.response import Head, echo

HEAD = Head("resp_1", 1_700_000_000, echo({"background": True}, "m"))
ACCEPTED = Status("accepted", facts={"model": "m"})
BROKEN = Attempt(2, "two", "m", "fallback", reason="reset")
DONE = Finish("stop", Usage(7, 5))


def records(deltas: Sequence[Delta]) -> list[Record]:
    return [Record(seq, 1, delta) for seq, delta in enumerate(deltas, 1)]


def blocks(frames: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in frames.split(b"\n\n")[:-1]]


def events(frames: bytes) -> list[dict[str, Any]]:
    lines = [line for line in frames.split(b"\n") if line.startswith(b"data: ")]
    return [msgspec.json.decode(line[6:]) for line in lines]


def told(*deltas: Delta, queued: bool = False) -> list[dict[str, Any]]:
    return events(LoggedProjector(HEAD, queued=queued).feed(deltas))


def text_of(response: dict[str, Any]) -> str:
    content = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join([part.get("text", "") for part in content])


TEXT = st.text(min_size=1, max_size=8)
CONTENT = st.one_of(
    st.builds(Text, TEXT, begins=st.booleans()),
    st.builds(Reasoning, TEXT),
    st.builds(Refusal, TEXT),
    st.just(Status("waiting", facts={"place": 2})),
    st.just(Opaque("openai_responses", {"item": {"type": "web_search_call", "id": "ws_1", "status": "completed"}})),
)


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Delta]:
    arguments = draw(st.sampled_from(['{"x": 1}', "{}", '{"x"']))
    mark = draw(st.sampled_from(["ready", "abandoned"]))
    signature = draw(st.sampled_from([None, Signature("gemini", "c2ln")]))
    call_id = f"call_{index}"
    first = ToolCall(index, call_id, "look", arguments[:2], signature=signature)
    rest = ToolCall(index, call_id, "look", arguments[2:])
    return [first, rest, ToolCall(index, call_id, "look", arguments if mark == "ready" else "", mark)]


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    deltas: list[Delta] = [ACCEPTED, Attempt(1, "one", "m", "primary")]
    for number in range(draw(st.integers(0, 4))):
        deltas += draw(st.lists(CONTENT, max_size=3))
        deltas += draw(st.one_of(st.just([]), calls(number)))
        if draw(st.integers(0, 4)) == 0:
            deltas += [BROKEN, Restart(1, "it broke")]
    ends = [
        DONE,
        Finish("length", Usage(7, 5)),
        Finish("cancelled", outcome="cancelled"),
        Finish("error", outcome="incomplete", error=Failed("overloaded", "busy")),
        Finish("error", outcome="failed", error=Failed("provider_error", "oops")),
    ]
    return [*deltas, draw(st.sampled_from(ends))]


@given(answers(), st.booleans())
def test_events_are_numbered_without_gaps_and_end_once(deltas: list[Delta], queued: bool) -> None:
    seen = told(*deltas, queued=queued)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    ends = {"response.completed", "response.incomplete", "response.failed"}
    assert [event["type"] in ends for event in seen] == [False] * (len(seen) - 1) + [True]
    added = [event["output_index"] for event in seen if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))
    done = {event["output_index"] for event in seen if event["type"] == "response.output_item.done"}
    assert done == set(added)


@given(answers(), st.booleans(), st.data())
def test_reader_cut_anywhere_gets_exactly_the_rest(deltas: list[Delta], queued: bool, data: st.DataObject) -> None:
    log = records(deltas)
    frames = blocks(numbered(HEAD, Cursor(), queued=queued).feed(log))
    place = data.draw(st.integers(0, len(frames) - 1))
    cursor = parse_cursor(frames[place].split(b"\n")[0].removeprefix(b"id: ").decode())
    assert cursor is not None
    rest = b"".join(frames[place + 1 :])
    cut = data.draw(st.integers(0, len(log)))
    body = b"{}"
    tape = tape_of(HEAD, deltas, queued=queued)
    for after in (cursor, place):
        reader = numbered(HEAD, after, queued=queued)
        assert reader.feed(log[:cut]) + reader.feed(log[cut:]) == rest
    assert replay(body, tape, cursor, 0) == replay(body, tape, None, place) == rest
    assert replay(body, tape, None, -1) == b"".join(frames)
    for ahead, number in ((None, len(frames)), (Cursor(len(log) + 1), -1), (Cursor(len(log) + 1, 1), -1)):
        with pytest.raises(Conflict):
            replay(body, tape, ahead, number)


@given(answers())
def test_whole_response_has_only_what_was_not_taken_back(deltas: list[Delta]) -> None:
    projector = LoggedProjector(HEAD)
    projector.feed(deltas)
    response = projector.response
    assert response is not None
    left = [record.delta for record in surviving(records(deltas))]
    assert text_of(response) == "".join([delta.text for delta in left if isinstance(delta, Text)])
    ready = [delta.call_id for delta in left if isinstance(delta, ToolCall) and delta.mark == "ready"]
    assert [item["call_id"] for item in response["output"] if item["type"] == "function_call"] == ready
    assert all("supersedes" not in item or len(item["supersedes"]) > 0 for item in response["output"])


def test_answer_that_begins_anew_takes_the_place_of_what_was_shown() -> None:
    seen = told(ACCEPTED, Reasoning("hm"), Text("old "), Text("text"), BROKEN, Restart(1, "reset"), Text("new"), DONE)
    ended = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    # The thought had ended when the text began: that it is gone is said again.
    assert [(item["type"], item.get("status")) for item in ended] == [
        ("reasoning", None),
        ("message", "incomplete"),
        ("reasoning", "incomplete"),
        ("message", "completed"),
    ]
    response = seen[-1]["response"]
    assert seen[-1]["type"] == "response.completed" and text_of(response) == "new"
    (item,) = response["output"]
    assert item == ended[-1] and item["supersedes"] == [ended[0]["id"], ended[1]["id"]]
    assert item["id"] not in item["supersedes"]


def test_call_that_was_given_up_is_incomplete_and_no_part_of_the_response() -> None:
    signature = Signature("gemini", "c2ln")
    seen = told(
        ACCEPTED,
        ToolCall(0, "call_a", "look", '{"x"', signature=signature),
        ToolCall(0, "call_a", "look", "", "abandoned"),
        BROKEN,
        ToolCall(1, "call_b", "look", "{}"),
        ToolCall(1, "call_b", "look", "{}", "ready"),
        Finish("tool_calls"),
    )
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert [(item["type"], item.get("status")) for item in done] == [
        ("reasoning", None),
        ("function_call", "incomplete"),
        ("function_call", "completed"),
    ]
    assert [item["call_id"] for item in seen[-1]["response"]["output"]] == ["call_b"]


def test_call_whose_name_never_came_leaves_nothing() -> None:
    seen = told(ACCEPTED, ToolCall(0, "call_a", "", "{"), ToolCall(0, "call_a", "", "", "abandoned"), Text("x"), DONE)
    assert [item["type"] for item in seen[-1]["response"]["output"]] == ["message"]


@pytest.mark.parametrize(
    ("first", "begun"),
    [(Attempt(1, "one", "m", "primary"), True), (Text("x"), True), (Status("waiting"), False), (DONE, False)],
)
def test_response_in_the_background_is_queued_until_somebody_is_asked(first: Delta, begun: bool) -> None:
    seen = told(ACCEPTED, first, queued=True)
    assert [event["type"] for event in seen[:2]] == ["response.created", "response.queued"]
    assert seen[0]["response"]["status"] == seen[1]["response"]["status"] == "queued"
    going = [event["response"]["status"] for event in seen if event["type"] == "response.in_progress"]
    assert going == (["in_progress"] if begun else [])


def test_answer_that_broke_after_text_is_incomplete_and_one_without_has_failed() -> None:
    error = Failed("overloaded", "the server is busy")
    seen = told(ACCEPTED, Text("so far"), Finish("error", outcome="incomplete", error=error))
    response = seen[-1]["response"]
    assert seen[-1]["type"] == "response.incomplete" and "error" not in [event["type"] for event in seen]
    assert response["status"] == "incomplete" and response["incomplete_details"] == {"reason": "interrupted"}
    assert response["error"] == {"code": "server_is_overloaded", "message": "the server is busy"}
    assert text_of(response) == "so far" and response["output"][0]["status"] == "incomplete"
    failed = told(ACCEPTED, Finish("error", outcome="failed", error=error))
    assert [event["type"] for event in failed[-2:]] == ["error", "response.failed"]


def test_conversation_goes_on_without_calls_that_broke_off() -> None:
    seen = told(ACCEPTED, Text("So: "), ToolCall(0, "c", "look", '{"x'), Finish("cancelled", outcome="cancelled"))
    output = seen[-1]["response"]["output"]
    assert [(item["type"], item["status"]) for item in output] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]
    assert surviving_items(output) == output[:1]
