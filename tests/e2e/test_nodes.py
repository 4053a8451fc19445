"""Several servers with one log of streams: one is killed, stands still, is asked to cancel; another goes on or hears of it."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from cauce.bootstrap.running import application
from cauce.config import load
from cauce.domain.delta import Finish
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import StreamKey
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.e2e.process import Serve
from tests.e2e.tale import BODY, RAW, TALE, Teller, begin, check_whole, ended, rest, state, table
from tests.http import ask, connection, within
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

pytestmark = pytest.mark.anyio

LEASE = 1


@pytest.fixture(scope="module", params=["sqlite", "postgres", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The configuration of a log that several servers have."""
    common = f'[streams]\nstore = "{request.param}"\nlease = {LEASE}\n'
    if request.param == "sqlite":
        yield common + f'folder = "{tmp_path_factory.mktemp("streams")}"\n'
    elif request.param == "postgres":
        with running_postgres() as url:
            yield common + f'[postgres]\nurl = "{url}"\n'
    else:
        with running_redis() as server:
            yield common + f'[redis]\nurl = "{server.url}"\n'


@contextlib.asynccontextmanager
async def two(shared: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[tuple[Serve, Serve]]:
    """Two servers that share a log and nothing else."""
    with contextlib.ExitStack() as stack:
        nodes: list[Serve] = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "cauce.toml").write_text(table(upstream.base_url) + shared)
            nodes.append(stack.enter_context(Serve(folder)))
        await asyncio.gather(*[asyncio.to_thread(node.start) for node in nodes])
        yield nodes[0], nodes[1]


async def test_another_server_goes_on_when_one_is_killed(shared: str, tmp_path: Path) -> None:
    teller = Teller(before=6)
    async with Upstream(teller) as upstream, two(shared, upstream, tmp_path) as (one, other):
        async with connection(one.port) as client:
            seen = await begin(client, 6, "killed")
            reading = asyncio.ensure_future(ask(other.port, "GET", "/chat/stream/killed/resume?after=0"))
            await asyncio.to_thread(one.stop, signal.SIGKILL)
        check_whole(seen, await rest(other.port, seen, "killed"))
        check_whole(b"", await within(reading, 30))
        assert (await state(other.port, "killed"))["epoch"] == 2
    assert len(teller.begun) == 2


async def test_private_stream_of_a_server_that_is_killed_is_gone_on_with_by_nobody_off_its_machine(
    shared: str, tmp_path: Path
) -> None:
    """A file is this machine's, so a server that shares it may go on; what is in PostgreSQL or Redis others can read."""
    asked: list[str] = []

    def answer(request: Ask) -> Reply:
        first, *_, last = request.body["messages"] * 2
        asked.append(first["content"])
        if asked.count(first["content"]) == 1:
            return Reply(TALE, stall_after=6)
        return Reply(TALE[len(last["content"]) :] if last["role"] == "assistant" else TALE)

    async with Upstream(answer) as upstream, two(shared, upstream, tmp_path) as (one, other):
        async with contextlib.AsyncExitStack() as stack:
            for word, metadata in (("private", {"privacy": "local"}), ("open", {})):
                client = await stack.enter_async_context(connection(one.port))
                body = {"model": "up/m", "messages": [{"role": "user", "content": word}], "metadata": metadata}
                await client.send("POST", f"/chat/stream/{word}", msgspec.json.encode(body))
                await client.head()
                await within(client.until("palabra5ñ ".encode()), 20)
            await asyncio.to_thread(one.stop, signal.SIGKILL)
        assert (await ended(other.port, "open"))["state"] == "completed"
        if "sqlite" in shared:
            assert (await ended(other.port, "private"))["state"] == "completed"
        else:
            assert (await ask(other.port, "GET", "/chat/stream/private")).status == 404
    assert asked.count("open") == 2 and asked.count("private") == (2 if "sqlite" in shared else 1)


