"""Many clients before an upstream that takes few: all are answered, and none of its limits is passed."""

from collections import Counter
from pathlib import Path

import pytest

from tests.load.scenarios import Burst, burst, spending

pytestmark = pytest.mark.anyio


async def test_five_hundred_clients_at_once_are_all_answered_and_their_keys_get_equal_shares(tmp_path: Path) -> None:
    tally, record = await burst(tmp_path, Burst(clients=500, concurrent=20, per_minute=600))
    assert dict(tally.statuses) == {200: 500}, tally.first_error
    assert record.violations == 0
    assert record.most_at_once <= 20 and record.most_per_minute <= 600
    # Half-way, when both keys still have clients waiting. The first twenty did not have to.
    half = Counter(tally.order[20:250])
    assert abs(half["first"] - half["second"]) <= 0.1 * 230, half


async def test_two_hundred_calls_at_once_spend_no_more_than_a_budget_for_fifty(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=200, covered=50)
    assert set(seen.tally.statuses) == {200, 402}, seen.tally.first_error
    assert seen.answered == seen.tally.statuses[200] <= 50
    assert seen.answered >= 25
