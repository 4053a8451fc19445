"""The HTTP/1.1 client against servers that send exactly the bytes a test says."""

import asyncio
import contextlib
import gzip
import itertools
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.errors import CauceError, DeadlineExceeded, Overloaded, ProviderFailure
from cauce.transport import HTTPTransport, Outgoing
from cauce.transport.dialing import Dialer, Place, unconnected
from cauce.transport.http1 import QUIET_ROUNDS
from tests.files import no_more_files
from tests.http import within

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Server:
    """Serves each connection with `handler`; counts them, and knows which were closed by the client."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.left = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"


@contextlib.asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.connections += 1
        tasks.add(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        try:
            await handler(reader, writer)
            if await reader.read(1) == b"":
                running.left.set()
        except ConnectionError:
            running.left.set()
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    running = Server(listening.sockets[0].getsockname()[1])
    try:
        yield running
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def transport() -> AsyncIterator[HTTPTransport]:
    made = HTTPTransport("up")
    yield made
    await made.aclose()


def answering(*pieces: bytes, close: bool = False) -> Handler:
    """Answers every request of a connection with these bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if close:
                writer.close()
                return

    return handler


async def turns(count: int = 200) -> None:
    """Let the loop go round, so that what is on its way arrives."""
    for _ in range(count):
        await asyncio.sleep(0)


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"


def get(running: Server, **bounds: Any) -> Outgoing:
    return Outgoing("GET", running.url, {"X-Test": "1"}, **bounds)


async def test_connection_is_used_again_after_a_whole_answer(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN)) as running:
        for _ in range(3):
            answer = await transport.send(get(running))
            assert (answer.status, await answer.read()) == (200, b"hello")
        assert running.connections == 1


async def test_streamed_body_that_is_read_to_its_end_gives_the_connection_back(transport: HTTPTransport) -> None:
    async with server(answering(CHUNKED)) as running:
        for _ in range(2):
            answer = await transport.send(get(running))
            assert b"".join([chunk async for chunk in answer.chunks()]) == b"hello world"
        assert running.connections == 1


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=6))
def test_any_split_of_the_bytes_reads_alike(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(CHUNKED)]
    pieces = [CHUNKED[start:stop] for start, stop in itertools.pairwise(places)]

    async def read() -> bytes:
        transport = HTTPTransport("up")
        async with server(answering(*pieces)) as running:
            body = await (await transport.send(get(running))).read()
            await transport.aclose()
            return body

    assert asyncio.run(read()) == b"hello world"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN, b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", b""),
    ],
)
async def test_bodiless_interim_and_trailing_parts_are_understood(
    transport: HTTPTransport, head: bytes, body: bytes
) -> None:
    async with server(answering(head)) as running:
        for _ in range(2):
            assert await (await transport.send(get(running))).read() == body
        assert running.connections == 1


async def test_body_without_a_length_ends_with_its_connection(transport: HTTPTransport) -> None:
    async with server(answering(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True)) as running:
        assert await (await transport.send(get(running))).read() == b"all of it"


async def test_compressed_body_is_unpacked(transport: HTTPTransport) -> None:
    packed = gzip.compress(b"hello " * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with server(answering(head + packed[:20], packed[20:])) as running:
        assert await (await transport.send(get(running))).read() == b"hello " * 1000


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_answer_that_breaks_is_a_failure_of_the_provider(
    transport: HTTPTransport, sent: bytes, streamed: bool
) -> None:
    async with server(answering(sent, close=True)) as running:
        with pytest.raises(ProviderFailure) as caught:
            answer = await transport.send(get(running))
            if streamed:
                assert b"".join([chunk async for chunk in answer.chunks()]) == b""
            await answer.read()
    assert caught.value.failure == "transient"


async def test_nobody_listening_is_told_with_the_address(transport: HTTPTransport) -> None:
    with pytest.raises(ProviderFailure, match=r"cannot connect to http://127\.0\.0\.1:9/x"):
        await transport.send(Outgoing("GET", "http://127.0.0.1:9/x?key=secret", {}))


async def test_body_over_its_cap_is_refused_and_its_connection_closed(transport: HTTPTransport) -> None:
    async with server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"x" * 5000)) as running:
        answer = await transport.send(get(running))
        with pytest.raises(ProviderFailure, match="larger than 100 bytes"):
            await answer.read(100)
        await within(running.left.wait())


async def test_silence_in_a_stream_ends_it(transport: HTTPTransport) -> None:
    async with server(answering(CHUNKED[:-20])) as running:
        answer = await transport.send(get(running, idle=0.05))
        with pytest.raises(ProviderFailure, match=r"silent for 0\.05 s") as caught:
            assert [chunk async for chunk in answer.chunks()] == []
        assert caught.value.code == "timeout"
        await within(running.left.wait())


