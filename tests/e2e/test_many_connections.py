"""A server process that may open few files, and more clients at once than it has room for."""

import asyncio
import resource
from pathlib import Path

import msgspec
import pytest

from cauce.server.door import places, raise_limit
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.load.gateway import Tally, chat, gateway, provider
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio

FEW = (256, 256)


@pytest.fixture(autouse=True)
def room() -> None:
    """Clients need files as well."""
    raise_limit()


async def test_more_clients_than_there_are_files_for_wait_and_are_all_answered(tmp_path: Path) -> None:
    tally = Tally()
    async with (
        Upstream(Reply(delay=0.2)) as upstream,
        gateway(tmp_path, provider(upstream), FEW, CAUCE_LOG__LEVEL="warning") as served,
    ):

        async def client(number: int) -> None:
            body = chat(stream=number % 3 == 0)
            tally.take("one", await ask(served.port, "POST", "/v1/chat/completions", body))

        await within(asyncio.gather(*[client(number) for number in range(600)]), 60)
        usage = await served.get("/usage")
        logged = served.errors
    assert dict(tally.statuses) == {200: 600}, tally.first_error
    assert len(tally.order) == 600
    assert usage["total"]["requests"] == 600 == upstream.record.answered.total()
    # A few are let in while the door is being closed.
    assert upstream.record.most_at_once <= places(FEW[0]) + 8
    assert logged.count("the limit of open files has no room for more") == 1 == len(logged.splitlines()), logged


async def test_clients_that_keep_their_connections_leave_room_for_those_that_wait(tmp_path: Path) -> None:
    body = msgspec.json.encode(chat())
    async with Upstream(Reply(delay=0.01)) as upstream, gateway(tmp_path, provider(upstream), FEW) as served:
        enough = asyncio.Event()
        answered: list[Response] = []

        async def client() -> None:
            async with connection(served.port) as kept:
                await kept.send("POST", "/v1/chat/completions", body)
                answered.append(await kept.response())
                if len(answered) == 300:
                    enough.set()
                await enough.wait()

        await within(asyncio.gather(*[client() for _ in range(300)]), 60)
    assert {one.status for one in answered} == {200}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system does not tell the limits of a process")
async def test_soft_limit_of_open_files_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Upstream(Reply(delay=0.2)) as upstream, gateway(tmp_path, provider(upstream), (256, hard)) as served:
        assert resource.prlimit(served.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        answers = await asyncio.gather(*[ask(served.port, "POST", "/v1/chat/completions", chat()) for _ in range(300)])
    assert {one.status for one in answers} == {200}


async def test_connections_kept_to_one_provider_leave_files_for_those_to_another(tmp_path: Path) -> None:
    route = '[models.route]\ncandidates = ["up/m", "other/m"]\n[retry]\nattempts = 1\n[breaker]\nenabled = false\n'
    tally = Tally()
    async with Upstream(Reply(status=503, delay=0.2)) as refusing, Upstream(Reply(delay=0.2)) as well:
        toml = provider(refusing) + upstream_table("other", well.base_url) + route
        async with gateway(tmp_path, toml, FEW, CAUCE_LOG__LEVEL="error") as served:

            async def client() -> None:
                body = {**chat(), "model": "route"}
                tally.take("one", await ask(served.port, "POST", "/v1/chat/completions", body))

            await within(asyncio.gather(*[client() for _ in range(300)]), 60)
            logged = served.errors
    assert dict(tally.statuses) == {200: 300}, tally.first_error
    assert logged == ""
