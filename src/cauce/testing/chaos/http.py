"""Just enough HTTP/1.1 to ask a node, and to see exactly which bytes came back: a second opinion, which shares nothing with our client."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from cauce.testing.chaos.proxy import reset

_CONNECT = 3.0
_LONGEST_LINE = 1 << 20
_SEGMENT = 536


class Broken(Exception):
    """The connection did not hold, or the answer was cut. What came before has come."""


class Answer:
    """Status and headers of an answer; its body is still to be read. Close it by `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def begin(self) -> None:
        """Read the head."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Broken from error
        self.status = int(head[0].split(" ")[1])
        for line in head[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, to its proper end. Raises `Broken`."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    yield (await self._reader.readexactly(size + 2))[:-2]
                await self._reader.readuntil(b"\r\n")
            elif length := int(self.headers.get("content-length", "0")):
                yield await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise Broken from error

    async def body(self) -> bytes:
        """The whole body. Raises `Broken`."""
        return b"".join([piece async for piece in self.pieces()])

    async def close(self, *, rudely: bool = False) -> None:
        """Leave; `rudely`: with a reset."""
        if rudely:
            reset(self._writer)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def ask(port: int, method: str, target: str, body: object = None, **headers: str) -> Answer:
    """Send a request to 127.0.0.1:`port`; returns with the head of its answer. Raises `Broken`."""
    data = b"" if body is None else msgspec.json.encode(body)
    lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", "connection: close", f"content-length: {len(data)}"]
    lines += ["content-type: application/json"] if data else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return await _asked(port, "\r\n".join([*lines, "", ""]).encode() + data)


async def ask_narrowly(port: int, target: str, room: int) -> Answer:
    """The same for a GET by somebody who has room for about so many bytes of the answer's body, before he reads any. Raises `Broken`."""
    return await _asked(port, f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode(), room)


async def _asked(port: int, request: bytes, room: int | None = None) -> Answer:
    try:
        # Not `wait_for`: it may lose a cancel that comes as the connection does (cpython#86296).
        async with asyncio.timeout(_CONNECT):
            reader, writer = await _connected(port, room)
    except (OSError, TimeoutError) as error:
        raise Broken from error
    answer = Answer(reader, writer)
    try:
        writer.write(request)
        await writer.drain()
        await answer.begin()
    except OSError as error:
        await answer.close()
        raise Broken from error
    except BaseException:
        await answer.close()
        raise
    return answer


async def _connected(port: int, room: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if room is None:
        return await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST_LINE)
    narrow = socket.socket()
    try:
        # Before it connects: this decides how large a window is offered.
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        # What the other side's system keeps for us grows with the size of segments, which is 64 KB on loopback.
        with contextlib.suppress(OSError):
            narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=narrow, limit=room)
    except BaseException:
        narrow.close()
        raise


async def told(port: int, method: str, target: str, patience: float = 10.0) -> tuple[int, Any]:
    """Status and JSON of a plain answer, within `patience` seconds. Raises `Broken`."""
    try:
        async with asyncio.timeout(patience):
            answer = await ask(port, method, target)
            try:
                body = await answer.body()
            finally:
                await answer.close()
    except TimeoutError as error:
        raise Broken from error
    try:
        return answer.status, msgspec.json.decode(body) if body else None
    except msgspec.DecodeError as error:
        raise Broken from error
