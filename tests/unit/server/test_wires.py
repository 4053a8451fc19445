"""What readers of one stream share of its frames."""

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Status, Text
from cauce.domain.request import Request, ResponseFormat
from cauce.domain.stream import Head, Record, StreamKey
from cauce.server.wires import native
from cauce.wire.numbering import START, Cursor

BEGINNING: tuple[Delta, ...] = (Status("accepted"), Attempt(1, "one", "m", "primary"))


def stream(id: str = "s", response_format: ResponseFormat | None = None) -> Head:
    request = Request("m", (), response_format=response_format)
    return Head(StreamKey("default/web", id), request, b"", 0.0, "running", 1, 4)


def recorded(*deltas: Delta, after: int = 0, epoch: int = 1) -> list[Record]:
    return [Record(after + index, epoch, delta) for index, delta in enumerate(deltas, start=1)]


def test_text_is_encoded_once_for_all_readers_of_a_stream() -> None:
    first, second = native(stream(), START), native(stream(), START)
    beginning, text = recorded(*BEGINNING), recorded(Text("Hola"), Text(" ñ"), after=2)
    assert first.feed(beginning) == second.feed(beginning)
    frames = first.feed(text)
    assert second.feed(list(text)) is frames
    assert first.seq == second.seq == 4
    end = recorded(Text("!"), after=4)
    assert second.feed(end) is first.feed(end)


def test_reader_that_resumes_gets_what_it_has_not_had_and_not_what_others_were_shown() -> None:
    whole, late = native(stream(), START), native(stream(), Cursor(3), resumed=True)
    beginning, text = recorded(*BEGINNING), recorded(Text("Hola"), Text(" ñ"), after=2)
    opening = late.feed(beginning)
    assert b'"resumed":true' in opening
    whole.feed(beginning)
    frames = whole.feed(text)
    assert late.feed(text) == frames[frames.index(b"id: 4") :]


@pytest.mark.parametrize(
    "other",
    [
        recorded(Text("otra"), after=2),
        recorded(Text("Hola"), after=2, epoch=2),
        recorded(Text("Hola"), Text("!"), after=2),
    ],
    ids=["text", "epoch", "length"],
)
def test_other_records_at_the_same_place_are_rendered_anew(other: list[Record]) -> None:
    first, second = native(stream(), START), native(stream(), START)
    for projection in (first, second):
        projection.feed(recorded(*BEGINNING))
    frames = first.feed(recorded(Text("Hola"), after=2))
    alone = native(stream("another"), START)
    alone.feed(recorded(*BEGINNING))
    shown = second.feed(other)
    assert shown != frames
    assert shown == alone.feed(other).replace(b'"another"', b'"s"')


def test_streams_of_one_name_of_two_owners_share_nothing() -> None:
    theirs = msgspec.structs.replace(stream(), key=StreamKey("default/other", "s"))
    mine, other = native(stream(), START), native(theirs, START)
    for projection in (mine, other):
        projection.feed(recorded(*BEGINNING))
    text = recorded(Text("Hola"), after=2)
    assert mine.feed(text) is not other.feed(text)


def test_json_is_shown_to_each_reader_as_far_as_it_has_come() -> None:
    wanted = ResponseFormat("json_object")
    first, second = native(stream(response_format=wanted), START), native(stream(response_format=wanted), START)
    for projection in (first, second):
        projection.feed(recorded(*BEGINNING))
    text = recorded(Text('{"a": "b'), after=2)
    shown = first.feed(text)
    assert second.feed(text) == shown
    assert b'"partial"' in shown
