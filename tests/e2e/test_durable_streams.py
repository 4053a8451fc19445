"""Streams of a real server that is stopped, started again, and killed in the middle of them."""

import asyncio
import signal
from pathlib import Path

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.http import Connection, ask, connection, within
from tests.serving import MESSAGES, upstream_table

pytestmark = pytest.mark.anyio

BODY = {"model": "up/m", "messages": MESSAGES}
RAW = b'{"model":"up/m","messages":[{"role":"user","content":"Say hello."}]}'


async def started(serve: Serve, **environment: str) -> None:
    def start() -> None:
        serve.start(**environment)

    await asyncio.to_thread(start)


async def killed(serve: Serve) -> None:
    await asyncio.to_thread(serve.stop, signal.SIGKILL)


async def read_until(client: Connection, text: bytes) -> bytes:
    await client.head()
    return await within(client.until(text), 20)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_finished_stream_is_read_again_after_a_restart_byte_for_byte(tmp_path: Path, how: signal.Signals) -> None:
    async with Upstream(Reply(text="río arriba, río abajo")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await started(serve)
            first = await ask(serve.port, "POST", "/chat/stream/s", BODY)
            await asyncio.to_thread(serve.stop, how)
        with Serve(tmp_path) as serve:
            await started(serve)
            again = await ask(serve.port, "GET", "/chat/stream/s/resume?after=0")
            part = await ask(serve.port, "GET", "/chat/stream/s/resume?after=3&epoch=1")
            attached = await ask(serve.port, "POST", "/chat/stream/s", BODY)
    assert first.frames()[-1]["type"] == "complete"
    assert again.body == attached.body == first.body
    assert [frame["seq"] for frame in part.frames()] == list(range(4, len(first.frames()) + 1))
    assert len(upstream.requests) == 1


async def test_stream_that_a_kill_cut_is_ended_honestly_at_the_next_start(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a b c d", stall_after=2)) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await client.send("POST", "/chat/stream/s", RAW)
                seen = await read_until(client, b'"data":"b "')
                await killed(serve)
        with Serve(tmp_path) as serve:
            await started(serve)
            cursor = seen.count(b"\ndata: ")
            rest = await within(ask(serve.port, "GET", f"/chat/stream/s/resume?after={cursor}&epoch=1"), 20)
            state = (await ask(serve.port, "GET", "/chat/stream/s")).json()
            simple = await within(ask(serve.port, "POST", "/chat/stream/s/resume"), 20)
    (last,) = rest.frames()
    assert simple.frames()[0]["resumed"] and simple.frames()[1:] == [last]
    assert (last["type"], last["final_error"], last["error_code"]) == ("error", True, "overloaded")
    assert (last["seq"], last["epoch"], last["partial"]) == (cursor + 1, 2, "a b ")
    assert (state["state"], state["epoch"]) == ("incomplete", 2)


async def test_stream_that_nothing_was_read_of_has_failed_at_the_next_start(tmp_path: Path) -> None:
    async with Upstream(Reply(silent=True)) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await client.send("POST", "/chat/stream/s", RAW)
                await read_until(client, b'"type":"start"')
                await killed(serve)
        with Serve(tmp_path) as serve:
            await started(serve)
            assert (await ask(serve.port, "GET", "/chat/stream/s")).json()["state"] == "failed"


async def test_without_durable_streams_nothing_is_written(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a b")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await started(serve, CAUCE_STREAMS__DURABLE="false")
            response = await ask(serve.port, "POST", "/chat/stream/s", BODY)
            assert response.frames()[-1]["data"] == "a b"
            await killed(serve)
        with Serve(tmp_path) as serve:
            await started(serve, CAUCE_STREAMS__DURABLE="false")
            assert (await ask(serve.port, "GET", "/chat/stream/s")).status == 404
    assert not list(tmp_path.rglob("streams.db*"))
