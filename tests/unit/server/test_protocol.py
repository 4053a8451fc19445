"""What a loop of its own sort does to connections: uvloop, which `cauce serve` runs on, closes one whose client has nothing more to say."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from cauce.server.door import Connections
from cauce.server.exchange import EXTENSION, Line
from cauce.server.protocol import MAX_HEADERS, BoundedProtocol

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def answer(
    scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]
) -> None:
    if scope["path"] == "/broken":
        line: Line = scope["extensions"][EXTENSION]
        await line.begin(200, (), b"some", more=True)
        line.abort()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def listening(made: list[BoundedProtocol]) -> asyncio.Server:
    """A server that answers at once, and the protocols of its connections."""
    config = uvicorn.Config(answer, http=BoundedProtocol, ws="none", log_config=None, server_header=False)
    config.load()
    state = ServerState()
    state.connections = Connections(1000)

    def protocol() -> BoundedProtocol:
        made.append(BoundedProtocol(config, state, {}))
        return made[-1]

    return await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)


def on_uvloop(scene: Callable[[asyncio.Server, list[BoundedProtocol]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        made: list[BoundedProtocol] = []
        server = await listening(made)
        async with asyncio.timeout(20):
            await scene(server, made)
        server.close()

    uvloop.run(run())


async def connected(server: asyncio.Server, made: list[BoundedProtocol], number: int) -> list[socket.socket]:
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(number)]
    while len(made) < number:
        await asyncio.sleep(0)
    return clients


async def received(client: socket.socket, size: int) -> bytes:
    client.setblocking(False)
    got = b""
    while len(got) < size and (piece := await asyncio.get_running_loop().sock_recv(client, size)):
        got += piece
    return got


def test_client_that_has_nothing_more_to_say_is_answered_though_others_were_heard_of() -> None:
    async def scene(server: asyncio.Server, made: list[BoundedProtocol]) -> None:
        leaving, other = await connected(server, made, 2)
        leaving.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        leaving.shutdown(socket.SHUT_WR)
        other.sendall(b"POST / HTTP/1.1\r\nhost: b\r\n")
        assert (await received(leaving, 100)).endswith(b"\r\n\r\nok")
        leaving.close()
        other.close()

    on_uvloop(scene)


def test_head_without_end_is_held_no_further_than_a_head_may_go() -> None:
    async def scene(server: asyncio.Server, made: list[BoundedProtocol]) -> None:
        [client] = await connected(server, made, 1)
        client.sendall(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 2))
        got = await received(client, 1000)
        assert got.startswith(b"HTTP/1.1 431 ")
        assert not made[0].headers
        client.close()

    on_uvloop(scene)


def test_answer_that_is_broken_off_shows_what_was_written_of_it_though_others_were_heard_of() -> None:
    async def scene(server: asyncio.Server, made: list[BoundedProtocol]) -> None:
        reader, other = await connected(server, made, 2)
        other.sendall(b"POST / HTTP/1.1\r\nhost: b\r\n")
        reader.sendall(b"GET /broken HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await received(reader, 1000)).endswith(b"\r\n\r\n4\r\nsome\r\n")
        reader.close()
        other.close()

    on_uvloop(scene)


def test_requests_that_come_together_are_all_answered() -> None:
    async def scene(server: asyncio.Server, made: list[BoundedProtocol]) -> None:
        clients = await connected(server, made, 20)
        for _ in range(3):
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            for client in clients:
                assert await received(client, len(ANSWER)) == ANSWER
        for client in clients:
            client.close()

    on_uvloop(scene)
