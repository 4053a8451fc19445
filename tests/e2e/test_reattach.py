"""A server that goes down in the middle of an answer, and the next one that goes on with it to the byte."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cauce.domain.stream import AttemptRow
from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.http import ask, connection, within
from tests.integration.test_recovery import ORACLE, background, going_on, keeping, table

pytestmark = pytest.mark.anyio

BODY = msgspec.json.encode({"model": "one/m", "messages": [{"role": "user", "content": "Tell."}]})


async def whole_after(folder: Path, how: signal.Signals, gate: asyncio.Semaphore) -> str:
    """The text of an answer whose server was stopped in the midst of it, as its reader has it from both servers."""
    return (await end_after(folder, how, gate))["data"]


async def end_after(folder: Path, how: signal.Signals, gate: asyncio.Semaphore) -> dict[str, Any]:
    """The last frame of such an answer."""
    with Serve(folder) as serve:
        await asyncio.to_thread(serve.start, CAUCE_SERVER__DRAIN="0.05")
        async with connection(serve.port) as client:
            await client.send("POST", "/chat/stream/s", BODY)
            await client.head()
            seen = await within(client.until(b"palabra9"), 20)
            await asyncio.to_thread(serve.stop, how)
    for _ in range(200):
        gate.release()
    with Serve(folder) as serve:
        await asyncio.to_thread(serve.start)
        cursor = int(seen.rpartition(b"\nid: ")[2].partition(b"\n")[0])
        rest = await within(ask(serve.port, "GET", f"/chat/stream/s/resume?after={cursor}&epoch=1"), 30)
        again = await within(ask(serve.port, "GET", "/chat/stream/s/resume?after=0"), 30)
    frames = again.frames()
    assert frames[-1]["type"] == "complete", frames[-1]
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert rest.frames() == frames[cursor:]
    assert "".join([frame["data"] for frame in frames if frame["type"] == "content"]) == frames[-1]["data"]
    return frames[-1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_answer_that_is_made_in_the_background_outlives_the_server_that_read_it(
    tmp_path: Path, how: signal.Signals
) -> None:
    gate = asyncio.Semaphore(12)
    async with Upstream(Reply(ORACLE, gate=gate)) as provider:
        (tmp_path / "cauce.toml").write_text(background("one", provider))
        assert await whole_after(tmp_path, how, gate) == ORACLE
        assert len(provider.requests) == 1 and len(provider.background.attached) == 1
        assert not provider.background.cancelled
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            told = (await ask(serve.port, "GET", "/usage")).json()
    assert (told["total"]["output_tokens"], told["estimated"]["output_tokens"]) == (5, 0), "paid once"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_stream_that_a_llama_cpp_server_keeps_outlives_the_server_that_read_it(
    tmp_path: Path, how: signal.Signals
) -> None:
    gate = asyncio.Semaphore(12)
    async with Upstream(Reply(ORACLE, gate=gate)) as provider:
        (tmp_path / "cauce.toml").write_text(keeping("one", provider))
        end = await end_after(tmp_path, how, gate)
        assert end["data"] == ORACLE and end["usage"]["output_tokens"] == 5, "paid once, and said so"
        assert len(provider.requests) == 1, "generated once"
        assert provider.replay.attached == [(provider.headers[0]["x-conversation-id"], 0)]
        assert not provider.replay.stopped
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            told = (await ask(serve.port, "GET", "/usage")).json()
    assert (told["total"]["output_tokens"], told["estimated"]["output_tokens"]) == (5, 0), "paid once"
    [file] = tmp_path.rglob("streams.db")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT row FROM attempts ORDER BY n").fetchall()
    bills = [msgspec.json.decode(row, type=AttemptRow) for (row,) in rows]
    left = "detached" if how == signal.SIGKILL else "cancelled"
    assert [(bill.strategy, bill.outcome) for bill in bills] == [("open", left), ("attach", "completed")]
    assert bills[0].usage is None or not bills[0].usage.output_tokens, "its successor takes over the bill"


async def test_cancel_between_two_servers_stops_the_stream_that_a_llama_cpp_server_keeps(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(12)
    async with Upstream(Reply(ORACLE, gate=gate)) as provider:
        (tmp_path / "cauce.toml").write_text(keeping("one", provider))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with connection(serve.port) as client:
                await client.send("POST", "/chat/stream/s", BODY)
                await client.head()
                await within(client.until(b"palabra9"), 20)
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        [file] = tmp_path.rglob("streams.db")
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE streams SET cancel_requested = 1")
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            frames = (await within(ask(serve.port, "GET", "/chat/stream/s/resume?after=0"), 30)).frames()
            await asyncio.to_thread(serve.stop, signal.SIGTERM)
        assert frames[-1]["type"] == "cancelled", frames[-1]
        assert provider.replay.stopped == [provider.headers[0]["x-conversation-id"]]
        assert len(provider.requests) == 1 and not provider.replay.attached


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_answer_is_whole_byte_for_byte_where_its_model_goes_on_exactly(
    tmp_path: Path, how: signal.Signals
) -> None:
    gate = asyncio.Semaphore(12)
    async with Upstream(Reply(ORACLE, gate=gate), going_on) as provider:
        toml = table("one", provider) + '[facts."one/*"]\nprefill = true\n'
        (tmp_path / "cauce.toml").write_text(toml)
        assert await whole_after(tmp_path, how, gate) == ORACLE
        assert len(provider.requests) == 2


async def test_cut_attempt_has_its_own_estimated_usage_row(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(12)
    async with Upstream(Reply(ORACLE, gate=gate), going_on) as provider:
        (tmp_path / "cauce.toml").write_text(table("one", provider) + '[facts."one/*"]\nprefill = true\n')
        await whole_after(tmp_path, signal.SIGKILL, gate)
    [file] = tmp_path.rglob("streams.db")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT row FROM attempts ORDER BY n").fetchall()
    cut, whole = [msgspec.json.decode(row, type=AttemptRow) for (row,) in rows]
    assert (cut.outcome, cut.strategy, whole.outcome, whole.strategy) == ("failed", "open", "completed", "prefill")
    assert cut.usage is not None and cut.usage.estimated and cut.usage.output_tokens >= 10
    assert whole.usage is not None and whole.usage.output_tokens == 5 and not whole.usage.estimated
