"""A fake provider server: a real HTTP server on loopback that speaks OpenAI Chat Completions and takes a fault script.

    async with Upstream() as upstream:
        upstream.answers = [Reply(status=503), Reply(text="hello")]
        ... ask upstream.base_url ...
        upstream.requests            # the bodies it was sent
        await upstream.closed.wait() # a client closed the connection before its answer was complete

Each request takes the next of `answers`; the last one serves all further ones.
"""

import asyncio
import contextlib
from typing import Any

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """How one request is answered.

    `text` comes as deltas, one word each. `cut_after` closes the connection (`reset`: with RST) after that many deltas,
    `stall_after` goes silent after that many; both count before the first delta as 0. `wait` is an event to wait for
    before each delta. `raw` replaces the body, `chunks` the stream's data payloads.
    """

    text: str = "Hello from upstream."
    status: int = 200
    headers: dict[str, str] = {}
    tool_calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = msgspec.field(
        default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    )
    error: dict[str, Any] | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    silent: bool = False
    reset: bool = False
    raw: bytes | None = None
    chunks: tuple[bytes, ...] | None = None
    message: dict[str, Any] = {}
    gate: asyncio.Semaphore | None = None
    """Acquired once before each delta: release it to let one through."""


class Upstream:
    """See the module."""

    def __init__(self, *answers: Reply) -> None:
        self.answers: list[Reply] = list(answers) or [Reply()]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.models: list[str] = ["fake-model"]
        self.closed = asyncio.Event()
        self.asked = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.port = 0

    @property
    def base_url(self) -> str:
        """What to configure as `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection can be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "GET":
            listed = {"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]}
            await _plain(writer, 200, {}, msgspec.json.encode(listed))
            return path.endswith("/models")
        request: dict[str, Any] = msgspec.json.decode(body)
        self.requests.append(request)
        self.headers.append(headers)
        self.asked.set()
        reply = self.answers[min(self._turn, len(self.answers) - 1)]
        self._turn += 1
        leaving = asyncio.create_task(self._watch(reader))
        answering = asyncio.create_task(self._reply(writer, reply, request))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result()
            self.closed.set()
            return False
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(leaving, answering, return_exceptions=True)

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Return when the client has gone. It sends nothing while it waits for its answer."""
        await reader.read(1)

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply, request: dict[str, Any]) -> bool:
        if reply.silent:
            await asyncio.Event().wait()
        if reply.reset and reply.cut_after is None:
            writer.transport.abort()
            return False
        if reply.raw is not None or reply.error is not None or reply.status != 200:
            body = reply.raw if reply.raw is not None else msgspec.json.encode({"error": reply.error or _ERROR})
            await _plain(writer, reply.status, reply.headers, body)
            return True
        if request.get("stream"):
            return await self._stream(writer, reply, request)
        if reply.gate is not None:
            await reply.gate.acquire()
        if reply.stall_after is not None:
            await asyncio.Event().wait()
        if reply.cut_after is not None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{")
            return False
        await _plain(writer, 200, reply.headers, _completion(reply, request))
        return True

    async def _stream(self, writer: asyncio.StreamWriter, reply: Reply, request: dict[str, Any]) -> bool:
        lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        payloads = list(reply.chunks) if reply.chunks is not None else _payloads(reply, request)
        for number, payload in enumerate(payloads):
            if reply.stall_after == number:
                await writer.drain()
                await asyncio.Event().wait()
            if reply.cut_after == number:
                await writer.drain()
                if reply.reset:
                    writer.transport.abort()
                return False
            if reply.gate is not None:
                await reply.gate.acquire()
            data = b"data: " + payload + b"\n\n"
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


_ERROR = {"message": "scripted failure", "type": "server_error", "code": None}
_HEAD: dict[str, Any] = {"id": "chatcmpl-fake", "created": 1_700_000_000, "system_fingerprint": "fp_fake"}


def _payloads(reply: Reply, request: dict[str, Any]) -> list[bytes]:
    """The data payloads of a stream: words or tool call pieces, finish, usage, `[DONE]`."""
    words = reply.text.split(" ") if reply.text else []
    deltas: list[dict[str, Any]] = [
        {"content": word if place == len(words) - 1 else word + " "} for place, word in enumerate(words)
    ]
    for index, (name, arguments) in enumerate(reply.tool_calls):
        half = len(arguments) // 2
        opening = {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        deltas.append({"tool_calls": [opening]})
        pieces = (arguments[:half], arguments[half:])
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    if deltas:
        deltas[0] = {"role": "assistant", **deltas[0]}
    chunks = [_chunk(request, {"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas]
    chunks.append(_chunk(request, {"index": 0, "delta": {}, "finish_reason": _reason(reply)}))
    if reply.usage is not None:
        chunks.append({**_chunk(request, None), "usage": reply.usage})
    return [*[msgspec.json.encode(chunk) for chunk in chunks], b"[DONE]"]


def _chunk(request: dict[str, Any], choice: dict[str, Any] | None) -> dict[str, Any]:
    choices = [choice] if choice is not None else []
    return {**_HEAD, "object": "chat.completion.chunk", "model": request["model"], "choices": choices}


def _completion(reply: Reply, request: dict[str, Any]) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, **reply.message}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(reply.tool_calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": _reason(reply)}
    body = {**_HEAD, "object": "chat.completion", "model": request["model"], "choices": [choice]}
    return msgspec.json.encode(body if reply.usage is None else {**body, "usage": reply.usage})


def _reason(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls else reply.finish_reason


async def _plain(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> None:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-length: {len(body)}"]
    if "content-type" not in {name.lower() for name in headers}:
        lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
