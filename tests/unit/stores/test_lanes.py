"""What is urgent finds room, however much waits that is not."""

import asyncio

import pytest

from cauce.stores.lanes import Lanes

pytestmark = pytest.mark.anyio


async def test_urgent_work_does_not_wait_behind_a_herd() -> None:
    lanes, done, let = Lanes(4, 1), list[str](), asyncio.Event()

    async def work(name: str, *, urgent: bool) -> None:
        async with lanes.place(urgent=urgent):
            if not urgent:
                await let.wait()
            done.append(name)

    herd = [asyncio.create_task(work("read", urgent=False)) for _ in range(100)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await work("claim", urgent=True)
        assert done == ["claim"]
        let.set()
        await asyncio.gather(*herd)
    assert done == ["claim", *["read"] * 100]


async def test_no_more_are_within_than_there_is_room() -> None:
    lanes, within, most = Lanes(4, 2), 0, 0

    async def work(number: int) -> None:
        nonlocal within, most
        async with lanes.place(urgent=number % 2 == 0):
            within += 1
            most = max(most, within)
            await asyncio.sleep(0)
            within -= 1

    await asyncio.gather(*[work(number) for number in range(50)])
    assert most == 4
    with pytest.raises(ZeroDivisionError):
        async with lanes.place():
            raise ZeroDivisionError
    async with asyncio.timeout(5), lanes.place(), lanes.place():
        pass
