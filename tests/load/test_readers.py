"""Readers of durable streams: a thousand that stand still, one that reloads all the time, five hundred at once."""

from pathlib import Path

import pytest

from tests.load.readers import WIRES, coming_back, many, reloading, standing

pytestmark = pytest.mark.anyio

STREAMS, EACH, WAKING = 50, 20, 4
TEXT = " ".join(["x" * 499] * 500)

RING = 0.256
"""Megabytes of newest records that are kept of a stream, and about as much on its way through."""

READER = 0.16
"""Megabytes of a reader that stands still: 64 KB that wait to be sent, a piece of 16 KB beyond them, the next one at hand
as records and as frames, and its connection."""


async def test_thousand_readers_that_stand_still_cost_bounded_memory_and_no_producer_time(tmp_path: Path) -> None:
    seen = await standing(tmp_path, STREAMS, EACH, WAKING, TEXT)
    print(seen)
    # Those that read on keep the text, since the end of a native stream says all of it: the steady readers and the ones that woke.
    text = STREAMS * (1 + WAKING) * len(TEXT) / 1e6
    bound = STREAMS * 2 * RING + STREAMS * EACH * READER + text
    print(f"{seen.loaded - seen.idle:.0f} MB of {bound:.0f} MB")
    assert seen.streams_complete == STREAMS
    assert seen.woken_whole == STREAMS * WAKING
    assert seen.sent_away == seen.resumed_whole == STREAMS * (EACH - WAKING)
    assert seen.loaded - seen.idle <= bound


BACK, WORDS = 400, 4000
HELD = 0.1
"""Megabytes of a reader that has all there is, with its connection."""


@pytest.mark.parametrize("wire", ["native", "ui"])
async def test_readers_that_come_back_to_short_words_hold_little_more_than_their_characters(
    tmp_path: Path, wire: str
) -> None:
    seen = await coming_back(tmp_path, wire, BACK, WORDS)
    # The text, four bytes for each piece of it, and what lists and the allocator have over.
    bound = BACK * (HELD + 2 * (7 * WORDS + 4 * seen.records) / 1e6)
    print(wire, f"{seen.after - seen.before:.0f} MB of {bound:.0f} MB for {seen.records} records")
    assert seen.records > WORDS / 2
    assert seen.after - seen.before <= bound


@pytest.mark.parametrize("wire", WIRES)
async def test_reader_that_reloads_every_second_sees_the_events_of_one_that_stays(tmp_path: Path, wire: str) -> None:
    seen = await reloading(tmp_path, wire, words=250)
    print(wire, seen.reloads, "reloads of", len(seen.steady), "events")
    assert len(seen.steady) > 250 and seen.reloads > 2
    assert seen.reloading == seen.steady


async def test_five_hundred_durable_streams_with_ten_deltas_a_second_all_complete(tmp_path: Path) -> None:
    seen = await many(tmp_path, 500, 10, 10)
    print(seen)
    assert seen.complete == 500
    assert seen.pieces == 500 * 100