async def test_server_that_stood_still_longer_than_a_lease_is_fenced_off_and_closes_its_upstream(
    shared: str, tmp_path: Path
) -> None:
    teller = Teller(before=6)
    async with Upstream(teller) as upstream, two(shared, upstream, tmp_path) as (zombie, other):
        async with connection(zombie.port) as client:
            seen = await begin(client, 6, "still")
            os.kill(zombie.pid, signal.SIGSTOP)
            try:
                found = await ended(other.port, "still")
                assert (found["state"], found["epoch"]) == ("completed", 2) and not upstream.closed.is_set()
            finally:
                os.kill(zombie.pid, signal.SIGCONT)
            await within(upstream.closed.wait(), 20)
            # Its own reader gets what the other one wrote, over the connection it has.
            seen += await within(client.until(b'"type":"complete"'), 20)
        check_whole(b"", await rest(zombie.port, b"", "still"))
        assert seen.count(b'"type":"complete"') == 1
    assert len(teller.begun) == 2


async def test_cancel_on_any_server_reaches_the_one_that_writes(shared: str, tmp_path: Path) -> None:
    teller = Teller(before=3)
    async with Upstream(teller) as upstream, two(shared, upstream, tmp_path) as (one, other):
        async with connection(one.port) as client:
            await begin(client, 3, "cancelled")
            await ask(other.port, "DELETE", "/chat/stream/cancelled")
            await within(client.until(b'"type":"cancelled"'), 10)
            await within(upstream.closed.wait())
        assert (await state(other.port, "cancelled"))["state"] == "cancelled"
    assert len(teller.begun) == 1


async def test_user_erased_at_any_server_is_gone_from_the_one_that_writes(shared: str, tmp_path: Path) -> None:
    hers = RAW.replace(b'"model"', b'"user":"ana","model"')
    async with Upstream(Teller(before=3)) as upstream, two(shared, upstream, tmp_path) as (one, other):
        async with connection(one.port) as client:
            await client.send("POST", "/chat/stream/hers", hers)
            await client.head()
            seen = await within(client.until("palabra2ñ ".encode()), 20)
            receipt = (await within(ask(other.port, "DELETE", "/users/ana"), 20)).json()
            await within(upstream.closed.wait(), 20)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while chunk := await within(client.chunk(), 20):
                    seen += chunk
        assert b'"type":"complete"' not in seen
        async with asyncio.timeout(60):
            # Had its holder not ended it by then, the sweep deletes it.
            while receipt["pending"]:
                receipt = (await ask(other.port, "DELETE", "/users/ana")).json()
        statuses = [(await ask(node.port, "GET", "/chat/stream/hers")).status for node in (one, other)]
        again = await ask(one.port, "POST", "/chat/stream/hers", json.loads(hers))
    assert statuses == [410, 410] and again.status == 410


async def test_user_erased_while_the_server_that_wrote_is_dead_is_gone_and_nothing_is_regenerated(
    shared: str, tmp_path: Path
) -> None:
    teller = Teller(before=3)
    # Nobody takes it over before it is erased.
    longer = shared.replace(f"lease = {LEASE}", "lease = 5")
    async with Upstream(teller) as upstream, two(longer, upstream, tmp_path) as (one, other):
        async with connection(one.port) as client:
            await client.send("POST", "/chat/stream/orphan", RAW.replace(b'"model"', b'"user":"ana","model"'))
            await client.head()
            await within(client.until("palabra2ñ ".encode()), 20)
            await asyncio.to_thread(one.stop, signal.SIGKILL)
        receipt = (await within(ask(other.port, "DELETE", "/users/ana"), 20)).json()
        assert (receipt["cancelled"], receipt["deleted"] + receipt["pending"]) == (1, 1)
        async with asyncio.timeout(60):
            while (await ask(other.port, "DELETE", "/users/ana")).json()["pending"]:
                pass
        assert (await ask(other.port, "GET", "/chat/stream/orphan")).status == 410
    assert len(teller.begun) == 1


