"""What every store of responses must do: one suite, run over each adapter.

    class TestMyResponses(ResponsesContract):
        @pytest.fixture
        def responses(self, clock): return MyResponses(...)

Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`.
"""

import msgspec
import pytest

from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey
from cauce.ports.responses import KeptResponse, Responses
from cauce.stores.inproc.responses import KEEP
from cauce.testing.clock import FakeClock

OWNER = Scope(tenant="a", key="web")
KEY = StreamKey(OWNER.principal, "resp_1")


def kept(clock: FakeClock, id: str = "resp_1", body: bytes = b'{"id":"resp_1"}') -> KeptResponse:
    """A response that ended now."""
    return KeptResponse(id, clock.now(), body, (b'{"role":"user","content":"hi"}',), b"tape", private=True)


class ResponsesContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    async def test_response_that_is_put_is_got_as_it_was(self, responses: Responses, clock: FakeClock) -> None:
        response = kept(clock)
        await responses.put(OWNER, response)
        assert await responses.get(OWNER, response.id) == response

    async def test_unknown_response_is_none(self, responses: Responses) -> None:
        assert await responses.get(OWNER, "resp_never") is None
        assert not await responses.delete(OWNER, "resp_never")

    async def test_putting_again_replaces(self, responses: Responses, clock: FakeClock) -> None:
        await responses.put(OWNER, kept(clock))
        await responses.put(OWNER, kept(clock, body=b'{"later":true}'))
        found = await responses.get(OWNER, "resp_1")
        assert found is not None and found.body == b'{"later":true}'

    async def test_deleted_response_is_gone(self, responses: Responses, clock: FakeClock) -> None:
        await responses.put(OWNER, kept(clock))
        assert await responses.delete(OWNER, "resp_1")
        assert await responses.get(OWNER, "resp_1") is None
        assert not await responses.delete(OWNER, "resp_1")

    async def test_responses_of_a_user_are_erased_and_no_others(self, responses: Responses, clock: FakeClock) -> None:
        for id, user in (("resp_1", "ana"), ("resp_2", "ana"), ("resp_3", "bea"), ("resp_4", None)):
            await responses.put(OWNER, msgspec.structs.replace(kept(clock, id), user=user))
        other = Scope(tenant="a", key="other")
        await responses.put(other, msgspec.structs.replace(kept(clock), user="ana"))
        await responses.promise(StreamKey(OWNER.principal, "resp_5"), clock.now())
        assert await responses.erase(OWNER.principal, "ana") == 2
        left = [id for id in ("resp_1", "resp_2", "resp_3", "resp_4") if await responses.get(OWNER, id) is not None]
        assert left == ["resp_3", "resp_4"] and await responses.get(other, "resp_1") is not None
        assert await responses.erase(OWNER.principal, "ana") == 0
        assert await responses.erase(OWNER.principal, None) == 2
        # What is on its way is its stream's matter, and one that was erased does not come back.
        assert [key.id for key in await responses.promised(10)] == ["resp_5"]
        await responses.settle(StreamKey(OWNER.principal, "resp_1"), kept(clock))
        assert await responses.get(OWNER, "resp_1") is None and await responses.deleted(OWNER, "resp_1")

    async def test_settled_response_is_its_users(self, responses: Responses, clock: FakeClock) -> None:
        await responses.promise(KEY, clock.now())
        await responses.settle(KEY, msgspec.structs.replace(kept(clock), user="ana"))
        assert await responses.erase(OWNER.principal, "ana") == 1 and await responses.get(OWNER, KEY.id) is None

    @pytest.mark.parametrize("other", [Scope(tenant="b", key="web"), Scope(tenant="a", key="other"), Scope()])
    async def test_only_its_owner_sees_a_response(self, responses: Responses, clock: FakeClock, other: Scope) -> None:
        await responses.put(OWNER, kept(clock))
        assert await responses.get(other, "resp_1") is None
        assert not await responses.delete(other, "resp_1")
        await responses.put(other, kept(clock, body=b'{"mine":true}'))
        found = await responses.get(OWNER, "resp_1")
        assert found is not None and found.body == b'{"id":"resp_1"}'

    async def test_user_of_a_key_is_no_other_owner(self, responses: Responses, clock: FakeClock) -> None:
        await responses.put(OWNER, kept(clock))
        assert await responses.get(Scope(tenant="a", key="web", user="u1"), "resp_1") is not None

    async def test_response_is_forgotten_with_age(self, responses: Responses, clock: FakeClock) -> None:
        await responses.put(OWNER, kept(clock))
        clock.advance(KEEP - 1)
        assert await responses.get(OWNER, "resp_1") is not None
        clock.advance(1)
        assert await responses.get(OWNER, "resp_1") is None

    async def test_answer_of_a_stream_is_there_once_it_is_settled(self, responses: Responses, clock: FakeClock) -> None:
        await responses.promise(KEY, clock.now())
        assert await responses.get(OWNER, KEY.id) is None
        assert await responses.promised(10) == [KEY]
        await responses.settle(KEY, kept(clock))
        assert await responses.get(OWNER, KEY.id) == kept(clock)
        assert await responses.promised(10) == []

    async def test_settling_again_changes_nothing(self, responses: Responses, clock: FakeClock) -> None:
        for body in (b'{"first":true}', b'{"again":true}'):
            await responses.settle(KEY, kept(clock, body=body))
        await responses.promise(KEY, clock.now())
        found = await responses.get(OWNER, KEY.id)
        assert found is not None and found.body == b'{"first":true}'
        assert await responses.promised(10) == []

    async def test_promises_are_told_the_oldest_first_and_so_many_of_them(
        self, responses: Responses, clock: FakeClock
    ) -> None:
        keys = [StreamKey(principal, id) for id in "xyz" for principal in ("a/web", "b/web")]
        for key in keys:
            await responses.promise(key, clock.now())
        assert await responses.promised(4) == keys[:4]
        assert await responses.promised(100) == keys

    async def test_promise_that_is_not_kept_is_given_up(self, responses: Responses, clock: FakeClock) -> None:
        await responses.promise(KEY, clock.now())
        await responses.renounce(KEY)
        assert await responses.promised(10) == []
        assert not await responses.deleted(OWNER, KEY.id)
        await responses.put(OWNER, kept(clock))
        await responses.renounce(KEY)
        assert await responses.get(OWNER, KEY.id) is not None

    @pytest.mark.parametrize("settled", [False, True])
    async def test_deleted_answer_of_a_stream_does_not_come_back(
        self, responses: Responses, clock: FakeClock, settled: bool
    ) -> None:
        await responses.promise(KEY, clock.now())
        if settled:
            await responses.settle(KEY, kept(clock))
        assert not await responses.deleted(OWNER, KEY.id)
        assert await responses.delete(OWNER, KEY.id)
        assert await responses.deleted(OWNER, KEY.id)
        await responses.settle(KEY, kept(clock))
        await responses.promise(KEY, clock.now())
        assert await responses.get(OWNER, KEY.id) is None
        assert await responses.promised(10) == []
        assert not await responses.delete(OWNER, KEY.id)

    async def test_only_its_owner_deletes_a_promised_response(self, responses: Responses, clock: FakeClock) -> None:
        await responses.promise(KEY, clock.now())
        assert not await responses.delete(Scope(tenant="b", key="web"), KEY.id)
        assert await responses.promised(10) == [KEY]
