"""What a process knows of streams: whatever it was told, and in whichever order, readers get what is in the log, or are sent to the store."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import Text
from cauce.domain.stream import Record, StreamKey
from cauce.stores import live_streams
from cauce.stores.live_streams import LiveStream, LiveStreams

SIZE = 50
"""Bytes of a record in the store."""

FULL = live_streams.RING // (SIZE + live_streams.OVERHEAD)
"""Records that a ring holds."""

LOG = [Record(seq, 1, Text(str(seq))) for seq in range(1, 3 * FULL)]

SOME = st.integers(0, len(LOG))


def page(after: int, count: int) -> tuple[list[Record], int]:
    records = LOG[after : after + count]
    return records, SIZE * len(records)


def live(tail: int, name: str = "chat") -> LiveStream:
    return LiveStream(StreamKey("key", name), 1, tail, 1, "running")


@given(
    st.lists(st.tuples(st.sampled_from(["others write", "we write", "page"]), SOME, st.integers(1, FULL)), max_size=30)
)
def test_readers_are_given_what_is_in_the_log_or_nothing(told: list[tuple[str, int, int]]) -> None:
    stream = live(0)
    for what, where, count in told:
        match what:
            case "others write":
                stream.told(min(len(LOG), stream.tail + where), 1, "running")
            case "we write":
                if records := LOG[stream.tail : stream.tail + count]:
                    stream.committed(records, SIZE * len(records))
            case _:
                if where < stream.tail:
                    records, size = page(where, min(count, stream.tail - where))
                    stream.learned(records, size)
        assert stream.bytes <= live_streams.RING
        for after in {0, where, stream.tail // 2, max(0, stream.tail - 1), stream.tail}:
            found = stream.newest(after, 250)
            if after >= stream.tail:
                assert found == ()
            elif found is not None:
                assert found and list(found) == LOG[after : after + len(found)]


@given(st.integers(1, len(LOG)), st.integers(1, 400))
def test_one_who_reads_from_the_beginning_leaves_the_newest_to_the_others(tail: int, at_once: int) -> None:
    stream = live(tail)
    read = 0
    while read < tail:
        records, size = page(read, min(at_once, tail - read))
        stream.learned(records, size)
        read += len(records)
    kept = min(tail, FULL - at_once)
    for after in range(tail - kept, tail, 97):
        assert (found := stream.newest(after, 250)) is not None and found[0].seq == after + 1


def test_one_who_reads_a_long_stream_from_the_beginning_does_not_take_the_newest_from_the_others() -> None:
    stream = live(len(LOG))
    newest = LOG[-10:]
    for start in range(0, len(LOG), 100):
        stream.learned(*page(start, 100))
    assert stream.newest(len(LOG) - 10, 10) == newest
    stream.learned(*page(0, 100))
    assert stream.newest(len(LOG) - 10, 10) == newest


def test_what_was_read_in_another_epoch_is_read_again() -> None:
    stream = live(20)
    stream.learned(*page(0, 20))
    assert stream.told(20, 1, "running") and stream.newest(3, 5) == LOG[3:8]
    assert stream.told(20, 2, "running")
    assert stream.newest(3, 5) is None and stream.bytes == 0


def test_what_the_store_said_before_what_is_known_changes_nothing() -> None:
    stream = live(20)
    stream.told(21, 2, "completed")
    stream.learned(*page(0, 21))
    assert not stream.told(40, 1, "running") and not stream.told(20, 2, "running")
    assert (stream.tail, stream.epoch, stream.state) == (21, 2, "completed") and stream.newest(3, 5) == LOG[3:8]


def test_ring_that_everybody_has_gone_past_is_begun_anew() -> None:
    stream = live(1000)
    stream.learned(*page(0, 50))
    stream.learned(*page(900, 1))
    assert stream.newest(900, 1) is None
    for after in range(901, 912):
        stream.learned(*page(after, 1))
    assert stream.newest(911, 1) == LOG[911:912]


def test_history_fills_the_ring_with_the_newest_of_it() -> None:
    stream = live(len(LOG))
    stream.refill(LOG, SIZE * len(LOG))
    assert stream.newest(len(LOG) - 200, 5) == LOG[-200:-195] and stream.newest(0, 5) is None
    stream.refill(LOG[:-1], SIZE * (len(LOG) - 1))
    assert stream.newest(len(LOG) - 200, 5) == LOG[-200:-195], "it is not all there is"


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "learn", "attach", "detach", "hold", "let go", "gone"]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_what_is_kept_is_counted(steps: list[tuple[str, int]]) -> None:
    lives = LiveStreams()
    streams = [live(500, str(number)) for number in range(6)]
    attached = [0] * 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_streams, "KEPT", 70_000)
        for what, number in steps:
            stream = streams[number]
            match what:
                case "put":
                    lives.put(stream)
                case "learn":
                    stream.learned(*page(0, 100 * (number + 1)))
                    lives.settle(stream)
                case "attach":
                    attached[number] += 1
                    lives.attach(stream.key)
                case "detach" if attached[number]:
                    attached[number] -= 1
                    lives.detach(stream.key)
                case "hold" | "let go":
                    stream.held = what == "hold"
                    lives.settle(stream)
                case "gone":
                    lives.gone(stream.key)
                case _:
                    pass
            assert lives._kept_bytes == sum(lives._kept.values()) <= 70_000
            assert lives._kept.keys() <= lives._streams.keys()
            assert not [key for key in lives._kept if lives._streams[key].held]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(live_streams, "KEPT", 60_000)
    yield 60_000


def test_streams_that_nobody_writes_here_have_so_much_room_together(little_room: int) -> None:
    lives = LiveStreams()
    written = live(0, "written")
    written.held = True
    lives.put(written)
    written.committed(*page(0, 500))
    read = live(100, "read")
    lives.attach(read.key)
    lives.put(read)
    read.learned(*page(0, 100))
    lives.settle(read)
    others = [live(100, f"other {number}") for number in range(20)]
    for other in others:
        lives.put(other)
        other.learned(*page(0, 20))
        lives.settle(other)
    known = [other for other in others if lives.get(other.key) is other]
    assert known == others[-len(known) :] and 5 < len(known) < 20
    assert sum([one.bytes for one in (read, *known)]) <= little_room
    # One that is read stays known without its records, one that is written has no part in this.
    assert lives.get(read.key) is read and read.bytes == 0 and read.newest(0, 5) is None
    assert lives.get(written.key) is written and written.newest(0, 5) == LOG[:5]
    lives.detach(read.key)
    for number in range(60):
        lives.put(live(5, f"more {number}"))
    assert lives.get(read.key) is None and lives.get(written.key) is written


def test_stream_that_is_written_here_again_is_not_counted_twice(little_room: int) -> None:
    lives = LiveStreams()
    stream = live(0)
    for _ in range(100):
        stream.held = True
        lives.put(stream)
        stream.held = False
        lives.settle(stream)
    lives.put(live(0, "other"))
    assert lives.get(stream.key) is stream
    lives.gone(stream.key)
    assert stream.gone and lives.get(stream.key) is None
