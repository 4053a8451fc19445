"""Background responses of a real server that is killed in the middle of them."""

import asyncio
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.http import ask, within
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio


def sdk(serve: Serve) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{serve.url}/v1", api_key="any", max_retries=0)


async def ended(client: AsyncOpenAI, response_id: str) -> Any:
    async def poll() -> Any:
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response

    return await within(poll(), 30)


async def test_response_that_a_kill_cut_goes_on_after_the_restart_under_the_same_numbers(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a b c d", stall_after=2), Reply(text="c d")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        seen: list[Any] = []
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                stream = await client.responses.create(model="up/m", input="hi", background=True, stream=True)
                async for event in stream:
                    seen.append(event)
                    if event.type == "response.output_text.delta" and event.delta == "b ":
                        break
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        response_id = seen[0].response.id
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                done = await ended(client, response_id)
                rest = [
                    event
                    async for event in await client.responses.retrieve(
                        response_id, stream=True, starting_after=seen[-1].sequence_number
                    )
                ]
                whole = [event async for event in await client.responses.retrieve(response_id, stream=True)]
                bodies = [
                    (await ask(serve.port, "GET", f"/v1/responses/{response_id}?stream=true")).body for _ in range(2)
                ]
            await asyncio.to_thread(serve.stop, signal.SIGTERM)
        file = sqlite3.connect(tmp_path / ".local" / "share" / "cauce" / "responses.sqlite")
        assert file.execute("SELECT id, state FROM responses").fetchall() == [(response_id, "kept")]
        file.close()
    assert (done.status, done.output_text) == ("completed", "a b c d")
    assert [event.to_dict() for event in [*seen, *rest]] == [event.to_dict() for event in whole]
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    assert whole[-1].response.to_dict() == done.to_dict() and bodies[0] == bodies[1]


async def test_cancelled_response_stays_so_after_a_kill_and_nothing_is_asked_again(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a b c d", stall_after=2)) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                started = await client.responses.create(model="up/m", input="hi", background=True)
                await within(upstream.asked.wait())
                cancelled = await client.responses.cancel(started.id)
            await asyncio.to_thread(serve.stop, signal.SIGKILL)
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                again = await client.responses.retrieve(started.id)
                assert (await client.responses.cancel(started.id)).to_dict() == again.to_dict()
    assert cancelled.status == again.status == "cancelled"
    assert cancelled.to_dict() == again.to_dict() and len(upstream.requests) == 1


async def test_responses_are_there_after_a_restart(tmp_path: Path) -> None:
    async with Upstream(Reply(text="One."), Reply(text="Two.")) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                first = await client.responses.create(model="up/m", input="first")
            await asyncio.to_thread(serve.stop, signal.SIGTERM)
        with Serve(tmp_path) as serve:
            await asyncio.to_thread(serve.start)
            async with sdk(serve) as client:
                assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
                await client.responses.create(model="up/m", input="second", previous_response_id=first.id)
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["first", "One.", "second"]
