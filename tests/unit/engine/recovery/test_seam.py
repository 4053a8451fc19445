"""What is shown of an attempt that goes on from what another delivered."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.engine.recovery.seam import HELD_REPEATING, LEAST_OVERLAP, Seam

WORDS = [f"word{number}" for number in range(400)]
DELIVERED = "The river rises in the hills. " + " ".join(WORDS[:120]) + " and then it turns to"
REST = " the sea, " + " ".join(WORDS[200:280]) + "."


def shown(delivered: str, text: str, cuts: list[int] | None = None) -> str | None:
    """What is shown of `text`, fed in pieces; None if it is refused."""
    seam = Seam(delivered)
    places = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts or []]})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    for number, piece in enumerate(pieces):
        verdict, kept = seam.feed(piece)
        if verdict in ("anew", "talk"):
            return None
        if verdict == "go on":
            return kept + "".join(pieces[number + 1 :])
    verdict, kept = seam.finish()
    return None if verdict in ("anew", "talk") else kept


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_text_that_simply_goes_on_is_shown_whole(cuts: list[int]) -> None:
    assert shown(DELIVERED, REST, cuts) == REST


@given(st.integers(LEAST_OVERLAP, 600), st.lists(st.integers(0, 2000), max_size=12))
def test_repeated_end_is_dropped_wherever_the_pieces_are_cut(repeated: int, cuts: list[int]) -> None:
    assert shown(DELIVERED, DELIVERED[-repeated:] + REST, cuts) == REST


def test_repetition_in_other_case_and_white_space_is_dropped() -> None:
    repeated = "AND  THEN IT\nTURNS TO"
    assert shown(DELIVERED, repeated + REST) == REST


def test_word_it_broke_off_in_is_not_written_twice() -> None:
    assert shown("It flows to the Mediter", "Mediterranean, " + REST) == "ranean, " + REST


def test_white_space_that_was_delivered_is_not_written_twice() -> None:
    assert shown(DELIVERED + "\n\n", "\n\nNext, " + REST) == "Next, " + REST


def test_attempt_that_begins_the_answer_anew_is_refused() -> None:
    assert shown(DELIVERED, DELIVERED + REST) is None


@pytest.mark.parametrize(
    "words",
    [
        "Sure, here is the rest:\n\n",
        "Continuing from where I left off:\n",
        "Claro, continúo:\n",
        "Here's the continuation: ",
        "Perdón por la interrupción. ",
    ],
)
def test_attempt_that_talks_about_going_on_is_refused(words: str) -> None:
    assert shown(DELIVERED, words + REST) is None


@pytest.mark.parametrize("words", ["surely not, ", "continuous and ", "clarity, ", "sure, ", "claro, ", "sigo recto, "])
def test_words_that_only_begin_so_are_text(words: str) -> None:
    assert shown(DELIVERED, words + REST) == words + REST


def test_short_answer_is_shown_though_it_is_held_to_its_end() -> None:
    assert shown(DELIVERED, " end.") == " end."


def test_what_it_holds_is_bounded() -> None:
    delivered = "na " * 2000
    seam = Seam(delivered)
    fed = 0
    chance = random.Random(5)
    while True:
        piece = "na " * chance.randint(1, 5)
        fed += len(piece)
        verdict, _ = seam.feed(piece)
        if verdict != "hold":
            break
    assert fed <= HELD_REPEATING + 100


def test_what_still_repeats_the_end_is_held_though_it_is_late() -> None:
    seam = Seam(DELIVERED)
    assert seam.feed(DELIVERED[-40:-20], late=True) == ("hold", "")
    assert seam.feed(DELIVERED[-20:] + REST, late=True) == ("go on", REST)
