"""The ledger of a real server, killed in the middle of its work."""

from pathlib import Path

import pytest

from tests.e2e.killing import killed_under_load

pytestmark = pytest.mark.anyio


async def test_no_delivered_answer_is_missing_after_a_kill_and_none_counts_twice(tmp_path: Path) -> None:
    aftermath = await killed_under_load(tmp_path, kills=2)
    assert len(aftermath.delivered) >= 300
    assert aftermath.missing == [] and aftermath.doubled == []
    assert aftermath.requests_told == sum(aftermath.rows.values())
