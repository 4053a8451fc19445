"""Streams of a real server that is stopped, started again, and killed in the middle of them."""

import asyncio
import signal
from pathlib import Path

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.e2e.tale import started
from tests.http import ask
from tests.serving import MESSAGES, upstream_table

pytestmark = pytest.mark.anyio

BODY = {"model": "up/m", "messages": MESSAGES}


async def killed(serve: Serve) -> None:
    await asyncio.to_thread(serve.stop, signal.SIGKILL)


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


async def test_streams_that_are_kept_in_memory_are_written_nowhere(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a b")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await started(serve, CAUCE_STREAMS__STORE="memory")
            response = await ask(serve.port, "POST", "/chat/stream/s", BODY)
            assert response.frames()[-1]["data"] == "a b"
            await killed(serve)
        with Serve(tmp_path) as serve:
            await started(serve, CAUCE_STREAMS__STORE="memory")
            assert (await ask(serve.port, "GET", "/chat/stream/s")).status == 404
    assert not list(tmp_path.rglob("streams.db*"))
