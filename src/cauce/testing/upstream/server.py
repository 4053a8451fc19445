"""The HTTP server and its fault script. Which wire it speaks, the path of each request says.

    async with Upstream() as upstream:
        upstream.answers = [Reply(status=503), Reply(text="hello")]
        ... ask upstream.base_url (OpenAI) or upstream.root (Anthropic, Gemini) ...
        upstream.requests            # the bodies it was sent; beside them `headers` and `paths`
        upstream.record              # counts: requests by model, at once, within a minute, tokens served
        await upstream.closed.wait() # a client closed the connection before its answer was complete

Each POST takes the next of `answers`; the last one serves all further ones. An answer may be a function of the request. Models that
`scripts` names have answers of their own. What it renders is written by hand from what the providers send, and knows nothing of
Cauce's own codecs: a test that passes with it has met a second opinion.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from cauce.testing.upstream import anthropic, chat, completions, embeddings, gemini, responses
from cauce.testing.upstream.background import Attachment, Background, left
from cauce.testing.upstream.faults import over_limits
from cauce.testing.upstream.record import Exchange, Limits, Record
from cauce.testing.upstream.replay import KeptStream, Replay, refusal
from cauce.testing.upstream.reply import Answer, Ask, Reply, Steps, Wire

_WIRES = tuple(
    (re.compile(pattern + "$"), wire, name)
    for pattern, wire, name in (
        (r"/chat/completions", chat.WIRE, "chat"),
        (r"/completions", completions.WIRE, "completions"),
        (r"/embeddings", embeddings.WIRE, ""),
        (r"/responses", responses.WIRE, "responses"),
        (r"/responses/input_tokens", responses.COUNT, ""),
        (r"/v1/messages", anthropic.WIRE, "anthropic"),
        (r"/v1/messages/count_tokens", anthropic.COUNT, ""),
        (r"/models/[^:]+:(generateContent|streamGenerateContent)", gemini.WIRE, "gemini"),
        (r"/models/[^:]+:countTokens", gemini.COUNT, ""),
        (r"/models/[^:]+:embedContent", gemini.EMBED, ""),
        (r"/models/[^:]+:batchEmbedContents", gemini.EMBED_BATCH, ""),
    )
)
_NOT_HERE = msgspec.json.encode({"error": {"message": "The fake provider has no such path.", "type": "not_found"}})


class Upstream:
    """See the module."""

    def __init__(self, *answers: Answer, limits: Limits | None = None) -> None:
        self.answers: list[Answer] = list(answers) or [Reply()]
        self.scripts: dict[str, Sequence[Answer]] = {}
        """By model, in place of `answers`."""
        self.record = Record(limits)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        """Of the POST requests, as sent, with their queries."""
        self.models: list[str] = ["fake-model"]
        self.background = Background()
        self.replay = Replay()
        self.closed = asyncio.Event()
        self.asked = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._turns: Counter[str | None] = Counter()
        self.port = 0

    @property
    def root(self) -> str:
        """What to configure as `base_url` of the kinds that put the version into the path themselves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What to configure as `base_url` of OpenAI's kind."""
        return f"{self.root}/v1"

    def script(self, *answers: Answer) -> None:
        """Answer with these from now on, and forget what was asked before."""
        self.answers = list(answers)
        self._turns.clear()
        for told in (self.requests, self.headers, self.paths):
            told.clear()
        self.closed.clear()
        self.asked.clear()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening)
        # A server that is closed drops a connection that it has just accepted without closing it: let it finish, which takes it some steps.
        for _step in range(5):
            await asyncio.sleep(0)
        self._server.close()
        self._server = None
        for task in self._connections.values():
            task.cancel()
        await asyncio.gather(*self._connections.values(), return_exceptions=True)
        for writer in self._connections:
            # A task that was cancelled before it began has closed nothing.
            writer.close()
        self._connections.clear()
        self.replay.forget()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.close()
        else:
            self.record.connected()
            self._connections[writer] = asyncio.create_task(self._converse(reader, writer))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            read: bytes | None = b""
            while read is not None:
                read = await self._serve(reader, writer, read)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.record.disconnected()
            if self._server is not None:
                del self._connections[writer]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, read: bytes) -> bytes | None:
        """Answer one request, of which `read` is here. Returns what is here of the next one; None if there is none."""
        head = (read + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        if method == "GET":
            attachment = self.background.attach(target)
            if attachment is not None:
                return b"" if await _attach(writer, attachment) else None
            if (kept := self.replay.found(target)) is not None:
                return b"" if await self._replayed(writer, *kept) else None
            await self._list(writer, path, headers)
            return b""
        if method == "DELETE" and self.replay.delete(target):
            await _send(writer, 204, {}, b"")
            return b""
        if self.background.cancel(path):
            await _send(writer, 200, {}, msgspec.json.encode({"object": "response", "status": "cancelled"}))
            return b""
        found = next(((wire, name) for pattern, wire, name in _WIRES if pattern.search(path)), None)
        if found is None:
            await _send(writer, 404, {}, _NOT_HERE)
            return b""
        wire, name = found
        ask = Ask(path, query, msgspec.json.decode(body), name)
        ask = msgspec.structs.replace(ask, streamed=wire.streams(ask))
        self.requests.append(ask.body)
        self.headers.append(headers)
        self.paths.append(target)
        self.asked.set()
        if not self.record.admits(asyncio.get_running_loop().time()):
            limited = over_limits(ask, self.record.limits)
            await _send(writer, limited.status, _headers(wire, limited), msgspec.json.encode(wire.failure(limited)))
            return b""
        reply = self._next(ask)
        if name == "responses" and ask.body.get("background"):
            ask = self.background.keep(ask, reply)
        exchange = self.record.begin(ask, reply, asyncio.get_running_loop().time())
        if reply.status == 200 and not reply.reset and self.replay.keeps(headers, path):
            exchange.end(whole=True)
            framed = wire.stream(reply, ask) if reply.chunks is None else wire.frames(reply.chunks, ask)
            kept = self.replay.begin(headers["x-conversation-id"], framed, reply)
            answering = asyncio.create_task(self._kept(writer, kept))
        else:
            answering = asyncio.create_task(_answer(writer, wire, exchange))
        # A client that waits for its answer sends nothing: what is read here is its leaving, or its next request.
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not leaving.result():
                if not answering.done():
                    self.closed.set()
                    self.record.left[ask.model] += 1
                return None
            if not await answering:
                return None
            return leaving.result() if leaving.done() else b""
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(leaving, answering, return_exceptions=True)
            exchange.end(whole=False)

    async def _kept(self, writer: asyncio.StreamWriter, stream: KeptStream) -> bool:
        """Show a stream that goes on when its reader has gone, but for one who goes before its first byte."""
        try:
            await stream.read(0)
        except asyncio.CancelledError:
            stream.end()
            raise
        return await self.replay.show(writer, stream, 0)

    async def _replayed(self, writer: asyncio.StreamWriter, status: int, found: KeptStream | str, start: int) -> bool:
        if not isinstance(found, str):
            return await self.replay.show(writer, found, start)
        await _send(writer, status, {}, refusal(status, found))
        return True

    def _next(self, ask: Ask) -> Reply:
        model = ask.model if ask.model in self.scripts else None
        answers = self.answers if model is None else self.scripts[model]
        answer = answers[min(self._turns[model], len(answers) - 1)]
        self._turns[model] += 1
        return answer if isinstance(answer, Reply) else answer(ask)

    async def _list(self, writer: asyncio.StreamWriter, path: str, headers: dict[str, str]) -> None:
        """The models, or one of them, as the provider lists them that the headers are meant for."""
        speaker = anthropic if "anthropic-version" in headers else gemini if "x-goog-api-key" in headers else chat
        name = unquote(path).partition("/models/")[2]
        if path.endswith("/models"):
            await _send(writer, 200, {}, msgspec.json.encode(speaker.models(self.models)))
        elif name in self.models:
            await _send(writer, 200, {}, msgspec.json.encode(speaker.model(name)))
        else:
            await _send(writer, 404, {}, msgspec.json.encode(speaker.failure(Reply(status=404))))


async def _answer(writer: asyncio.StreamWriter, wire: Wire, exchange: Exchange) -> bool:
    """Answer as the script says; whether the connection can be used again."""
    reply, ask = exchange.reply, exchange.ask
    if reply.delay:
        await asyncio.sleep(reply.delay)
    if reply.silent:
        await asyncio.Event().wait()
    if reply.reset and reply.cut_after is None:
        writer.transport.abort()
        return False
    if reply.raw is not None or reply.status != 200 or (reply.error is not None and reply.error_after is None):
        body = reply.raw if reply.raw is not None else msgspec.json.encode(wire.failure(reply))
        exchange.end(whole=False)
        await _send(writer, reply.status, _headers(wire, reply), body)
        return True
    if ask.streamed and not reply.truncated:
        framed = wire.stream(reply, ask) if reply.chunks is None else wire.frames(reply.chunks, ask)
        return await _stream(writer, exchange, framed, wire.kind(ask))
    if reply.gate is not None:
        await reply.gate.acquire()
    body = msgspec.json.encode(wire.plain(reply, ask))
    if reply.truncated or reply.cut_after is not None or reply.stall_after is not None:
        writer.write(_head(200, reply.headers, len(body)) + (body[: len(body) // 2] if reply.truncated else b""))
        if reply.stall_after is not None:
            await asyncio.Event().wait()
        return False
    exchange.end(whole=True)
    await _send(writer, 200, reply.headers, body)
    return True


async def _attach(writer: asyncio.StreamWriter, attachment: Attachment) -> bool:
    """Show what is left of an answer that is made in the background; whether the connection can be used again."""
    kept = attachment.kept
    reply = msgspec.structs.replace(kept.reply, cut_after=attachment.cut_after, reset=False, stall_after=None)
    framed = left(responses.WIRE.stream(reply, kept.ask), attachment.after)
    return await _stream(writer, Exchange(Record(), kept.ask, reply), framed, responses.WIRE.kind(kept.ask))


async def _stream(writer: asyncio.StreamWriter, exchange: Exchange, framed: Steps, kind: str) -> bool:
    reply = exchange.reply
    headers = {"content-type": kind, **reply.headers}
    lines = ["HTTP/1.1 200 OK", "transfer-encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for piece in framed.opening:
        writer.write(_chunk(piece))
    pieces = (*framed.deltas, *framed.closing)
    for number, piece in enumerate(pieces):
        if reply.stall_after == number:
            await writer.drain()
            await asyncio.Event().wait()
        if reply.cut_after == number:
            await writer.drain()
            if reply.reset:
                writer.transport.abort()
            return False
        if reply.ends_after == number:
            break
        if reply.gate is not None:
            await reply.gate.acquire()
        if reply.pace:
            await asyncio.sleep(reply.pace)
        if reply.garbled_after == number:
            piece = reply.garbage
        if number == len(pieces) - 1:
            exchange.end(whole=reply.error_after is None)
        writer.write(_chunk(piece))
        await writer.drain()
    exchange.end(whole=reply.ends_after is None)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _headers(wire: Wire, reply: Reply) -> dict[str, str]:
    if reply.retry_after is None or not wire.retry_header:
        return reply.headers
    return {"retry-after": f"{reply.retry_after:g}", **reply.headers}


def _head(status: int, headers: dict[str, str], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-length: {length}"]
    if "content-type" not in {name.lower() for name in headers}:
        lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def _send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> None:
    writer.write(_head(status, headers, len(body)) + body)
    await writer.drain()
