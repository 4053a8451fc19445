"""Connections that are made before anybody needs them."""

import pytest

from cauce.testing.upstream import Upstream
from tests.http import ask, within
from tests.serving import MESSAGES, serving, upstream_table

pytestmark = pytest.mark.anyio

BODY = {"model": "up/m", "messages": MESSAGES}


async def test_first_request_goes_over_a_connection_that_was_there_before_it(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        before = upstream.record.opened
        answered = await ask(served.port, "POST", "/v1/chat/completions", BODY)
    assert answered.status == 200
    assert (before, upstream.record.opened) == (1, 1)


async def test_provider_that_is_down_neither_delays_nor_stops_the_start(upstream: Upstream) -> None:
    async with Upstream() as gone:
        port = gone.port
    toml = upstream_table("down", f"http://127.0.0.1:{port}/v1", default_model="m") + upstream_table(
        "up", upstream.base_url, default_model="m"
    )
    async with serving(toml) as served:
        assert (await within(ask(served.port, "POST", "/llm/message", BODY))).status == 200
        assert (await within(ask(served.port, "GET", "/health/ready"))).status == 200
