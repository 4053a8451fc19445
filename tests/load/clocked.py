"""A provider whose deltas say when they were sent."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def clocked(per_second: float, count: int) -> AsyncIterator[int]:
    """The port of a provider of Chat Completions: streams of `count` deltas, so many a second, each a `time.perf_counter()`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(size or 0))
            writer.write(_HEAD)
            due = time.perf_counter()
            for _ in range(count):
                due += 1 / per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer.write(_chunk({"delta": {"content": f"{time.perf_counter():.6f} "}, "finish_reason": None}))
                await writer.drain()
            done = b"data: [DONE]\n\n"
            writer.write(_chunk({"delta": {}, "finish_reason": "stop"}) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _chunk(choice: dict[str, object]) -> bytes:
    event = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, **choice}],
    }
    data = b"data: " + msgspec.json.encode(event) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)
