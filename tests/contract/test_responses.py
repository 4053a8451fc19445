"""Every store of responses keeps the contract; the one in memory is bounded."""

import pytest

from cauce.ports.responses import KeptResponse, Responses
from cauce.stores.inproc.responses import InprocResponses
from cauce.testing.clock import FakeClock
from cauce.testing.responses_contract import OWNER, ResponsesContract


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestInprocResponses(ResponsesContract):
    @pytest.fixture
    def responses(self, clock: FakeClock) -> Responses:
        return InprocResponses(clock)

    async def test_oldest_go_first_when_there_are_too_many(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most=2)
        for name in "abc":
            await responses.put(OWNER, KeptResponse(name, clock.now(), b"{}", ()))
        assert [await responses.get(OWNER, name) is not None for name in "abc"] == [False, True, True]

    async def test_oldest_go_first_when_they_are_too_large(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        for name in "abc":
            await responses.put(OWNER, KeptResponse(name, clock.now(), b"x" * 40, (b"y" * 40,), b"z" * 20))
        assert [await responses.get(OWNER, name) is not None for name in "abc"] == [False, True, True]

    async def test_one_that_is_too_large_alone_displaces_no_other(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        await responses.put(OWNER, KeptResponse("a", clock.now(), b"x" * 100, ()))
        await responses.put(OWNER, KeptResponse("b", clock.now(), b"x" * 300, ()))
        assert await responses.get(OWNER, "a") is not None and await responses.get(OWNER, "b") is None

    async def test_room_of_what_is_deleted_or_replaced_is_free_again(self, clock: FakeClock) -> None:
        responses = InprocResponses(clock, most_bytes=250)
        for _ in range(5):
            await responses.put(OWNER, KeptResponse("a", clock.now(), b"x" * 100, ()))
        await responses.put(OWNER, KeptResponse("b", clock.now(), b"x" * 100, ()))
        await responses.delete(OWNER, "a")
        await responses.put(OWNER, KeptResponse("c", clock.now(), b"x" * 100, ()))
        assert await responses.get(OWNER, "b") is not None and await responses.get(OWNER, "c") is not None
