"""Work that is put to a server in batches."""

import asyncio

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


async def test_work_is_given_up_after_a_while_though_the_server_is_silent_and_is_not_done_late() -> None:
    clock, answers, done = FakeClock(), asyncio.Event(), list[str]()

    async def run(batch: list[Pending[str]]) -> list[Pending[str]]:
        done.extend([pending.work for pending in batch])
        await answers.wait()
        for pending in batch:
            pending.answer("done")
        return []

    batches = Batches[str](clock, 10.0, lambda waiting: (waiting[:1], waiting[1:]), run, OSError)
    submitted = [asyncio.create_task(batches.submit(work)) for work in ("first", "second")]
    await clock.until_waiting(2)
    clock.advance(10)
    for one in submitted:
        with pytest.raises(LogUnavailable):
            await one
    answers.set()
    assert await batches.submit("third") == "done"
    assert done == ["first", "third"]
