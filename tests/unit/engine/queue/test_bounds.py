"""Whose call goes where too many wait."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.engine.queue.bounds import Bounds
from cauce.engine.queue.line import Share

BATCH, PLAIN, GOLD = Share("batch", -1), Share("plain"), Share("gold", 5)
SHARES = {share.flow: share for share in (BATCH, PLAIN, GOLD, Share("heavy", weight=3))}
_BYTES = 1_000_000


class Waiting:
    """Those who wait within `bounds`, by name."""

    def __init__(self, length: int = 20, size: int = _BYTES) -> None:
        self.bounds = Bounds[str](length, size)
        self.names: list[str] = []
        self.count = 0

    def comes(self, flow: str, size: int = 1, *, returns: bool = False) -> list[str] | None:
        self.count += 1
        name = f"{flow} {self.count}"
        gone = self.bounds.admit(name, SHARES[flow], size, returns=returns)
        if gone is not None:
            self.names = [one for one in (*self.names, name) if one not in gone]
        return gone

    def leaves(self, name: str) -> None:
        self.names.remove(name)
        self.bounds.leave(name, SHARES[name.split()[0]])

    @property
    def counts(self) -> dict[str, int]:
        return Counter([name.split()[0] for name in self.names])


def test_flow_that_fills_everything_gives_up_what_came_last_for_another() -> None:
    waiting = Waiting(3)
    assert [waiting.comes("plain") for _ in range(4)] == [[], [], [], None]
    assert waiting.comes("gold") == ["plain 3"]
    assert waiting.comes("batch") == ["plain 2"]


def test_flow_of_a_great_priority_does_not_drive_one_of_a_small_one_out_of_its_share() -> None:
    waiting = Waiting(20)
    for _ in range(40):
        waiting.comes("gold")
    for _ in range(40):
        waiting.comes("batch")
    for _ in range(40):
        waiting.comes("gold")
    assert waiting.counts == {"gold": 10, "batch": 10}


def test_of_those_who_have_too_much_the_least_priority_goes_first() -> None:
    waiting = Waiting(21)
    for flow, count in (("plain", 13), ("batch", 8)):
        for _ in range(count):
            assert waiting.comes(flow) == []
    assert waiting.comes("gold") == ["batch 21"]


def test_parts_follow_the_weights() -> None:
    waiting = Waiting(40)
    for _ in range(100):
        waiting.comes("plain")
        waiting.comes("heavy")
    assert waiting.counts == {"plain": 10, "heavy": 30}


def test_bytes_are_bound_as_calls_are() -> None:
    waiting = Waiting(1000, 100)
    for _ in range(10):
        assert waiting.comes("plain", 10) == []
    assert waiting.comes("plain", 10) is None
    assert waiting.comes("gold", 25) == ["plain 10", "plain 9", "plain 8"]
    assert waiting.comes("gold", 101) is None


def test_nobody_gives_up_a_place_for_one_who_gets_none() -> None:
    waiting = Waiting(1000, 100)
    for _ in range(6):
        waiting.comes("plain", 10)
    waiting.comes("heavy", 40)
    before = list(waiting.names)
    assert waiting.comes("plain", 95) is None
    assert waiting.names == before
    assert waiting.comes("heavy", 15) == ["plain 6", "plain 5"]


def test_one_that_comes_back_goes_after_the_others_of_its_flow() -> None:
    waiting = Waiting(3)
    for _ in range(3):
        waiting.comes("plain")
    assert waiting.comes("plain", returns=True) == ["plain 3"]
    assert waiting.comes("gold") == ["plain 2"]
    assert waiting.comes("gold") == ["plain 1"]
    assert waiting.names == ["plain 4", "gold 5", "gold 6"]


@pytest.mark.parametrize("count", [10, 5000])
def test_those_who_left_take_no_memory(count: int) -> None:
    waiting = Waiting(10_000)
    for _ in range(count):
        waiting.comes("plain")
        waiting.leaves(waiting.names[-1])
    bounds = waiting.bounds
    assert not bounds._flows and bounds._held == [0, 0] and bounds._weight == 0
    assert sum([len(heap) for heaps in bounds._heaps for heap in heaps.values()]) <= 2 * 66


@given(
    st.lists(st.tuples(st.sampled_from([*sorted(SHARES), "leave"]), st.integers(1, 40), st.booleans()), max_size=120)
)
def test_bounds_hold_and_nobody_within_its_part_gives_up_anything(moves: list[tuple[str, int, bool]]) -> None:
    waiting, sizes, length, size = Waiting(8, 100), dict[str, int](), 8, 100
    for flow, weighs, returns in moves:
        if flow == "leave":
            if waiting.names:
                waiting.leaves(waiting.names[weighs % len(waiting.names)])
            continue
        before = list(waiting.names)
        gone = waiting.comes(flow, weighs, returns=returns)
        name = f"{flow} {waiting.count}"
        sizes[name] = weighs
        if gone is None:
            assert waiting.names == before
        assert len(waiting.names) <= length and sum([sizes[one] for one in waiting.names]) <= size
        for one in [name] if gone is None else gone:
            own = one.split()[0]
            there = [other for other in {*before, name} if other.split()[0] == own]
            weights = sum([SHARES[each].weight for each in {other.split()[0] for other in {*before, name}}])
            part = SHARES[own].weight / weights
            over = len(there) > length * part or sum([sizes[other] for other in there]) > size * part
            assert over, "it was within its part"
        assert waiting.bounds._held == [len(waiting.names), sum([sizes[one] for one in waiting.names])]
