"""A server that answers every request alike: what a provider does that takes no key, or is none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec


@contextlib.asynccontextmanager
async def refusing(
    status: int, message: str = "no", body: bytes | None = None, after: bytes = b"\r\n\r\n"
) -> AsyncIterator[str]:
    """Its address, without a path. It answers once it has read `after`; empty: whatever comes first."""
    content = body if body is not None else msgspec.json.encode({"error": {"message": message}})

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await (reader.readuntil(after) if after else reader.read(65536))
            head = f"HTTP/1.1 {status} Refused\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + content)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
