"""A provider whose deltas say when they were sent."""

import asyncio
import contextlib
import time

import msgspec

from cauce.testing.listening import Listening

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"


class Clocked(Listening):
    """A provider of Chat Completions: streams of `count` deltas, so many a second, each a `time.perf_counter()`."""

    def __init__(self, per_second: float, count: int) -> None:
        super().__init__()
        self._per_second = per_second
        self._count = count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(size or 0))
            writer.write(_HEAD)
            due = time.perf_counter()
            for _ in range(self._count):
                due += 1 / self._per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer.write(_chunk({"delta": {"content": f"{time.perf_counter():.6f} "}, "finish_reason": None}))
                await writer.drain()
            done = b"data: [DONE]\n\n"
            writer.write(_chunk({"delta": {}, "finish_reason": "stop"}) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
            await writer.drain()


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
