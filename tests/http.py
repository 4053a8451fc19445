"""A bare HTTP/1.1 client: what it sends and when it leaves is exactly what the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec


class Response(msgspec.Struct):
    """An answer. `complete` is false when the connection broke before the body's end."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def frames(self) -> list[dict[str, Any]]:
        """The JSON of its `data:` lines, as a simple client reads them."""
        lines = self.body.decode().split("\n")
        return [msgspec.json.decode(line[6:]) for line in lines if line.startswith("data: {")]


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        lines = [f"{method} {path} HTTP/1.1"]
        given = {"Host": "localhost", "Content-Type": "application/json", **(headers or {})}
        if body or method in ("POST", "PUT"):
            given.setdefault("Content-Length", str(len(body)))
        lines += [f"{name}: {value}" for name, value in given.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in raw[1:] if line)}
        return int(raw[0].split(" ")[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def until(self, text: bytes) -> bytes:
        """Chunks until `text` has been seen."""
        seen = b""
        while text not in seen:
            chunk = await self.chunk()
            if not chunk:
                raise AssertionError(f"the body ended without {text!r}: {seen!r}")
            seen += chunk
        return seen

    async def response(self) -> Response:
        status, headers = await self.head()
        complete = True
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            try:
                while chunk := await self.chunk():
                    body += chunk
            except (asyncio.IncompleteReadError, ConnectionError):
                complete = False
        elif status not in (204, 304):
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Response(status, headers, body, complete)

    def abort(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response:
    """One request on a connection of its own. `body` is bytes, or anything that becomes JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    async with connection(port) as client:
        await client.send(method, path, data, headers)
        return await client.response()


async def within(awaitable: Any, seconds: float = 5.0) -> Any:
    """A bound for what must happen: a test that would hang fails instead."""
    return await asyncio.wait_for(awaitable, seconds)
