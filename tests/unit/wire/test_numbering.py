"""Numbers on frames: a reader that is cut off anywhere gets exactly the rest, on each wire."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Restart, Status, Text, ToolCall
from cauce.domain.stream import Record
from cauce.domain.surviving import surviving
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.logged import LoggedMessagesProjector
from cauce.wire.numbering import Cursor, Numbered, Projector, parse_cursor
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_chat.logged import LoggedChatProjector
from cauce.wire.openai_completions.logged import LoggedCompletionProjector
from cauce.wire.sse import SSEDecoder

_HEAD = Head("stream-1", "up/m", 1_700_000_000)

MAKERS: dict[str, Callable[[], Projector]] = {
    "chat": lambda: LoggedChatProjector(_HEAD, include_usage=True),
    "completions": lambda: LoggedCompletionProjector(_HEAD, include_usage=True),
    "anthropic": lambda: LoggedMessagesProjector("stream-1", "up/m", input_tokens=9, thinking=True),
}

ANSWER: list[Delta] = [
    Status("accepted", facts={"model": "up/m"}),
    Attempt(1, "up", "m", "primary"),
    Reasoning("Let me look."),
    Text("río "),
    Text("arriba\u2028"),
    ToolCall(0, "call_a", "look", '{"x"'),
    ToolCall(0, "call_a", "look", "", "abandoned"),
    Attempt(2, "two", "m", "fallback", reason="reset"),
    ToolCall(1, "call_b", "look", '{"x"'),
    ToolCall(1, "call_b", "look", ": 1}"),
    ToolCall(1, "call_b", "look", '{"x": 1}', "ready"),
    Finish("tool_calls", Usage(7, 5)),
]


def logged(deltas: Sequence[Delta]) -> list[Record]:
    return [Record(seq, 1, delta) for seq, delta in enumerate(deltas, 1)]


def ids(frames: bytes) -> list[str]:
    return [line.removeprefix("id: ") for line in frames.decode().split("\n") if line.startswith("id: ")]


def blocks(frames: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in frames.split(b"\n\n")[:-1]]


@pytest.mark.parametrize("wire", MAKERS)
def test_reader_cut_after_any_frame_gets_exactly_the_rest(wire: str) -> None:
    records = logged(ANSWER)
    frames = blocks(Numbered(MAKERS[wire]()).feed(records))
    assert len(frames) >= 4
    for place, frame in enumerate(frames, 1):
        (last,) = ids(frame)
        cursor = parse_cursor(last)
        assert cursor is not None
        assert Numbered(MAKERS[wire](), cursor).feed(records) == b"".join(frames[place:])


@pytest.mark.parametrize("wire", MAKERS)
@given(cuts=st.lists(st.integers(1, len(ANSWER)), max_size=6))
def test_frames_do_not_depend_on_how_records_are_read(wire: str, cuts: list[int]) -> None:
    records = logged(ANSWER)
    places = sorted({0, len(records), *cuts})
    numbered = Numbered(MAKERS[wire]())
    pieces = [numbered.feed(records[start:end]) for start, end in itertools.pairwise(places)]
    assert b"".join(pieces) == Numbered(MAKERS[wire]()).feed(records)
    assert numbered.seq == len(records)


def test_the_last_frame_of_a_record_has_its_number_and_the_others_a_place_in_it() -> None:
    frames = Numbered(MAKERS["anthropic"]()).feed(logged(ANSWER[:4] + ANSWER[-1:]))
    numbers = ids(frames)
    assert numbers[0] == "1" and numbers[-1] == "5" and "5.1" in numbers
    assert [number.partition(".")[0] for number in numbers] == sorted(number.partition(".")[0] for number in numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("wire", MAKERS)
def test_every_block_has_data_and_only_the_first_says_when_to_come_back(wire: str) -> None:
    frames = blocks(Numbered(MAKERS[wire]()).feed(logged(ANSWER)))
    assert all(b"data: " in frame for frame in frames)
    assert [b"retry: 1000\n" in frame for frame in frames] == [True] + [False] * (len(frames) - 1)
    assert len(SSEDecoder().feed(b"".join(frames))) == len(frames)


def test_cursor_inside_a_record_that_is_one_frame_here_loses_nothing_of_it() -> None:
    records = logged([Status("accepted"), Text("a"), Text("b"), Finish("stop")])
    resumed = Numbered(MAKERS["chat"](), Cursor(2, 1)).feed(records)
    assert resumed == Numbered(MAKERS["chat"](), Cursor(1)).feed(records)


@pytest.mark.parametrize("wire", MAKERS)
@given(place=st.integers(1, len(ANSWER)), frame=st.integers(1, 999_999))
def test_no_cursor_that_a_log_can_know_hides_the_end(wire: str, place: int, frame: int) -> None:
    records = logged(ANSWER)
    frames = blocks(Numbered(MAKERS[wire]()).feed(records))
    resumed = blocks(Numbered(MAKERS[wire](), Cursor(place, frame)).feed(records))
    assert resumed and resumed == frames[-len(resumed) :]


@pytest.mark.parametrize("text", ["", "x", "-1", "1.", ".1", "1.2.3", "1.x", "9" * 40, "٣"])
def test_text_that_is_no_cursor_is_none(text: str) -> None:
    assert parse_cursor(text) is None


def test_what_a_restart_takes_back_is_gone_and_every_number_stays() -> None:
    records = logged([Status("accepted"), Text("wrong"), Restart(2, "reset"), Text("right"), Finish("stop")])
    left = surviving(records)
    assert [record.seq for record in left] == [1, 2, 3, 4, 5]
    frames = Numbered(MAKERS["chat"]()).feed(left)
    assert b"right" in frames and b"wrong" not in frames and frames.endswith(b"data: [DONE]\n\n")


def test_records_without_a_restart_are_left_as_they_are() -> None:
    records = logged(ANSWER)
    assert surviving(records) is records
