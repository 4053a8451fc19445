"""A TCP proxy on loopback that breaks a connection after an exact number of bytes of the server's answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Literal

from cauce.testing.listening import Listening

How = Literal["reset", "close", "hang"]
"""RST; FIN; or silence for ever, as when a phone loses its network and nobody is told."""

_NO_LINGER = struct.pack("ii", 1, 0)


class CuttingProxy(Listening):
    """In front of `target`. Connections made after a cut are whole, until the next is ordered."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self._left: int | None = None
        self._how: How = "reset"
        self.carried = 0
        """Bytes of answers that came through."""
        self.connections = 0
        self.cut = asyncio.Event()

    def cut_after(self, count: int, how: How = "reset") -> None:
        """Let `count` more bytes of answers through, over whichever connection, then break that one."""
        self._left, self._how = count, how
        self.cut.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            async with _closing(writer):
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
                async with _closing(there_writer):
                    ways = [
                        asyncio.create_task(_carry(reader, there_writer)),
                        asyncio.create_task(self._answer(there_reader, writer)),
                    ]
                    try:
                        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for way in ways:
                            way.cancel()
                        await asyncio.gather(*ways, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._left is not None and self._left <= len(data):
                    data, how, self._left = data[: self._left], self._how, None
                    self.carried += len(data)
                    writer.write(data)
                    self.cut.set()
                    if how == "hang":
                        await asyncio.Event().wait()
                    if how == "reset":
                        plug = writer.get_extra_info("socket")
                        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                        writer.transport.abort()
                    return
                if self._left is not None:
                    self._left -= len(data)
                self.carried += len(data)
                writer.write(data)
                await writer.drain()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
