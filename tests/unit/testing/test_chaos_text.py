"""Text that proves where it stands and who wrote it."""

from hypothesis import given
from hypothesis import strategies as st

from cauce.testing.chaos.text import nonce, read, written

FIRST, SECOND = nonce(0), nonce(1)
WHOLE = written(500, FIRST)
OTHER = written(500, SECOND)


@given(st.integers(0, len(WHOLE)))
def test_any_beginning_of_a_text_is_right(end: int) -> None:
    reading = read(WHOLE[:end])
    assert not reading.wrong
    assert all(name == FIRST for name, _, _ in reading.runs)


@given(st.integers(0, len(WHOLE)))
def test_text_gone_on_with_anywhere_is_right_and_tells_both_authors_in_order(cut: int) -> None:
    reading = read(WHOLE[:cut] + OTHER[cut:])
    assert not reading.wrong
    names = [name for name, _, _ in reading.runs]
    assert names in ([FIRST], [SECOND], [FIRST, SECOND])


@given(st.integers(0, len(WHOLE) - 40), st.integers(1, 30))
def test_missing_piece_is_seen(at: int, length: int) -> None:
    assert read(WHOLE[:at] + WHOLE[at + length :]).wrong


@given(st.integers(0, len(WHOLE) - 40), st.integers(1, 30))
def test_piece_that_came_twice_is_seen(at: int, length: int) -> None:
    assert read(WHOLE[: at + length] + WHOLE[at:]).wrong


@given(st.integers(20, len(WHOLE) - 40))
def test_attempt_that_comes_back_is_seen_by_its_runs(cut: int) -> None:
    reading = read(WHOLE[:cut] + OTHER[cut : cut + 20] + WHOLE[cut + 20 :])
    assert not reading.wrong
    assert [name for name, _, _ in reading.runs] == [FIRST, SECOND, FIRST]


def test_characters_are_of_one_to_four_bytes() -> None:
    assert {len(character.encode()) for character in WHOLE} == {1, 2, 3, 4}
