"""Work that is put to a server in batches."""

import pytest

from cauce.ports.stream_log import LogUnavailable
from cauce.stores.batches import Batches, Pending
from cauce.testing.clock import FakeClock

pytestmark = pytest.mark.anyio


async def test_error_that_nobody_expected_is_told_to_whoever_waits_and_the_next_work_is_done() -> None:
    async def run(batch: list[Pending[str]]) -> list[Pending[str]]:
        for pending in batch:
            if pending.work == "bad":
                raise RuntimeError("a bug")
            pending.answer(pending.work.upper())
        return []

    batches = Batches[str](FakeClock(), 10.0, lambda waiting: (waiting, []), run, OSError)
    with pytest.raises(LogUnavailable):
        await batches.submit("bad")
    assert await batches.submit("good") == "GOOD"
