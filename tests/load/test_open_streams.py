"""Streams that are open for long, many at once, on one process."""

from pathlib import Path

import pytest

from tests.load.scenarios import open_streams

pytestmark = pytest.mark.anyio


async def test_two_thousand_slow_streams_are_open_on_one_process_and_end_well(tmp_path: Path) -> None:
    seen = await open_streams(tmp_path, 2000, pace=1.5)
    print(seen)
    assert seen.complete == seen.most_at_once == 2000