@pytest.mark.parametrize("sent", [b"", CHUNKED[:-20]])
async def test_total_time_ends_everything(transport: HTTPTransport, sent: bytes) -> None:
    async with server(answering(sent)) as running:
        with pytest.raises(DeadlineExceeded):
            await (await transport.send(get(running, total=0.05))).read()
        await within(running.left.wait())


@pytest.mark.parametrize("sent", [b"", PLAIN[:-2]])
async def test_caller_that_gives_up_closes_the_connection(transport: HTTPTransport, sent: bytes) -> None:
    async def ask() -> bytes:
        return await (await transport.send(get(running))).read()

    async with server(answering(sent)) as running:
        asking = asyncio.create_task(ask())
        while not running.connections:
            await asyncio.sleep(0)
        asking.cancel()
        await within(running.left.wait())
        assert asking.cancelled() or asking.cancelling()


async def test_reader_that_stops_early_closes_the_connection(transport: HTTPTransport) -> None:
    async with server(answering(CHUNKED[:-5])) as running:
        chunks = (await transport.send(get(running))).chunks()
        await anext(chunks)
        await chunks.aclose()
        await within(running.left.wait())


async def test_server_that_sends_faster_than_we_read_is_held_back(transport: HTTPTransport) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * 1024 * 1024))
        for _ in range(1024):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with server(flood) as running:
        chunks = (await transport.send(get(running))).chunks()
        size = len(await anext(chunks))
        before = -1
        while sent != before:
            before = sent
            await turns()
        assert sent < 32 * 1024 * 1024
        async for chunk in chunks:
            size += len(chunk)
        assert size == 64 * 1024 * 1024


async def test_idle_connection_the_server_has_given_up_is_not_used(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN, close=True)) as running:
        for _ in range(3):
            assert await (await transport.send(get(running))).read() == b"hello"
            await turns()
        assert running.connections == 3


async def test_bytes_nobody_asked_for_end_their_connection(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN + PLAIN)) as running:
        for _ in range(3):
            assert await (await transport.send(get(running))).read() == b"hello"
            await turns()
        assert running.connections == 3


async def test_requests_beyond_the_bound_wait_their_turn() -> None:
    transport = HTTPTransport("up", connections=2)
    busy = most = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most
        while not reader.at_eof():
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            busy += 1
            most = max(most, busy)
            await turns(5)
            busy -= 1
            writer.write(PLAIN)

    async def ask() -> bytes:
        return await (await transport.send(get(running))).read()

    async with server(slow) as running:
        assert await within(asyncio.gather(*[ask() for _ in range(12)])) == [b"hello"] * 12
        assert most == 2
    await transport.aclose()


async def test_header_with_a_line_break_never_leaves(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN)) as running:
        with pytest.raises(ProviderFailure, match="line break"):
            await transport.send(Outgoing("GET", running.url, {"Authorization": "Bearer a\r\nX: b"}))
        assert running.connections == 0


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_https_is_spoken_to_servers_whose_certificate_is_trusted(
    transport: HTTPTransport, authority: trustme.CA
) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusted = HTTPTransport("up", tls=trusting)
    async with server(answering(PLAIN), serving) as running:
        url = running.url.replace("http:", "https:")
        assert await (await trusted.send(Outgoing("GET", url, {}))).read() == b"hello"
        await trusted.aclose()
        with pytest.raises(ProviderFailure, match="certificate"):
            await transport.send(Outgoing("GET", url, {}))


async def test_address_that_is_none_is_told(transport: HTTPTransport) -> None:
    for url in ("ftp://127.0.0.1/x", "http://[bad/v1", "http:///x"):
        with pytest.raises(CauceError, match="address"):
            await transport.send(Outgoing("GET", url, {}))


async def test_bounds_of_one_answer_do_not_reach_the_next_on_its_connection(transport: HTTPTransport) -> None:
    gate = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED[:-20])
        await gate.wait()
        writer.write(CHUNKED[-20:])

    async with server(handler) as running:
        first = await transport.send(get(running, idle=0.03, total=0.05))
        await turns()
        unread = first.chunks()
        await anext(unread)
        second = await transport.send(get(running))
        # The first answer's reader is still there when its times have passed.
        await asyncio.sleep(0.1)
        gate.set()
        assert b"".join([chunk async for chunk in second.chunks()]) == b"hello world"
        assert [chunk async for chunk in unread] == []
        assert running.connections == 1


@pytest.mark.parametrize("packed", [False, True])
async def test_large_body_that_came_before_it_was_asked_for_is_read_whole(
    transport: HTTPTransport, packed: bool
) -> None:
    body = bytes(range(256)) * 16_384
    sent = gzip.compress(body) if packed else body
    encoding = b"Content-Encoding: gzip\r\n" if packed else b""
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (encoding, len(sent))
    async with server(answering(head + sent[:-10], sent[-10:])) as running:
        for _ in range(2):
            answer = await transport.send(get(running, total=5))
            await turns()
            assert await within(answer.read()) == body


