"""The native wire's frames and answers where JSON was asked for."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Refusal, Restart, Status, Text
from cauce.domain.message import TextPart
from cauce.domain.request import ResponseFormat
from cauce.domain.usage import Usage
from cauce.wire.native.answer import Facts, render_answer
from cauce.wire.native.decode import NativeDecoder
from cauce.wire.native.frames import NativeProjector, StructuredProjector, projector
from cauce.wire.native.partial import GROWTH, MAX_TEXT, STEP, PartialJSON, whole

END = Finish("stop", Usage(1, 2))
OPENING: list[Delta] = [Status("accepted"), Attempt(1, "up", "m", "primary")]

json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=12)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def frames(raw: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: ")]


def pieces(text: str, size: int) -> list[Delta]:
    return [Text(text[place : place + size]) for place in range(0, len(text), size)]


def test_content_carries_what_is_there_so_far_and_the_end_carries_the_whole() -> None:
    text = '{"city": "Sevilla", "sights": ["Giralda", "Alcázar", "Plaza de España"], "note": "' + "x" * 100 + '"}'
    shown = frames(StructuredProjector("s").feed([*pieces(text, 20), END]))
    partials = [frame["partial"] for frame in shown if "partial" in frame]
    sights = ["Giralda", "Alcázar", "Plaza de España"]
    notes = [partial["note"] for partial in partials if "note" in partial]
    assert len(notes) == 2 and notes[1].startswith(notes[0]) and set(notes[1]) == {"x"}
    assert partials[0] == {"city": "Sevilla"} and partials[1]["sights"] == sights
    assert "".join([frame["data"] for frame in shown if frame["type"] == "content"]) == text
    assert shown[-1]["type"] == "complete" and shown[-1]["data"] == text
    assert shown[-1]["parsed"] == msgspec.json.decode(text)


def test_text_that_is_no_json_has_nothing_beside_it() -> None:
    shown = frames(StructuredProjector("s").feed([Text("Once upon "), Text("a time"), END]))
    assert not any(["partial" in frame or "parsed" in frame for frame in shown])


def test_refusal_and_reasoning_are_no_part_of_the_json() -> None:
    shown = frames(StructuredProjector("s").feed([Reasoning("{"), Refusal("No."), Text("{}"), END]))
    assert [frame.get("partial") for frame in shown] == [None, None, {}, None]


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (None, NativeProjector),
        (ResponseFormat("text"), NativeProjector),
        (ResponseFormat("json_object"), StructuredProjector),
        (ResponseFormat("json_schema", "n", {}), StructuredProjector),
    ],
)
def test_only_requests_for_json_have_it(wanted: ResponseFormat | None, kind: type[NativeProjector]) -> None:
    assert type(projector("s", wanted)) is kind


@given(json, st.integers(1, 9), st.integers(0, 30), st.integers(1, 16))
def test_resumed_reader_gets_the_same_bytes_as_one_that_never_left(
    value: Any, size: int, after: int, batch: int
) -> None:
    deltas = [*OPENING, *pieces(msgspec.json.encode(value).decode(), size), END]
    after = min(after, len(deltas))
    entire = StructuredProjector("s").feed(deltas)
    resumed = StructuredProjector("s", after=after)
    rest = b"".join([resumed.feed(deltas[place : place + batch]) for place in range(0, len(deltas), batch)])
    assert entire.endswith(rest)
    assert rest.count(b"\ndata: ") == len(deltas) - after


@given(json, st.integers(1, 9))
def test_frames_without_what_stands_beside_are_those_of_text(value: Any, size: int) -> None:
    deltas = [*OPENING, *pieces(msgspec.json.encode(value).decode(), size), END]
    structured, plain = StructuredProjector("s").feed(deltas), NativeProjector("s").feed(deltas)
    assert NativeDecoder().feed(structured) == NativeDecoder().feed(plain) == deltas
    stripped = [
        {name: value for name, value in frame.items() if name not in ("partial", "parsed")}
        for frame in frames(structured)
    ]
    assert stripped == frames(plain)


@given(json, st.integers(1, 9))
def test_whole_value_stands_in_the_last_frame(value: Any, size: int) -> None:
    last = frames(StructuredProjector("s").feed([*pieces(msgspec.json.encode(value).decode(), size), END]))[-1]
    assert last.get("parsed") == value


@given(st.lists(st.text('{}[]",:0 1eEtrun\\u\ud7ff\u2028é', max_size=5), max_size=12))
def test_no_text_ends_in_an_error(texts: list[str]) -> None:
    raw = StructuredProjector("s").feed([*[Text(text) for text in texts], END])
    assert len(raw.decode().splitlines()) == 3 * (len(texts) + 1)
    assert "".join([frame["data"] for frame in frames(raw)[:-1]]) == "".join(texts)


def test_looks_read_a_long_text_a_bounded_number_of_times() -> None:
    partial, looked, size = PartialJSON(), 0, 0
    piece = '{"a": "lorem ipsum"},'
    partial.feed(0, "[")
    for seq in range(1, 5_000):
        size += len(piece)
        if partial.feed(seq, piece):
            looked += size
    assert looked <= (GROWTH + 2) * size + 1024 * 1024 // STEP


def test_no_more_looks_are_taken_at_a_text_that_is_too_long() -> None:
    partial = PartialJSON()
    assert partial.feed(1, '["') == b'[""]'
    assert partial.feed(2, "x" * (MAX_TEXT - 2)) != b""
    assert partial.feed(3, "y" * MAX_TEXT) == b""


def test_what_is_replaced_is_forgotten() -> None:
    deltas = [Text('{"a": "'), Text("old"), Restart(2, "it broke"), Text('new"}'), END]
    shown = frames(StructuredProjector("s").feed(deltas))
    assert [frame.get("partial") for frame in shown] == [{"a": ""}, None, None, {"a": "new"}, None]


@pytest.mark.parametrize("text", ["", "x", '{"a": 1', "1e999", "[" * 2_000 + "]" * 2_000, "null"])
def test_what_is_no_whole_value_is_none(text: str) -> None:
    assert whole(text) is None


def test_deepest_value_that_can_be_read_can_be_written() -> None:
    for levels in range(900, 1_100):
        value = whole("[" * levels + "]" * levels)
        assert value is None or msgspec.json.encode({"parsed": value})


@pytest.mark.parametrize(
    ("structured", "text", "parsed"), [(True, '{"a": 1}', {"a": 1}), (True, "no", None), (False, '{"a": 1}', None)]
)
def test_plain_answer_carries_the_value_where_json_was_asked_for(structured: bool, text: str, parsed: Any) -> None:
    completion = Completion((Choice((TextPart(text),)),), Usage(1, 2))
    facts = Facts("s", [Attempt(1, "up", "m", "primary")], 0.1, structured=structured)
    answer = msgspec.json.decode(render_answer(completion, facts))
    assert answer["response"] == text and answer.get("parsed") == parsed
