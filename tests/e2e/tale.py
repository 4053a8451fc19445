"""An answer whose every piece says where it stands, and an upstream that goes on with it exactly from any place."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from cauce.testing.upstream import Reply
from cauce.testing.upstream.reply import Ask
from tests.e2e.process import Serve
from tests.http import Connection, Response, ask, connection, within

TALE = " ".join([f"palabra{place}ñ" for place in range(40)])
BODY = {"model": "up/m", "messages": [{"role": "user", "content": "Tell."}]}
RAW = b'{"model":"up/m","messages":[{"role":"user","content":"Tell."}]}'


class Teller:
    """What the upstream answers. The first time it goes silent after `before` words, if it is told to; then it tells the rest."""

    def __init__(self, before: int | None) -> None:
        self.before = before
        self.begun: list[str] = []
        """What each request gave it to go on from."""

    def __call__(self, request: Ask) -> Reply:
        last = request.body["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        assert TALE.startswith(said) and not said.endswith(" "), said
        self.begun.append(said)
        if len(self.begun) == 1:
            return Reply(TALE, stall_after=self.before)
        return Reply(TALE[len(said) :])


def table(base_url: str) -> str:
    """The configuration of one upstream that takes the beginning of its own answer."""
    return (
        f'[providers.up]\nkind = "openai"\nbase_url = "{base_url}"\napi_key = "k"\ndefault_model = "m"\n'
        '[facts."up/*"]\nprefill = true\n'
    ).replace("\\\n", "\n")


async def begin(client: Connection, words: int, stream_id: str = "s") -> bytes:
    """Start a stream and read that many words of it; gives what was read."""
    await client.send("POST", f"/chat/stream/{stream_id}", RAW)
    await client.head()
    return await within(client.until(f'"palabra{words - 1}ñ '.encode()), 20)


async def started(serve: Serve, **environment: str) -> None:
    """Start it, while others go on."""
    await asyncio.to_thread(serve.start, **environment)


async def killed_after(folder: Path, toml: str, words: int) -> bytes:
    """Start a server in `folder` with the configuration `toml`, and kill it after that many words of a stream; gives what was read."""
    (folder / "cauce.toml").write_text(toml)
    with Serve(folder) as serve:
        await started(serve)
        async with connection(serve.port) as client:
            seen = await begin(client, words)
            await asyncio.to_thread(serve.stop, signal.SIGKILL)
    return seen


async def rest(port: int, seen: bytes, stream_id: str = "s") -> Response:
    """What follows for a reader that has seen that."""
    cursor = seen.count(b"\ndata: ")
    return await within(ask(port, "GET", f"/chat/stream/{stream_id}/resume?after={cursor}"), 30)


async def state(port: int, stream_id: str = "s") -> Any:
    return (await ask(port, "GET", f"/chat/stream/{stream_id}")).json()


async def ended(port: int, stream_id: str = "s") -> Any:
    """The state of the stream, once it has ended."""
    await rest(port, b"", stream_id)
    return await state(port, stream_id)


def check_whole(seen: bytes, response: Response) -> None:
    """One reader has one stream: dense numbers, each piece once, one terminal with the whole text."""
    frames = response.frames()
    first = Response(200, {}, seen, complete=True).frames()
    everything = [*first, *frames]
    assert response.complete
    assert [frame["seq"] for frame in everything] == list(range(1, len(everything) + 1))
    assert "".join([frame["data"] for frame in everything if frame["type"] == "content"]) == TALE
    assert [frame["type"] for frame in everything].count("start") == 1
    assert frames[-1]["type"] == "complete" and frames[-1]["data"] == TALE
