"""Answers whose provider dies after any delta, read by the official SDKs: whole, byte for byte, where a model goes on exactly."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.clients.workers import Given, Workers
from tests.integration.test_recovery import ORACLE, ROUTE, going_on, table
from tests.serving import Served, serving

pytestmark = pytest.mark.anyio


class Ends(msgspec.Struct, frozen=True):
    """A running Cauce and the provider that dies."""

    served: Served
    cutting: Upstream


@pytest.fixture(scope="module")
async def ends() -> AsyncIterator[Ends]:
    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=1)))
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        yield Ends(await stack.enter_async_context(serving(toml)), cutting)


@pytest.mark.parametrize("case", ["anthropic_message", "gemini_answer"])
async def test_sdk_gets_the_answer_byte_for_byte_wherever_it_was_cut(workers: Workers, ends: Ends, case: str) -> None:
    worker = workers.of("clients", "recorded.py")
    for place in range(1, 51):
        ends.cutting.script(Reply(ORACLE, cut_after=place))
        told = await worker.run(case, Given(ends.served.url, model="route", more={"stream": True}))
        parts = told["content"] if case == "anthropic_message" else told["candidates"]["0"]["parts"]
        assert "".join([part["text"] for part in parts]) == ORACLE, place
