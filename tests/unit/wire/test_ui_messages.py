"""The wire of the AI SDK's UI messages in both directions."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
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
    ToolResult,
)
from cauce.domain.errors import InvalidRequest
from cauce.domain.message import DocumentPart, ImagePart, Message, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.request import ReasoningOptions, Request
from cauce.domain.signature import Signature
from cauce.domain.stream import Head, Record, StreamKey
from cauce.domain.tool import Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.wire.numbering import Cursor, Numbered
from cauce.wire.ui_messages.parts import BROKEN_OFF
from cauce.wire.ui_messages.render import UIProjector, projector_of
from cauce.wire.ui_messages.request import Posted, parse_post, parse_stop
from tests.unit.wire.ui_reader import Reader

encode = msgspec.json.encode

ACCEPTED = Status("accepted", facts={"model": "auto", "created": 1_700_000_000})
ASKED = Attempt(1, "up", "m", "primary")
DONE = Finish("stop", Usage(3, 4))
PROOF = Signature("anthropic_messages", "sig==")


def shown(*deltas: Delta) -> Reader:
    return Reader().read(UIProjector("c:1", "c:1").feed((ACCEPTED, ASKED, *deltas)))


def call(call_id: str, arguments: str, *, name: str = "look", index: int = 0) -> list[Delta]:
    half = len(arguments) // 2
    return [
        ToolCall(index, call_id, name, ""),
        ToolCall(index, call_id, name, arguments[:half]),
        ToolCall(index, call_id, name, arguments[half:]),
        ToolCall(index, call_id, name, arguments, "ready"),
    ]


def test_text_comes_in_one_part_of_a_step_of_a_message() -> None:
    read = shown(Text("río "), Text("🌊"), DONE)
    assert read.id == "c:1" and read.finish == "stop" and read.done and read.error is None
    assert read.parts == [{"type": "step-start"}, {"type": "text", "text": "río 🌊", "state": "done"}]
    assert read.kinds == [
        *("start", "data-status", "start-step", "text-start", "text-delta", "text-delta", "text-end", "finish-step"),
        "finish",
    ]


def test_metadata_says_at_the_end_what_the_answer_was_and_at_its_beginning_which() -> None:
    begun = Reader().read(UIProjector("c:1", "c:1").feed((ACCEPTED,)))
    assert begun.metadata == {"stream_id": "c:1", "model": "auto", "created": 1_700_000_000}
    told = shown(Text("a"), DONE).metadata
    assert (told["provider"], told["model"], told["level"]) == ("up", "up/m", "primary")
    assert told["usage"]["input_tokens"] == 3 and told["usage"]["output_tokens"] == 4
    assert (told["outcome"], told["finish_reason"], told["cost_source"]) == ("completed", "stop", "unpriced")
    assert told["attempts"] == [{"provider": "up", "model": "m", "level": "primary"}] and "restarted" not in told


def test_parts_follow_each_other_in_the_order_they_came() -> None:
    read = shown(
        Reasoning("hm"),
        Reasoning("", PROOF),
        Text("a"),
        *call("c1", '{"x": 1}'),
        Text("b"),
        Text("c", begins=True),
        Refusal("no"),
        Finish("tool_calls"),
    )
    assert [part["type"] for part in read.parts[1:]] == ["reasoning", "text", "tool-look", "text", "text", "text"]
    assert [part.get("text") for part in read.parts[1:]] == ["hm", "a", None, "b", "c", "no"]
    assert all(part["state"] == "done" for part in read.parts if part["type"] in ("text", "reasoning"))
    assert read.tools[0]["state"] == "input-available" and read.tools[0]["input"] == {"x": 1}
    assert read.tools[0]["written"] == '{"x": 1}' and read.finish == "tool-calls"


def test_calls_side_by_side_and_their_results() -> None:
    first, second = call("c1", '{"a":1}'), call("c2", "", index=1, name="list")
    mixed = [delta for pair in itertools.zip_longest(first, second) for delta in pair if delta is not None]
    read = shown(
        *mixed,
        ToolResult("c1", "look", '{"seen": true}'),
        ToolResult("c2", "list", "", error="it is down"),
        ToolResult("c3", "other", "of a call that nobody was shown"),
        Attempt(2, "up", "m", "primary", step=2),
        Text("So."),
        DONE,
    )
    one, two = read.tools
    assert (one["state"], one["input"], one["output"]) == ("output-available", {"a": 1}, {"seen": True})
    assert (two["state"], two["input"], two["errorText"]) == ("output-error", {}, "it is down")
    assert [part["type"] for part in read.parts].count("step-start") == 2 and read.text == "So."


def test_abandoned_call_is_told_and_the_next_attempt_has_its_own() -> None:
    read = shown(
        ToolCall(0, "c1", "look", '{"a"'),
        ToolCall(0, "c1", "look", '{"a"', "abandoned"),
        Attempt(2, "other", "m", "fallback", reason="it broke", reason_code="provider_error"),
        ToolCall(0, "c1", "look", "late"),
        *call("c2", '{"a":2}'),
        Finish("tool_calls"),
    )
    broken, made = read.tools
    assert (broken["state"], broken["input"], broken["errorText"]) == ("output-error", None, BROKEN_OFF)
    assert (made["toolCallId"], made["input"]) == ("c2", {"a": 2})
    assert read.transient[-1]["status"] == "retrying" and read.transient[-1]["error_code"] == "provider_error"


def test_call_that_never_ended_does_not_stay_open() -> None:
    for end in (
        Finish("cancelled", outcome="cancelled"),
        Finish("error", outcome="failed", error=Failed("timeout", "no")),
    ):
        (broken,) = shown(ToolCall(0, "c1", "look", '{"a"'), end).tools
        assert broken["state"] == "output-error"


def test_call_whose_name_comes_late_is_shown_with_what_came_before() -> None:
    (made,) = shown(
        ToolCall(0, "", "", '{"a"'),
        ToolCall(0, "c1", "look", ": 1}"),
        ToolCall(0, "c1", "look", '{"a": 1}', "ready"),
        DONE,
    ).tools
    assert made["written"] == '{"a": 1}' and made["input"] == {"a": 1}


@pytest.mark.parametrize("arguments", ['{"a": ', "[" * 100_000, '"\\ud800"'])
def test_arguments_that_are_no_json_are_an_error_of_their_call(arguments: str) -> None:
    (wrong,) = shown(ToolCall(0, "c1", "look", arguments), ToolCall(0, "c1", "look", arguments, "ready"), DONE).tools
    assert wrong["state"] == "output-error" and wrong["input"] == arguments


def test_sources_are_told_once() -> None:
    page, book = Citation("https://a.example/x", "A"), Citation(None, "A book")
    read = shown(Text("a"), page, Text("b"), page, book, Citation(), DONE)
    sources = [part for part in read.parts if part["type"].startswith("source")]
    assert [(part["type"], part["sourceId"], part["title"]) for part in sources] == [
        ("source-url", "source-1", "A"),
        ("source-document", "source-2", "A book"),
    ]
    assert read.text == "ab" and read.kinds.count("text-start") == 1


def test_status_is_no_part_of_the_message() -> None:
    read = shown(
        Status("waiting", "third in line", {"place": 3}), Text("a"), Status("seam", "", {"dropped": 2}), Text("b"), DONE
    )
    assert [told["status"] for told in read.transient] == ["attempt", "waiting", "seam"]
    assert read.transient[1] == {"status": "waiting", "detail": "third in line", "place": 3}
    assert read.text == "ab" and read.kinds.count("text-start") == 1


def test_reasoning_of_two_attempts_is_not_joined() -> None:
    read = shown(
        Reasoning("one"), Attempt(2, "up", "m", "primary", reason="it broke"), Reasoning("two"), Text("a"), DONE
    )
    assert [part["text"] for part in read.parts if part["type"] == "reasoning"] == ["one", "two"]


def test_failure_is_an_error_after_everything_that_is_known() -> None:
    failed = Failed("overloaded", "it is too busy", 7.0)
    for outcome in ("failed", "incomplete"):
        read = shown(Text("a"), Finish("error", Usage(1, 1), outcome=outcome, error=failed))
        assert (read.error, read.finish, read.text) == ("it is too busy", None, "a")
        assert (read.metadata["outcome"], read.metadata["error_code"], read.metadata["retry_after"]) == (
            outcome,
            "overloaded",
            7.0,
        )
    assert shown(Finish("error", outcome="failed", error=failed)).kinds[-2:] == ["message-metadata", "error"]


def test_cancelled_answer_is_aborted_with_what_it_came_to() -> None:
    read = shown(Text("a"), Finish("cancelled", Usage(5, 1), outcome="cancelled"))
    assert read.aborted and read.error is None and read.finish is None and read.done
    assert read.metadata["usage"]["input_tokens"] == 5 and read.parts[-1]["state"] == "done"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [("", "cancelled"), ("requested", "cancelled"), ("abandoned", "abandoned"), ("unattended", "unattended")],
)
def test_cancelled_answer_says_why(cause: str, reason: str) -> None:
    raw = UIProjector("s").feed([Text("a"), Finish("cancelled", Usage(), outcome="cancelled", cause=cause)])
    assert b'{"type":"abort","reason":"%b"}' % reason.encode() in raw


def test_restart_takes_back_what_the_step_has_shown() -> None:
    read = shown(
        Text("wrong "), Text("way"), Citation("https://a.example"), Restart(3, "it broke"), Text("right"), DONE
    )
    assert read.text == "right" and read.metadata["restarted"] is True
    assert [part["type"] for part in read.parts] == ["step-start", "text"]
    assert read.transient[-1] == {"status": "restart", "detail": "it broke", "from_seq": 3}
    # Nothing was shown: there is nothing to be taken back.
    assert "reset-step" not in shown(Restart(3, "it broke"), Text("right"), DONE).kinds


def test_restart_keeps_the_steps_before_and_what_stands_before_it() -> None:
    result, again = ToolResult("c1", "look", "seen"), Attempt(2, "up", "m", "primary", step=2)
    deltas = [Text("I look. "), *call("c1", "{}"), result, again]
    first = 3 + len(deltas)
    read = shown(*deltas, Text("so "), Text("wrong"), Restart(first + 1, "it broke"), Text("right"), DONE)
    assert read.text == "I look. so right" and read.tools[0]["output"] == "seen"
    assert shown(*deltas, Text("wrong"), Restart(first, "it broke"), Text("right"), DONE).text == "I look. right"


def test_restart_takes_back_calls_and_sources_as_well() -> None:
    source = Citation("https://a.example", "A")
    made = call("c1", '{"a":1}')
    read = shown(
        source, *made, Restart(3, "it broke"), ToolResult("c1", "look", "of a call taken back"), source, *made, DONE
    )
    assert [part["type"] for part in read.parts] == ["step-start", "source-url", "tool-look"]
    assert read.tools[0]["state"] == "input-available"
    # Back to the last piece: the pieces before it stay, and the call has yet to end.
    read = shown(*made, Restart(6, "it broke"), made[-1], DONE)
    assert [(part["state"], part["written"]) for part in read.tools] == [("input-available", '{"a":1}')]


def test_result_of_an_earlier_step_is_shown_after_a_restart() -> None:
    again = Attempt(2, "up", "m", "primary", step=2)
    read = shown(
        *call("c1", "{}"), again, Text("wrong"), Restart(8, "it broke"), ToolResult("c1", "look", "seen"), DONE
    )
    assert read.tools[0]["output"] == "seen" and read.text == ""


words = st.text(alphabet="añ🌊\u2028\n ", min_size=1, max_size=6)
contents = st.one_of(
    st.builds(Text, words, begins=st.booleans()),
    st.builds(Reasoning, words),
    st.builds(Refusal, words),
    st.builds(lambda word: Status("waiting", word), words),
    st.builds(lambda n: Citation(f"https://a.example/{n}", "t"), st.integers(0, 2)),
    st.builds(lambda step: Attempt(2, "up", "m", "fallback", step=step), st.integers(1, 3)),
    st.just(Opaque("gemini", {"a": 1})),
    st.just(Text("of a second choice", 1)),
    st.tuples(st.sampled_from(["{}", '{"a": "ñ"}', "", "[1"]), st.sampled_from(["ready", "abandoned", None])),
    st.integers(0, 8),
)
ends = st.sampled_from(
    [
        DONE,
        Finish("length"),
        Finish("cancelled", outcome="cancelled"),
        Finish("error", outcome="incomplete", error=Failed("timeout", "too late")),
    ]
)


def built(given: Sequence[Any], end: Finish) -> list[Delta]:
    """Deltas of a stream. Numbers are how far a restart goes back, pairs are calls."""
    deltas: list[Delta] = [ACCEPTED]
    for number, one in enumerate(given):
        match one:
            case int():
                deltas.append(Restart(max(2, len(deltas) + 1 - one), "anew"))
            case (arguments, mark):
                whole = call(f"c{number}", arguments, index=number)
                if mark is None:
                    whole = whole[:2]
                elif mark == "abandoned":
                    whole[-1] = ToolCall(number, f"c{number}", "look", arguments, "abandoned")
                deltas.extend(whole)
            case _:
                deltas.append(one)
    return [*deltas, end]


def left(deltas: Sequence[Delta]) -> tuple[str, str]:
    """Text and reasoning that a reader has in the end, by the words of the records: a restart goes back within its step."""
    texts: list[tuple[int, str, str]] = []
    begun = step = 1
    for seq, delta in enumerate(deltas, 1):
        match delta:
            case Text(text, 0) | Refusal(text):
                texts.append((seq, "text", text))
            case Reasoning(text):
                texts.append((seq, "reasoning", text))
            case Attempt() if delta.step != step:
                begun, step = seq, delta.step
            case Restart(from_seq):
                texts = [one for one in texts if one[0] < max(begun, from_seq)]
            case _:
                pass
    return tuple(["".join([text for _, kind, text in texts if kind == wanted]) for wanted in ("text", "reasoning")])  # type: ignore[return-value]


@given(st.lists(contents, max_size=12), ends)
def test_reader_has_in_the_end_what_the_records_say(given: list[Any], end: Finish) -> None:
    deltas = built(given, end)
    read = Reader().read(UIProjector("c:1", "c:1").feed(deltas))
    assert (read.text, read.reasoning) == left(deltas)
    assert read.done and all(part.get("state") not in ("streaming", "input-streaming") for part in read.parts)
    assert (read.error, read.aborted, read.finish is not None) == (
        end.error.message if end.error is not None else None,
        end.outcome == "cancelled",
        end.outcome == "completed",
    )


@given(st.lists(contents, max_size=12), ends, st.integers(1, 5))
def test_chunks_are_the_same_whatever_the_batches(given: list[Any], end: Finish, size: int) -> None:
    deltas = built(given, end)
    projector = UIProjector("c:1")
    batches = [projector.feed(deltas[place : place + size]) for place in range(0, len(deltas), size)]
    assert b"".join(batches) == UIProjector("c:1").feed(deltas)


@given(st.lists(contents, max_size=8), ends)
def test_reader_that_resumes_at_any_chunk_gets_exactly_the_rest(given: list[Any], end: Finish) -> None:
    records = [Record(seq, 1, delta) for seq, delta in enumerate(built(given, end), 1)]
    whole = Numbered(UIProjector("c:1")).feed(records)
    frames = [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]
    for place, frame in enumerate(frames):
        seq, _, part = frame[4 : frame.index(b"\n")].partition(b".")
        cursor = Cursor(int(seq), int(part or 0))
        assert Numbered(UIProjector("c:1"), cursor).feed(records) == b"".join(frames[place + 1 :])


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029", "\n", "\r", '"', "\\"])
def test_every_character_stays_on_its_line(character: str) -> None:
    raw = UIProjector("c:1").feed([Text("a"), Text(f"b{character}c")])
    assert len([line for line in raw.decode().splitlines() if line]) == raw.count(b"data: ")
    assert Reader().read(raw).text == f"ab{character}c"


def head(*messages: Message) -> Head:
    return Head(StreamKey("p", "c:1"), Request("m", messages), b"", 0.0, "running", 1, 1)


def test_answer_goes_on_in_the_message_that_has_the_call() -> None:
    question = Message("user", (TextPart("hi"),))
    result = Message("tool", (TextPart("seen"),), call_id="c1")
    assert Reader().read(projector_of(head(question)).feed((ACCEPTED,))).id == "c:1"
    assert b"messageId" not in projector_of(head(question, result)).feed((ACCEPTED,))


SAID = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}


def posted(*messages: Any, **fields: Any) -> Posted:
    return parse_post(encode({"id": "c", "messages": list(messages or [SAID]), **fields}))


def asked(*messages: Any, **fields: Any) -> tuple[Message, ...]:
    return posted(*messages, **fields).request.messages


def assistant(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "m2", "role": "assistant", "parts": list(parts)}


def test_what_the_transport_posts_is_a_request() -> None:
    got = posted(trigger="submit-message", messageId=None, sessionId="ours alone")
    assert got.chat == "c" and got.request.stream and got.request.model == ""
    assert got.request.messages == (Message("user", (TextPart("hi"),)),)


def test_fields_that_a_page_puts_beside_the_messages_say_how_to_answer() -> None:
    request = posted(
        model="fast",
        system="Be brief.",
        temperature=0.5,
        max_tokens=9,
        reasoning_effort="low",
        tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        tool_choice="required",
        metadata={"a": 1},
    ).request
    assert request.messages[0] == Message("system", (TextPart("Be brief."),))
    assert (request.model, request.sampling.temperature, request.sampling.max_tokens) == ("fast", 0.5, 9)
    assert request.tools == (Tool("look", None, {"type": "object"}),) and request.tool_choice == ToolChoice("required")
    assert request.reasoning == ReasoningOptions("low") and request.metadata == {"a": 1}


def test_tools_may_stand_under_their_names() -> None:
    schema = {"type": "object"}
    tools = {"look": {"description": "d", "parameters": schema}, "list": {"inputSchema": schema}, "stop": {}}
    assert posted(tools=tools).request.tools == (Tool("look", "d", schema), Tool("list", None, schema), Tool("stop"))


def test_files_of_a_person_are_images_or_documents() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA", "filename": "a.png"},
        {"type": "file", "mediaType": "image", "url": "https://a.example/b"},
        {
            "type": "file",
            "mediaType": "application/pdf",
            "url": "data:application/pdf;base64,AAAA",
            "filename": "c.pdf",
        },
        {"type": "file", "mediaType": "text/*", "url": "data:text/plain,x"},
        {"type": "data-weather", "data": {"sky": "clear"}},
    ]
    (message,) = asked({"id": "m", "role": "user", "parts": parts})
    assert message.parts == (
        TextPart("see"),
        ImagePart("data:image/png;base64,AAAA"),
        ImagePart("https://a.example/b"),
        DocumentPart("data:application/pdf;base64,AAAA", "application/pdf", "c.pdf"),
        DocumentPart("data:text/plain,x"),
    )


def tool(state: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool-look", "toolCallId": "c1", "state": state, "input": {"a": 1}, **fields}


@pytest.mark.parametrize(
    ("part", "content", "failed"),
    [
        (tool("output-available", output={"sky": "clear"}), '{"sky":"clear"}', False),
        (tool("output-available", output="clear"), "clear", False),
        (tool("output-available"), "null", False),
        (tool("output-error", errorText="it is down"), "it is down", True),
        (tool("output-denied", approval={"id": "a", "approved": False, "reason": "too dear"}), "too dear", True),
        (
            tool("approval-responded", approval={"id": "a", "approved": False}),
            "The user did not allow this call.",
            True,
        ),
        (tool("output-error", input=None, rawInput='{"a":1}', errorText="no"), "no", True),
        ({**tool("output-available", output="x"), "type": "dynamic-tool", "toolName": "look"}, "x", False),
    ],
)
def test_call_is_followed_by_what_it_gave(part: dict[str, Any], content: str, failed: bool) -> None:
    _, said, result = asked(SAID, assistant({"type": "step-start"}, part))
    assert said.parts == (ToolCallPart("c1", "look", '{"a":1}'),)
    assert result == Message("tool", (TextPart(content),), call_id="c1", failed=failed)


@pytest.mark.parametrize(
    "part",
    [
        tool("input-streaming"),
        tool("input-available"),
        tool("approval-requested", approval={"id": "a"}),
        tool("approval-responded", approval={"id": "a", "approved": True}),
        tool("output-error", input=None, errorText=BROKEN_OFF),
        {"type": "tool-look", "state": "output-error", "toolCallId": "c1", "errorText": BROKEN_OFF},
        {"type": "source-url", "sourceId": "s", "url": "https://a.example"},
        {"type": "text", "text": ""},
        {"type": "of-tomorrow", "text": "x"},
    ],
)
def test_what_no_model_takes_is_left_out(part: dict[str, Any]) -> None:
    assert asked(SAID, assistant({"type": "step-start"}, part), SAID) == asked(SAID, SAID)


def test_steps_of_a_message_are_turns() -> None:
    step = {"type": "step-start"}
    found = asked(
        SAID,
        assistant(
            step,
            {"type": "text", "text": "I look."},
            tool("output-available", output="1"),
            step,
            {"type": "steering-message", "id": "s", "parts": [{"type": "text", "text": "hurry"}]},
            {"type": "text", "text": "So."},
        ),
    )
    assert [message.role for message in found] == ["user", "assistant", "tool", "user", "assistant"]
    assert found[3].text == "hurry" and found[4].text == "So."


def test_message_that_was_shown_comes_back_as_it_was_made() -> None:
    sealed = Signature("gemini", "thought==")
    read = shown(
        Reasoning("hm", PROOF),
        Text("I look."),
        ToolCall(0, "c1", "look", '{"a":1}', signature=sealed),
        ToolCall(0, "c1", "look", '{"a":1}', "ready", signature=sealed),
        ToolResult("c1", "look", "seen"),
        Attempt(2, "up", "m", "primary", step=2),
        Refusal("I will not say."),
        DONE,
    )
    _, first, result, second = asked(SAID, read.body())
    assert first.parts == (
        ReasoningPart("hm", PROOF),
        TextPart("I look."),
        ToolCallPart("c1", "look", '{"a":1}', signature=sealed),
    )
    assert result.text == "seen" and second.parts == (RefusalPart("I will not say."),)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({"id": 5, "messages": [SAID]}, "id"),
        ({"id": "c"}, "messages"),
        ({"id": "c", "messages": []}, "messages"),
        ({"id": "c", "messages": [{"role": "user", "content": "hi"}]}, "messages[0].parts"),
        ({"id": "c", "messages": [{"role": "tool", "parts": []}]}, "messages[0].role"),
        ({"id": "c", "messages": [{"role": "user", "parts": []}]}, "messages[0].parts"),
        ({"id": "c", "messages": [{"role": "user", "parts": [{"text": "x"}]}]}, "messages[0].parts[0].type"),
        ({"id": "c", "messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "messages[0].parts[0].text"),
        (
            {
                "id": "c",
                "messages": [{"role": "user", "parts": [{"type": "file", "url": "blob:x", "mediaType": "image/png"}]}],
            },
            "messages[0].parts[0].url",
        ),
        ({"id": "c", "messages": [SAID, assistant({"text": "x"})]}, "messages[1].parts[0].type"),
        ({"id": "c", "messages": [SAID], "tools": {"": {}}}, "tools"),
        ({"id": "c", "messages": [SAID], "temperature": 3}, "temperature"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_post(encode(body))
    assert refused.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
PARTS = st.dictionaries(
    st.sampled_from(
        ["type", "text", "toolCallId", "state", "input", "output", "url", "approval", "providerMetadata", "parts"]
    ),
    st.sampled_from(["text", "file", "tool-x", "dynamic-tool", "steering-message", "output-available", "output-error"])
    | JSON,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"]), "parts": st.lists(PARTS, max_size=4)}
        )
    )
)
def test_no_message_is_more_than_refused(messages: list[Any]) -> None:
    try:
        found = asked(*messages, SAID)
    except InvalidRequest:
        return
    calls = [part.call_id for message in found for part in message.parts if isinstance(part, ToolCallPart)]
    assert calls == [message.call_id for message in found if message.role == "tool"]


def test_stop_may_name_the_stream() -> None:
    assert parse_stop(b"") is None and parse_stop(b"{}") is None and parse_stop(b'{"stream_id":"c:1"}') == "c:1"
    with pytest.raises(InvalidRequest):
        parse_stop(b'{"stream_id":5}')