async def test_reader_that_stalls_is_not_taken_for_a_silent_upstream(transport: HTTPTransport) -> None:
    size = 24 * 1024 * 1024
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with server(answering(head + b"x" * size)) as running:
        answer = await transport.send(get(running, idle=0.05))
        chunks = answer.chunks()
        got = len(await anext(chunks))
        await asyncio.sleep(0.2)
        async for chunk in chunks:
            got += len(chunk)
        assert got == size


async def test_half_an_unasked_answer_spoils_no_later_one(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN + b"HTTP/1.1 418 Teapot\r\nX-A: ")) as running:
        for _ in range(2):
            answer = await transport.send(get(running))
            assert (answer.status, await answer.read()) == (200, b"hello")
            await turns()


async def test_trailers_do_not_become_headers_of_the_next_answer(transport: HTTPTransport) -> None:
    trailed = CHUNKED[:-2] + b"Content-Encoding: gzip\r\nRetry-After: 9\r\n\r\n"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (trailed, PLAIN):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

    async with server(handler) as running:
        assert await (await transport.send(get(running))).read() == b"hello world"
        second = await transport.send(get(running))
        assert await second.read() == b"hello" and "retry-after" not in second.headers


async def test_cut_compressed_body_is_a_failure(transport: HTTPTransport) -> None:
    packed = gzip.compress(b"hello " * 1000)[:-12]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with server(answering(head + packed)) as running:
        with pytest.raises(ProviderFailure, match="compressed body is cut"):
            await (await transport.send(get(running))).read()


async def test_answer_that_is_left_gives_its_connection_back_when_it_ends_soon(transport: HTTPTransport) -> None:
    gate = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            writer.write(CHUNKED[:-5])
            await gate.wait()
            writer.write(CHUNKED[-5:])

    async with server(handler) as running:
        for _ in range(2):
            gate.clear()
            answer = await transport.send(get(running))
            chunks = answer.chunks()
            await anext(chunks)
            answer.leave(5)
            await chunks.aclose()
            gate.set()
            await turns()
        assert running.connections == 1
        gate.clear()
        answer = await transport.send(get(running))
        answer.leave(0.01)
        await asyncio.sleep(0.05)
        gate.set()
        await within(running.left.wait())


async def test_request_with_an_address_goes_there_and_its_connection_serves_nothing_else(
    transport: HTTPTransport,
) -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(PLAIN)

    async with server(handler) as running:
        # Nobody listens there.
        url = f"http://127.0.0.9:{running.port}/x"
        for _ in range(2):
            pinned = await transport.send(Outgoing("GET", url, {}, address="127.0.0.1"))
            assert await pinned.read() == b"hello"
        assert running.connections == 2
        assert f"Host: 127.0.0.9:{running.port}".encode() in heads[0]
        # Without it the URL counts, whatever was asked under it before.
        with pytest.raises(ProviderFailure, match="cannot connect"):
            await transport.send(Outgoing("GET", url, {}))


async def test_port_that_is_none_is_told(transport: HTTPTransport) -> None:
    with pytest.raises(ProviderFailure, match="no http:// or https:// address"):
        await transport.send(Outgoing("GET", "http://127.0.0.1:99999/x", {}))


async def test_connection_that_was_made_ahead_serves_the_first_request(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN)) as running:
        line = transport.line(running.url)
        await line.warm()
        await line.warm()
        assert line.handshake is not None and line.handshake.first_byte is None
        assert await (await transport.send(get(running))).read() == b"hello"
        assert running.connections == 1
    assert line.handshake.tls is None and transport.handshake is not None
    assert transport.handshake.first_byte is not None and transport.handshake.connect > 0


async def test_upstream_that_nobody_asks_is_left_alone_after_a_while(transport: HTTPTransport) -> None:
    async with server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) as running:
        line = transport.line(running.url)
        for _ in range(QUIET_ROUNDS + 1):
            await line.warm()
            await transport.aclose()
        made = running.connections
        await line.warm()
        assert running.connections == made
        await (await transport.send(get(running))).read()
        made = running.connections
        await line.warm()
        await (await transport.send(get(running))).read()
    assert running.connections == made + 1


def test_host_is_looked_up_once_for_many_connections_and_again_when_it_has_moved() -> None:
    class Loop(asyncio.SelectorEventLoop):
        looked_up = 0

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            self.looked_up += 1
            return await super().getaddrinfo("127.0.0.1" if host == "here.test" else host, port, **options)

    async def run() -> None:
        transport = HTTPTransport("up")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        async with server(answering(PLAIN)) as running:
            url = f"http://here.test:{running.port}/"
            asked = await asyncio.gather(*[transport.send(Outgoing("GET", url, {})) for _ in range(3)])
            assert [await one.read() for one in asked] == [b"hello"] * 3 and running.connections == 3
            port = running.port
        assert loop.looked_up == 1
        await transport.aclose()
        with pytest.raises(ProviderFailure, match="cannot connect"):
            await transport.send(Outgoing("GET", f"http://here.test:{port}/", {}))
        assert loop.looked_up == 2

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


