"""Conversations of real servers that are killed: what was answered is in its conversation once, whoever comes to copy it."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.e2e.tale import TALE, Teller, table
from tests.http import ask, connection, within
from tests.postgres_server import running_postgres

pytestmark = pytest.mark.anyio

RAW = b'{"model":"up/m","messages":[{"role":"user","content":"Tell."}],"conversation_id":"c"}'


async def turns(port: int, count: int = 2) -> list[dict[str, Any]]:
    """The turns of the conversation, once there are so many."""

    async def look() -> list[dict[str, Any]]:
        while True:
            found = await ask(port, "GET", "/conversations/c")
            if found.status == 200 and found.json()["count"] >= count:
                return found.json()["turns"]

    return await within(look(), 60)


async def settled(file: Path, port: int) -> None:
    """Return once the log says that what ended was copied."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        while database.execute("SELECT settled FROM streams").fetchall() != [(1,)]:
            await ask(port, "GET", "/health/live")


def texts(some: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(turn["role"], turn["content"], turn["status"]) for turn in some]


WHOLE = [("user", "Tell.", "complete"), ("assistant", TALE, "complete")]


async def test_answer_of_a_server_that_is_killed_right_after_the_end_is_kept_once_by_the_next(tmp_path: Path) -> None:
    async with Upstream(Reply(TALE)) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with connection(serve.port) as client:
                await client.send("POST", "/chat/stream/s", RAW)
                await client.head()
                await within(client.until(b'"type":"complete"'), 20)
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        folder = tmp_path / ".local" / "share" / "cauce"
        # As it is left where the kill comes before the copy, and where it comes between the copy and its mark.
        for copied in (False, True):
            with contextlib.closing(sqlite3.connect(folder / "streams.db", isolation_level=None)) as database:
                database.execute("UPDATE streams SET settled = 0")
            if not copied:
                with contextlib.closing(sqlite3.connect(folder / "conversations.db", isolation_level=None)) as database:
                    database.execute("DELETE FROM turns")
                    database.execute("DELETE FROM conversations")
            with Serve(tmp_path) as serve:
                await asyncio.to_thread(serve.start)
                assert texts(await turns(serve.port)) == WHOLE
                await within(settled(folder / "streams.db", serve.port), 60)
                await asyncio.to_thread(serve.stop, signal.SIGTERM)
            with contextlib.closing(sqlite3.connect(folder / "conversations.db")) as database:
                assert database.execute("SELECT count(*) FROM turns").fetchall() == [(2,)]


async def test_answer_that_is_taken_over_is_kept_once(tmp_path: Path) -> None:
    async with Upstream(Teller(before=7)) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with connection(serve.port) as client:
                await client.send("POST", "/chat/stream/s", RAW)
                await client.head()
                await within(client.until(b'"palabra6'), 20)
                assert (await ask(serve.port, "GET", "/conversations/c")).status == 404
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            assert texts(await turns(serve.port)) == WHOLE
            await asyncio.to_thread(serve.stop, signal.SIGTERM)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The configuration of a log that several servers have, and of conversations with it."""
    common = f'[streams]\nstore = "{request.param}"\nlease = 1\n'
    if request.param == "sqlite":
        yield common + f'folder = "{tmp_path_factory.mktemp("streams")}"\n'
    else:
        with running_postgres() as url:
            yield common + f'[postgres]\nurl = "{url}"\n'


async def test_conversation_goes_on_at_any_of_several_servers(shared: str, tmp_path: Path) -> None:
    teller = Teller(before=6)
    async with Upstream(teller) as upstream:
        with contextlib.ExitStack() as stack:
            nodes: list[Serve] = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "cauce.toml").write_text(table(upstream.base_url) + shared)
                nodes.append(stack.enter_context(Serve(tmp_path / name)))
            await asyncio.gather(*[asyncio.to_thread(node.start) for node in nodes])
            one, other = nodes
            async with connection(one.port) as client:
                await client.send("POST", "/chat/stream/s", RAW)
                await client.head()
                await within(client.until(b'"palabra5'), 20)
                await asyncio.to_thread(one.stop, signal.SIGKILL)
            assert texts(await turns(other.port)) == WHOLE
            again = stack.enter_context(Serve(tmp_path / "one"))
            await asyncio.to_thread(again.start)
            await ask(again.port, "POST", "/chat/stream/s2", RAW)
            for node in (again, other):
                assert texts(await turns(node.port, 4)) == WHOLE * 2
