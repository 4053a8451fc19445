"""What every store of responses must do: one suite, run over each adapter.

    class TestMyResponses(ResponsesContract):
        @pytest.fixture
        def responses(self, clock): return MyResponses(...)

Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`.
"""

import pytest

from cauce.domain.request import Scope
from cauce.ports.responses import KeptResponse, Responses
from cauce.stores.inproc.responses import KEEP
from cauce.testing.clock import FakeClock

OWNER = Scope(tenant="a", key="web")


def kept(clock: FakeClock, id: str = "resp_1", body: bytes = b'{"id":"resp_1"}') -> KeptResponse:
    """A response that ended now."""
    return KeptResponse(id, clock.now(), body, (b'{"role":"user","content":"hi"}',), b"tape")


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
