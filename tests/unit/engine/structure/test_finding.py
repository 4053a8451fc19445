"""JSON found in what models write."""

from hypothesis import given
from hypothesis import strategies as st

from cauce.engine.structure.finding import candidates


def test_nothing_is_found_where_nothing_is() -> None:
    assert list(candidates("I cannot say.")) == ["I cannot say."]
    assert list(candidates("")) == [""]


def test_outermost_objects_are_found_in_turn() -> None:
    assert list(candidates('a {"b": {"c": 1}} d [2] e')) == ['a {"b": {"c": 1}} d [2] e', '{"b": {"c": 1}}', "[2]"]


def test_braces_that_open_nothing_are_passed_over() -> None:
    assert list(candidates("use {curly} like {this: {}}"))[1:] == ["{}"]


def test_search_ends_on_text_that_is_nothing_but_openings() -> None:
    assert list(candidates("{" * 100_000)) == ["{" * 100_000]
    assert list(candidates("[" * 100_000)) == ["[" * 100_000]


@given(st.text("{}[]\"'`1,: \n<think>/aj", max_size=40))
def test_any_text_is_searched(text: str) -> None:
    assert len(list(candidates(text))) >= 1
