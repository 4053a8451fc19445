"""How many connections are let in, and that whoever waits is let in later."""

import asyncio
import socket
from math import inf

import pytest

from cauce.server.door import Connections, Door, places
from cauce.server.run import listen

pytestmark = pytest.mark.anyio


def test_where_nothing_bounds_open_files_nothing_bounds_connections() -> None:
    assert places(inf) == inf


async def test_place_that_is_taken_and_left_while_the_door_opens_leaves_no_address_closed() -> None:
    let_in = asyncio.Queue[int]()

    class Visitor(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            let_in.put_nowait(transport.get_extra_info("sockname")[1])
            transport.close()

    listeners = [*listen("127.0.0.1", 0), *listen("127.0.0.1", 0)]
    ports = [listener.getsockname()[1] for listener in listeners]
    connections = Connections(1)
    door = Door(listeners, connections, Visitor)
    await door.open()
    connections.add("one")
    connections.discard("one")
    while not door.servers:
        await asyncio.sleep(0)
    connections.add("two")
    connections.discard("two")
    try:
        async with asyncio.timeout(10):
            while len(door.servers) < len(listeners):
                door.look()
                await asyncio.sleep(0)
            for port in ports:
                with socket.create_connection(("127.0.0.1", port)):
                    assert await let_in.get() == port
    finally:
        door.close()
        for listener in listeners:
            listener.close()
