"""The fake clock: time passes when the test says so, and only then."""

import asyncio

import pytest

from cauce.ports.clock import Clock
from cauce.testing.clock import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_both_readings_move_by_what_is_advanced(clock: FakeClock) -> None:
    port: Clock = clock
    now, monotonic = port.now(), port.monotonic()
    clock.advance(2.5)
    assert (port.now() - now, port.monotonic() - monotonic) == (2.5, 2.5)


def test_time_does_not_run_backwards(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


async def test_sleepers_wake_in_the_order_of_their_time(clock: FakeClock) -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2, 9):
            group.create_task(sleeper(seconds))
        await clock.until_waiting(4)
        clock.advance(0.999)
        assert clock.waiting == 4
        clock.advance(2.001)
        assert clock.waiting == 1
        clock.advance(6)
    assert woken == [1, 2, 3, 9]


async def test_sleep_of_no_time_returns_without_an_advance(clock: FakeClock) -> None:
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.waiting == 0


async def test_steps_that_add_up_wake_a_sleeper(clock: FakeClock) -> None:
    task = asyncio.create_task(clock.sleep(0.8))
    await clock.until_waiting()
    for _ in range(8):
        clock.advance(0.1)
    await task


async def test_cancelled_sleep_leaves_nothing_behind(clock: FakeClock) -> None:
    task = asyncio.create_task(clock.sleep(5))
    await clock.until_waiting()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.waiting == 0


async def test_block_that_outlives_its_timeout_gets_a_timeout_error(clock: FakeClock) -> None:
    async def slow() -> None:
        async with clock.timeout(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(slow())
    await clock.until_waiting()
    clock.advance(4.9)
    assert clock.waiting == 1
    clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await task
    assert clock.waiting == 0


async def test_timeout_of_no_time_ends_the_block_at_its_first_wait(clock: FakeClock) -> None:
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_block_that_ends_in_time_is_left_alone(clock: FakeClock, seconds: float | None) -> None:
    async with clock.timeout(seconds):
        await asyncio.sleep(0)
    clock.advance(100)
    await asyncio.sleep(0)
    assert clock.waiting == 0


async def test_cancelling_the_task_is_not_taken_for_its_timeout(clock: FakeClock) -> None:
    async def slow() -> None:
        async with clock.timeout(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(slow())
    await clock.until_waiting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inner_of_two_timeouts_ends_its_own_block_only(clock: FakeClock) -> None:
    seen: list[str] = []

    async def nested() -> None:
        async with clock.timeout(10):
            try:
                async with clock.timeout(5):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append("inner")
            await clock.sleep(1)
            seen.append("after")

    task = asyncio.create_task(nested())
    await clock.until_waiting(2)
    clock.advance(5)
    await clock.until_waiting(2)
    clock.advance(1)
    await task
    assert seen == ["inner", "after"]


async def test_error_of_the_block_passes_through(clock: FakeClock) -> None:
    with pytest.raises(KeyError):
        async with clock.timeout(5):
            raise KeyError("mine")
    assert clock.waiting == 0