class TwoAddresses(asyncio.SelectorEventLoop):
    """Every host has two addresses. Knows what was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[tuple[str, socket.socket]] = []
        self.trying = asyncio.Event()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.2", "127.0.0.1")]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.tried.append((address[0], sock))
        self.trying.set()
        await super().sock_connect(sock, address)


@contextlib.contextmanager
def silent(port: int) -> Iterator[None]:
    """Nobody answers at this port of 127.0.0.2: its backlog is full."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        try:
            listener.bind(("127.0.0.2", port))
        except OSError:
            pytest.skip("this machine has one loopback address")
        listener.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
        yield


def test_address_that_answers_nothing_does_not_stand_before_one_that_does() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TwoAddresses)
        transport = HTTPTransport("up")
        async with server(answering(PLAIN, close=True)) as running:
            with silent(running.port):
                for _ in range(2):
                    answer = await transport.send(Outgoing("GET", f"http://here.test:{running.port}/", {}, connect=5))
                    assert await answer.read() == b"hello"
                    await turns()
                    assert [one.fileno() for address, one in loop.tried if address == "127.0.0.2"] == [-1]
        # What has worked is the first to be tried from then on.
        assert [address for address, _ in loop.tried] == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]
        await transport.aclose()

    with asyncio.Runner(loop_factory=TwoAddresses) as runner:
        runner.run(run())


def test_caller_that_gives_up_leaves_no_attempt_behind() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TwoAddresses)
        transport = HTTPTransport("up")
        async with server(answering(PLAIN)) as running:
            with silent(running.port):
                asked = loop.create_task(transport.send(Outgoing("GET", f"http://here.test:{running.port}/", {})))
                await loop.trying.wait()
                asked.cancel()
                await asyncio.wait({asked})
                await turns()
        assert [(address, one.fileno()) for address, one in loop.tried] == [("127.0.0.2", -1)]

    with asyncio.Runner(loop_factory=TwoAddresses) as runner:
        runner.run(run())


def test_address_that_refuses_is_followed_by_the_next_at_once_and_nobody_listening_is_told() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TwoAddresses)
        transport = HTTPTransport("up")
        async with server(answering(PLAIN, close=True)) as running:
            outgoing = Outgoing("GET", f"http://here.test:{running.port}/", {}, connect=5)
            assert await (await transport.send(outgoing)).read() == b"hello"
        await transport.aclose()
        with pytest.raises(ProviderFailure, match="cannot connect"):
            await transport.send(outgoing)

    with asyncio.Runner(loop_factory=TwoAddresses) as runner:
        runner.run(run())


async def test_sockets_notice_when_the_path_to_their_provider_has_died() -> None:
    here, far = unconnected("127.0.0.1"), unconnected("8.8.8.8")
    with here, far:
        for one in (here, far):
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                told = [
                    one.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                ]
                assert told == [30, 10, 3]
        if sys.platform == "linux":
            # A server nearby that is too busy to read a long request is there all the same.
            sent = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for one in (here, far)]
            assert sent == [0, 30_000]


async def test_connections_are_watched_by_the_kernel() -> None:
    async with server(answering(PLAIN)) as running:
        protocol, dialed = await Dialer().dial(Place("http", "127.0.0.1", running.port), asyncio.Protocol)
        assert isinstance(protocol, asyncio.Protocol)
        made = dialed.transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        dialed.transport.close()
        await turns()


async def test_process_that_may_open_no_more_files_blames_no_provider(transport: HTTPTransport) -> None:
    async with server(answering(PLAIN)) as running:
        for host in ("127.0.0.1", "localhost"):
            with no_more_files(), pytest.raises(Overloaded, match="ulimit -n") as refused:
                await transport.send(Outgoing("GET", f"http://{host}:{running.port}/", {}))
            assert (refused.value.status, refused.value.retry_after) == (503, 1)
            assert await (await transport.send(get(running))).read() == b"hello"
            await transport.aclose()


async def test_tls_session_is_taken_up_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    resumed: list[bool] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        await writer.drain()

    transport = HTTPTransport("up")
    async with server(handle, context) as running:
        for _ in range(2):
            answer = await transport.send(Outgoing("GET", f"https://localhost:{running.port}/", {}))
            assert await answer.read() == b"hello"
            await transport.aclose()
    assert resumed == [False, True]
    assert transport.handshake is not None and transport.handshake.tls is not None
