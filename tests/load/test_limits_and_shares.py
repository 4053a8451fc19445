"""Many clients before an upstream that takes few: all are answered, and none of its limits is passed."""

from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from cauce.testing.upstream import Limits
from tests.load.scenarios import Burst, burst, spending

pytestmark = pytest.mark.anyio


DEADLINE = 60


async def test_five_hundred_clients_at_once_are_all_answered_and_their_keys_get_equal_shares(tmp_path: Path) -> None:
    tally, record = await burst(tmp_path, Burst(500, Limits(20, 600)))
    assert dict(tally.statuses) == {200: 500}, tally.first_error
    assert record.violations == 0
    assert record.most_at_once <= 20 and record.most_per_minute <= 600
    print(f"longest wait {tally.longest:.1f} s, most within 10 s {record.most_within(10)}")
    assert tally.longest < DEADLINE
    # Five hundred can not pass six hundred a minute: a tenth of them may come at once, and ten in each second.
    assert record.most_within(10) <= 60 + 10 * 10 + 5
    # Half-way, when both keys still have clients waiting. The first twenty did not have to.
    half = Counter(tally.order[20:250])
    assert abs(half["first"] - half["second"]) <= 0.1 * 230, half


FEW = Limits(20, 600)
SLOW = Limits(per_second=10)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Burst(500, FEW), id="20 at once"),
        pytest.param(Burst(500, replace(FEW, retry_after=1.0)), id="20 at once, with a delay"),
        pytest.param(Burst(500, replace(FEW, status=503)), id="20 at once, else 503"),
        pytest.param(Burst(300, SLOW, takes=0.05), id="10 a second"),
        pytest.param(Burst(300, replace(SLOW, retry_after=1.0), takes=0.05), id="10 a second, with a delay"),
    ],
)
async def test_hundreds_of_clients_before_an_upstream_whose_limits_nobody_told_us_are_all_answered(
    tmp_path: Path, size: Burst
) -> None:
    tally, record = await burst(tmp_path, replace(size, told=False))
    assert dict(tally.statuses) == {200: size.clients}, tally.first_error
    # The first time all go there at once. Later, what it refuses is a fifth of what it answers, at most.
    assert 0 < record.violations <= size.clients * 1.2
    half = Counter(tally.order[len(tally.order) // 5 : len(tally.order) // 2])
    assert abs(half["first"] - half["second"]) <= 0.15 * half.total(), half


async def test_two_hundred_calls_at_once_spend_no_more_than_a_budget_for_fifty(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=200, covered=50)
    assert set(seen.tally.statuses) == {200, 402}, seen.tally.first_error
    assert seen.answered == seen.tally.statuses[200] <= 50
    assert seen.budget / 2 <= seen.cost <= seen.budget


async def test_two_hundred_calls_that_bound_no_answer_spend_no_more_than_their_budget(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=200, covered=50, bounded=False)
    assert set(seen.tally.statuses) == {200, 402}, seen.tally.first_error
    assert seen.answered == seen.tally.statuses[200]
    assert seen.budget / 2 <= seen.cost <= seen.budget


async def test_two_hundred_calls_for_json_spend_no_more_than_their_budget_on_all_their_turns(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=200, covered=50, structured=True)
    # Those that wait for long are told of their end inside of a stream.
    assert {200, 402} <= set(seen.tally.statuses) <= {200, 402, 502}, seen.tally.first_error
    assert seen.answered <= 50
    assert seen.budget / 2 <= seen.cost <= seen.budget
