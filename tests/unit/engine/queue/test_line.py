"""The order of those who wait at one bottleneck."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.engine.queue.line import Line, Place, Share

A, B, URGENT = Share("a"), Share("b"), Share("c", priority=1)


def served(line: Line[str], places: dict[str, Place[str]], count: int) -> list[str]:
    order: list[str] = []
    for _ in range(count):
        first = line.first()
        assert first is not None
        order.append(first)
        line.leave(places.pop(first), served=True)
    return order


def joined(line: Line[str], *names: tuple[str, Share]) -> dict[str, Place[str]]:
    return {name: line.join(name, share) for name, share in names}


def test_one_flow_is_served_in_the_order_it_came() -> None:
    line = Line[str]()
    places = joined(line, *[(str(number), A) for number in range(9)])
    assert served(line, places, 9) == [str(number) for number in range(9)]


def test_flow_that_floods_does_not_keep_another_waiting() -> None:
    line = Line[str]()
    places = joined(line, *[(f"a{number}", A) for number in range(1000)])
    served(line, places, 500)
    places |= joined(line, *[(f"b{number}", B) for number in range(10)])
    order = served(line, places, 21)
    assert [name for name in order if name[0] == "b"] == [f"b{number}" for number in range(10)]


def test_weights_are_the_proportion_in_which_flows_get_on() -> None:
    line = Line[str]()
    heavy = Share("b", weight=3)
    places = joined(
        line, *[(f"{name}{number}", share) for number in range(400) for name, share in (("a", A), ("b", heavy))]
    )
    assert Counter([name[0] for name in served(line, places, 400)]) == {"a": 100, "b": 300}


def test_greater_priority_goes_first_whoever_came_before() -> None:
    line = Line[str]()
    places = joined(line, ("a", A), ("b", B), ("urgent", URGENT))
    assert served(line, places, 3) == ["urgent", "a", "b"]


def test_what_a_flow_was_not_served_is_not_held_against_it() -> None:
    line = Line[str]()
    left = joined(line, *[(f"x{number}", A) for number in range(100)])
    for place in left.values():
        line.leave(place, served=False)
    places = joined(line, *[(f"{name}{number}", share) for number in range(10) for name, share in (("a", A), ("b", B))])
    assert Counter([name[0] for name in served(line, places, 10)]) == {"a": 5, "b": 5}


def test_one_that_comes_back_has_its_old_place() -> None:
    line = Line[str]()
    places = joined(line, ("first", A), ("second", A), ("third", A))
    place = places.pop("first")
    line.leave(place, served=False)
    places["first"] = line.join("first", A, place.start)
    assert served(line, places, 3) == ["first", "second", "third"]


def test_leaving_twice_counts_once() -> None:
    line = Line[str]()
    place = line.join("a", A)
    line.leave(place, served=True)
    line.leave(place, served=False)
    assert line.count == 0 and line.first() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_order_that_is_told_is_the_order_that_is_served(moves: list[tuple[str, bool]]) -> None:
    line = Line[str]()
    places: dict[str, Place[str]] = {}
    for number, (flow, leaves) in enumerate(moves):
        name = f"{flow}{number}"
        places[name] = line.join(name, Share(flow, weight=1 + "abc".index(flow)))
        if leaves and len(places) > 2:
            gone = sorted(places)[len(places) // 2]
            line.leave(places.pop(gone), served=False)
    told = line.ordered()
    assert told == served(line, places, len(told)) and line.count == 0


@pytest.mark.parametrize("count", [10, 2000])
def test_those_who_left_take_no_memory(count: int) -> None:
    line = Line[str]()
    for number in range(count):
        line.leave(line.join(str(number), A), served=False)
    assert len(line._heap) <= 64
