"""Streams that are kept while they are made, as llama.cpp's server keeps those of requests with `X-Conversation-Id`.

Written after `tools/server/server-stream.cpp` and `README-dev.md` of https://github.com/ggml-org/llama.cpp (pull requests 23226, 25760
and 26137): a ring of the newest bytes, readers at any offset in it, one answer for each id, and 204 for a DELETE of any.
"""

import asyncio
from urllib.parse import parse_qs, urlsplit

import msgspec

from cauce.testing.upstream.reply import Reply, Steps

RING = 4 * 1024 * 1024
"""Bytes that are kept of a stream."""

_PATH = "/v1/stream"


class KeptStream:
    """A stream that is being made, or has been. Its bytes are numbered from 0; the first `dropped` are gone."""

    def __init__(self, name: str, ring: int) -> None:
        self.name = name
        self.data = bytearray()
        self.dropped = 0
        self.done = False
        self.task: asyncio.Task[None] | None = None
        self._ring = ring
        self._news = asyncio.Event()

    async def make(self, framed: Steps, reply: Reply) -> None:
        """Make all of it, whoever reads it."""
        for piece in (*framed.opening, *framed.deltas, *framed.closing):
            if reply.gate is not None:
                await reply.gate.acquire()
            if reply.pace:
                await asyncio.sleep(reply.pace)
            self.data += piece
            if (more := len(self.data) - self._ring) > 0:
                del self.data[:more]
                self.dropped += more
            self._tell()
        self.done = True
        self._tell()

    def end(self) -> None:
        """Nothing more is made of it."""
        if self.task is not None:
            self.task.cancel()
        self.done = True
        self._tell()

    async def read(self, start: int) -> bytes:
        """What there is from byte `start` on, once there is something; empty at its end."""
        while start >= self.dropped + len(self.data):
            if self.done:
                return b""
            await self._news.wait()
        return bytes(self.data[start - self.dropped :])

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Replay:
    """Of one fake provider. It keeps streams once it is `on`.

    `attached` has who read a stream again: its id, and from which byte; `stopped` the ids that were deleted, without those of streams
    that never were, which are in `unknown`. The connections that read a stream, the first one too, are cut after as many bytes as `cuts`
    says, in turn (`resets`: with RST); `lost`: a stream that was begun is not there for those who come back. `deaf`: nothing can be
    deleted.
    """

    def __init__(self) -> None:
        self.on = self.resets = self.lost = self.deaf = False
        self.ring = RING
        self.streams: dict[str, KeptStream] = {}
        self.attached: list[tuple[str, int]] = []
        self.stopped: list[str] = []
        self.unknown: list[str] = []
        self.asked_to_stop = asyncio.Event()
        """Set once a stream has been deleted."""
        self.cuts: list[int] = []

    def keeps(self, headers: dict[str, str], path: str) -> bool:
        """Whether the answer to a request is kept."""
        return self.on and path.endswith("/chat/completions") and bool(headers.get("x-conversation-id"))

    def begin(self, name: str, framed: Steps, reply: Reply) -> KeptStream:
        """A new stream, in place of one of that name."""
        if name in self.streams:
            self.streams[name].end()
        stream = self.streams[name] = KeptStream(name, self.ring)
        stream.task = asyncio.create_task(stream.make(framed, reply))
        return stream

    def found(self, target: str) -> tuple[int, KeptStream | str, int] | None:
        """What a GET of `target` is answered with: a status, a stream or the words of an error, and from which byte. None: it is another's."""
        url = urlsplit(target)
        if not self.on or url.path != _PATH:
            return None
        asked = parse_qs(url.query)
        name, start = asked.get("conv_id", [""])[0], asked.get("from", ["0"])[0]
        if not name:
            return 400, "Missing conversation id in path", 0
        stream = self.streams.get(name)
        if start.isdecimal():
            self.attached.append((name, int(start)))
        if stream is None or self.lost:
            return 404, "Stream not found or expired", 0
        if not start.isdecimal():
            return 400, "Invalid 'from' offset", 0
        if int(start) < stream.dropped:
            return 400, "Stream offset lost, please restart", 0
        return 200, stream, int(start)

    def delete(self, target: str) -> bool:
        """Whether a DELETE of `target` is answered with 204: the stream is stopped and forgotten, if there is one."""
        url = urlsplit(target)
        name = parse_qs(url.query).get("conv_id", [""])[0]
        if not self.on or self.deaf or url.path != _PATH or not name:
            return False
        stream = self.streams.pop(name, None)
        if stream is None:
            self.unknown.append(name)
        else:
            stream.end()
            self.stopped.append(name)
            self.asked_to_stop.set()
        return True

    def forget(self) -> None:
        """The server ends, and all it kept."""
        for stream in self.streams.values():
            stream.end()
        self.streams.clear()

    async def show(self, writer: asyncio.StreamWriter, stream: KeptStream, start: int) -> bool:
        """Write what there is of `stream` from byte `start` on, and what comes; whether the connection can be used again."""
        left = self.cuts.pop(0) if self.cuts else None
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while data := await stream.read(start):
            if left is not None and len(data) >= left:
                writer.write(_chunk(data[:left]) if left else b"")
                await writer.drain()
                if self.resets:
                    writer.transport.abort()
                return False
            left = None if left is None else left - len(data)
            start += len(data)
            writer.write(_chunk(data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def refusal(status: int, words: str) -> bytes:
    """The body of an error."""
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    return msgspec.json.encode({"error": {"code": status, "message": words, "type": kind}})


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
