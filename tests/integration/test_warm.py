"""Connections that are made before anybody needs them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cauce.bootstrap import runtime
from cauce.bootstrap.background import WARM_EVERY, Background
from cauce.providers.fetch import Fetcher
from cauce.testing.clock import FakeClock
from cauce.testing.listening import Listening
from cauce.testing.upstream import Upstream
from tests.http import ask, within
from tests.serving import MESSAGES, configured, serving, upstream_table

pytestmark = pytest.mark.anyio

BODY = {"model": "up/m", "messages": MESSAGES}
LISTED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{"data":[{"id":"m"}]}'


class Impatient(Listening):
    """An upstream that lists a model, and hangs up on connections that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0
        self.came = asyncio.Event()
        self._open: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def hang_up(self) -> None:
        """Returns when everybody has noticed."""
        self.came.clear()
        gone = list(self._open.items())
        for writer, _ in gone:
            writer.write_eof()
        for _, left in gone:
            await left.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.came.set()
        self._open[writer] = asyncio.Event()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(LISTED)
        self._open.pop(writer).set()
        writer.close()


@contextlib.asynccontextmanager
async def idling(upstream: Impatient, toml: str = "") -> AsyncIterator[FakeClock]:
    """What a server does by itself in front of `upstream`, which it has asked for its models. Nobody asks the server anything."""
    config = configured(toml + upstream_table("up", f"http://127.0.0.1:{upstream.port}/v1"))
    built, clock = runtime(config), FakeClock()
    background = Background(config, built.router, built.services.streams, clock, Fetcher(config.fetch), 0)
    await background.start()
    try:
        await within(background.first_scan.wait())
        yield clock
    finally:
        await background.stop()


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


async def test_connection_that_an_upstream_gave_up_is_there_again_before_anybody_needs_it() -> None:
    async with Impatient() as upstream, idling(upstream) as clock:
        assert upstream.connections == 1
        for connections in (2, 3):
            await within(upstream.hang_up())
            await within(clock.until_waiting(2))
            clock.advance(WARM_EVERY)
            await within(upstream.came.wait())
            assert upstream.connections == connections


async def test_connection_that_is_there_is_enough() -> None:
    async with Impatient() as upstream, idling(upstream) as clock:
        for _ in range(3):
            await within(clock.until_waiting(2))
            clock.advance(WARM_EVERY)
        assert (await within(ask(upstream.port, "GET", "/v1/models"))).status == 200
        assert upstream.connections == 2, "one of them is ours"


async def test_where_it_is_turned_off_no_connection_is_made_before_somebody_needs_it() -> None:
    async with Impatient() as upstream, idling(upstream, "[server]\nwarm = false\n") as clock:
        await within(upstream.hang_up())
        clock.advance(WARM_EVERY)
        # Whatever was begun before this is there before it.
        assert (await within(ask(upstream.port, "GET", "/v1/models"))).status == 200
        assert upstream.connections == 2, "one of them is ours"
        assert clock.waiting == 1, "nothing but the next look at the models"
