"""The SSE decoder: whatever the split of the bytes, the same events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.wire.sse import Event, EventTooLarge, SSEDecoder


def decode(*pieces: bytes) -> list[Event]:
    decoder = SSEDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.finish()


def data_of(events: list[Event]) -> list[bytes]:
    return [event.data for event in events]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_ends_end_lines(end: bytes) -> None:
    assert data_of(decode(b"data: a" + end + end + b"data: b" + end + end)) == [b"a", b"b"]


def test_event_that_ends_in_carriage_returns_is_handed_out_at_once() -> None:
    assert data_of(SSEDecoder().feed(b"data: a\r\r")) == [b"a"]


def test_line_feed_after_a_split_carriage_return_is_no_second_line_end() -> None:
    assert data_of(decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")) == [b"a\nb"]


def test_nothing_between_a_carriage_return_and_its_line_feed_changes_nothing() -> None:
    assert data_of(decode(b"data: a\r", b"", b"\ndata: b\r\n\r\n")) == [b"a\nb"]


def test_several_data_lines_are_joined_by_line_feeds() -> None:
    assert data_of(decode(b"data: a\ndata:\ndata:b\n\n")) == [b"a\n\nb"]


def test_comments_and_events_without_data_are_not_reported() -> None:
    assert decode(b": keep-alive\n\nevent: ping\n\nid: 3\n\n: x\ndata: y\n\n") == [Event(b"y")]


def test_name_and_id_are_read() -> None:
    assert decode(b"id: 7\nevent: error\ndata: {}\n\n") == [Event(b"{}", "error", "7")]


def test_byte_order_mark_is_dropped_even_when_split() -> None:
    assert data_of(decode(b"\xef", b"\xbb", b"\xbfdata: a\n\n")) == [b"a"]


def test_last_event_without_its_empty_line_is_handed_out_at_the_end() -> None:
    assert data_of(decode(b"data: a\n\ndata: [DONE]\n")) == [b"a", b"[DONE]"]


def test_event_over_the_limit_is_an_error() -> None:
    decoder = SSEDecoder(limit=10)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: 0123456789")


lines = st.lists(
    st.one_of(
        st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=12).map(
            lambda text: f"data: {text}"
        ),
        st.sampled_from(["", "", ": comment", "event: message", "id: 4", "retry: 5", "data", "data:", "nonsense"]),
    ),
    max_size=14,
)


@given(lines, st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_any_split_of_the_bytes_decodes_alike(content: list[str], end: str, draw: st.DataObject) -> None:
    raw = end.join([*content, "", ""]).encode()
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert decode(*pieces) == decode(raw)
    assert decode(*[raw[place : place + 1] for place in range(len(raw))]) == decode(raw)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_bytes_crash_the_decoder(raw: bytes, size: int) -> None:
    decode(*[raw[place : place + size] for place in range(0, len(raw), size)])
