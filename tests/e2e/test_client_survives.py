"""A stream of the Python client outlives its server: what it has is kept, what follows comes once, and it ends."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cauce.client import Client, Progress, Reconnect, Stream
from cauce.domain.delta import Restart, Text
from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.http import within
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio


async def rest_of(stream: Stream) -> str:
    """The pieces that come from here on."""
    pieces: list[str] = []
    async for delta in stream:
        assert not isinstance(delta, Restart)
        pieces += [delta.text] if isinstance(delta, Text) else []
    return "".join(pieces)


async def test_stream_reads_on_when_its_server_is_killed_and_started_again(tmp_path: Path) -> None:
    told: list[Progress] = []
    gate = asyncio.Semaphore(2)
    async with Upstream(Reply(text="one two lost", gate=gate), Reply(text="three four")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with Client(serve.url, reconnect=Reconnect(attempts=400, base=0.05, most=0.1)) as client:
                async with client.stream("Hello?", model="up/m", id="survivor", on_progress=told.append) as stream:
                    while stream.text != "one two ":
                        await within(anext(stream))
                    os.kill(serve.pid, signal.SIGKILL)
                    await asyncio.to_thread(serve.wait)
                    reading = asyncio.ensure_future(rest_of(stream))
                    await asyncio.to_thread(serve.start, "--port", str(serve.port))
                    assert "one two " + await within(reading, 30) == stream.text == "one two three four"
                async with client.resume("survivor") as again:
                    assert await rest_of(again) == stream.text
            await asyncio.to_thread(serve.stop, signal.SIGTERM)
    assert "reconnecting" in [one.phase for one in told] and stream.progress.phase == "done"