async def test_cancel_that_overtakes_its_start_holds_on_any_server(shared: str, tmp_path: Path) -> None:
    teller = Teller(before=3)
    async with Upstream(teller) as upstream, two(shared, upstream, tmp_path) as (one, other):
        assert (await ask(other.port, "DELETE", "/chat/stream/early")).status == 404
        started = await within(ask(one.port, "POST", "/chat/stream/early", BODY))
        assert [frame["type"] for frame in started.frames()] == ["start", "cancelled"]
        assert (await state(other.port, "early"))["state"] == "cancelled"
    assert teller.begun == []


async def test_server_that_is_stopped_hands_over_to_the_other_at_once(shared: str, tmp_path: Path) -> None:
    teller = Teller(before=4)
    longer = shared.replace(f"lease = {LEASE}", "lease = 60") + "[server]\ndrain = 0.1\n"
    async with Upstream(teller) as upstream, two(longer, upstream, tmp_path) as (one, other):
        async with connection(one.port) as client:
            seen = await begin(client, 4, "handed")
            stopping = asyncio.ensure_future(asyncio.to_thread(one.stop, signal.SIGTERM))
            # Long before its lease is over.
            check_whole(seen, await rest(other.port, seen, "handed"))
            assert await within(stopping, 20) == 0
    assert len(teller.begun) == 2


@pytest.mark.parametrize(
    "log",
    [
        'store = "postgres"\n[postgres]\nurl = "postgresql://127.0.0.1:1/none"\n',
        'store = "redis"\n[redis]\nurl = "redis://127.0.0.1:1/0"\n',
    ],
    ids=["postgres", "redis"],
)
async def test_server_whose_log_is_down_refuses_streams_and_answers_everything_else(log: str, tmp_path: Path) -> None:
    async with Upstream() as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url) + "[streams]\n" + log)
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            refused = await within(ask(serve.port, "POST", "/chat/stream/s", BODY), 20)
            plain = await within(ask(serve.port, "POST", "/v1/chat/completions", BODY), 20)
            health = (await ask(serve.port, "GET", "/health")).json()
            assert await asyncio.to_thread(serve.stop, signal.SIGTERM) == 0
        told = serve.errors.read_text("utf-8")
    assert (refused.status, refused.json()["error_code"]) == (503, "overloaded") and "retry-after" in refused.headers
    assert plain.status == 200
    assert health["status"] == "degraded" and health["stream_log"].endswith(" (gone)")
    assert "streams are refused until their log" in told and "Traceback" not in told


async def test_log_that_comes_back_takes_streams_again(tmp_path: Path) -> None:
    with running_redis() as redis:
        redis.stop()
        async with Upstream() as upstream:
            toml = f'[streams]\nstore = "redis"\n[redis]\nurl = "{redis.url}"\n'
            (tmp_path / "cauce.toml").write_text(table(upstream.base_url) + toml)
            with Serve(tmp_path) as serve:
                await asyncio.to_thread(serve.start)
                assert (await ask(serve.port, "POST", "/chat/stream/s", BODY)).status == 503
                await asyncio.to_thread(redis.start)
                async with asyncio.timeout(20):
                    while (await ask(serve.port, "GET", "/health")).json()["stream_log"] != "redis":
                        pass
                response = await within(ask(serve.port, "POST", "/chat/stream/s", BODY), 20)
    assert response.frames()[-1]["type"] == "complete"


async def test_two_apps_on_one_data_folder_share_the_streams_of_a_folder_they_name(tmp_path: Path) -> None:
    variables = {
        "CAUCE_SERVER__DATA_DIR": str(tmp_path / "data"),
        "CAUCE_STREAMS__FOLDER": str(tmp_path / "streams"),
        "CAUCE_DISCOVERY__ENABLED": "false",
    }
    config = load(None, variables, tmp_path)
    apps = [application(config), application(config)]
    first, second = [app.state["services"] for app in apps]
    for services in (first, second):
        await services.start()
    key = StreamKey("p", "s")
    request = Request("offline", (Message("user", (TextPart("What is a cascade?"),)),))
    await first.streams.start(key, request, Scope(), "req")
    records = [record async for batch in second.streams.follow(key, 0) for record in batch]
    for services in (first, second):
        await services.stop()
    assert isinstance(records[-1].delta, Finish) and records[-1].delta.outcome == "completed"
