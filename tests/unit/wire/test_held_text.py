"""What a projector holds of a long answer for its end, or to show it anew: little more than its text, however short the pieces were."""

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import Delta, Finish, Reasoning, Restart, Status, Text
from cauce.wire.native.frames import NativeProjector, StructuredProjector
from cauce.wire.pieces import Pieces
from cauce.wire.ui_messages.render import UIProjector
from tests.unit.wire.ui_reader import Reader

WORDS, BATCH = 40_000, 100
OPENING = Status("accepted", facts={"model": "m", "created": 5})


def word(number: int) -> str:
    return f"{number % 1_000_000:06} "


def held(projector: Any, of: Callable[[str], Delta]) -> int:
    """Bytes that `projector` holds of an answer of so many short words."""
    tracemalloc.start()
    try:
        projector.feed([OPENING])
        before, _ = tracemalloc.get_traced_memory()
        for first in range(0, WORDS, BATCH):
            projector.feed([of(word(number)) for number in range(first, first + BATCH)])
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "of", "each"),
    [
        (lambda: NativeProjector("s"), Text, 5),
        (lambda: NativeProjector("s"), Reasoning, 5),
        # The text so far is held as bytes too, and where each piece of them begins.
        (lambda: StructuredProjector("s"), Text, 5 + 9 + 7),
        (lambda: UIProjector("s"), Text, 5),
        (lambda: UIProjector("s"), Reasoning, 5),
    ],
    ids=["native", "native thoughts", "native structured", "ui", "ui thoughts"],
)
def test_reader_of_short_words_costs_little_more_than_their_characters(
    make: Callable[[], Any], of: Callable[[str], Delta], each: int
) -> None:
    characters = WORDS * len(word(0))
    assert held(make(), of) <= 1.25 * (characters + WORDS * each)


def test_reader_whose_frames_another_has_made_holds_no_more() -> None:
    class Taking(NativeProjector):
        def feed(self, deltas: Sequence[Delta]) -> bytes:
            if isinstance(deltas[0], Text):
                self.take([delta for delta in deltas if isinstance(delta, Text)])
                return b""
            return super().feed(deltas)

    assert held(Taking("s"), Text) <= 1.25 * WORDS * (len(word(0)) + 5)


@pytest.mark.parametrize("batch", [1, 7, 256, 1000])
@pytest.mark.parametrize("kept", [0, 1, 255, 256, 257, 999, 1000])
def test_what_was_taken_back_of_a_long_answer_is_in_no_end_of_it(batch: int, kept: int) -> None:
    words: list[Delta] = [Text(word(number)) for number in range(1000)]
    deltas = [OPENING, *words, Restart(kept + 2, "it broke"), Text("right"), Finish("stop")]
    native, structured, ui, reader = NativeProjector("s"), StructuredProjector("s"), UIProjector("s", "s"), Reader()
    last = told = b""
    for place in range(0, len(deltas), batch):
        some = deltas[place : place + batch]
        last, told = native.feed(some), structured.feed(some)
        reader.read(ui.feed(some))
    expected = "".join([word(number) for number in range(kept)]) + "right"
    assert f'"type":"complete","data":"{expected}"'.encode() in last
    assert f'"type":"complete","data":"{expected}"'.encode() in told
    assert reader.text == expected


@given(st.lists(st.one_of(st.text(max_size=3), st.none(), st.integers(0, 12)), max_size=20))
def test_pieces_are_those_that_were_not_taken_back(given: list[str | int | None]) -> None:
    pieces, plain = Pieces(), list[str]()
    for one in given:
        match one:
            case str():
                pieces.new.append(one)
                plain.append(one)
            case int():
                pieces.cut(one)
                del plain[one:]
            case None:
                pieces.fold()
        assert pieces.text == "".join(plain)
