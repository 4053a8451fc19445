"""Servers of tests leave no connection open."""

import asyncio

import pytest

from cauce.testing.listening import Listening

pytestmark = pytest.mark.anyio


class _Slow(Listening):
    """Its connections never end by themselves, and what is to be done at their end is never done."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.ending = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.begun.set()
        try:
            await reader.read()
        finally:
            self.ending.set()
            await asyncio.Event().wait()
            writer.close()


async def test_connection_whose_task_is_cancelled_while_it_ends_is_closed() -> None:
    async with _Slow() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await server.begun.wait()
        writer.close()
        await writer.wait_closed()
        await server.ending.wait()
    assert [one.is_closing() for one in server.writers] == [True]
