import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from cauce.testing.clock import FakeClock
from cauce.transport.coalescing import LONGEST, MOST, Coalescing, Outbox, outbox_of

pytestmark = pytest.mark.anyio


class Socket(asyncio.Transport):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []
        self.unsent = 0
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.closing = True
        self.told.append("close")

    def abort(self) -> None:
        self.closing = True
        self.told.append("abort")

    def write_eof(self) -> None:
        self.told.append("eof")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent


def connections(*, heard: int) -> tuple[Outbox, list[Socket], list[Coalescing]]:
    """Three connections; something has come from so many in this turn of the loop."""
    outbox = Outbox()
    outbox.heard = heard
    sockets = [Socket(), Socket(), Socket()]
    return outbox, sockets, [Coalescing(socket, outbox) for socket in sockets]


def coalescing() -> tuple[Socket, Coalescing]:
    """A connection that is not the only one which something has come from."""
    _, sockets, transports = connections(heard=3)
    return sockets[0], transports[0]


async def test_reply_to_the_only_one_that_was_heard_of_is_sent_at_once() -> None:
    outbox, sockets, transports = connections(heard=1)
    transports[0].write(b"reply")
    assert sockets[0].told == [b"reply"]
    outbox.heard += 1
    transports[1].write(b"another")
    assert sockets[1].told == [b"another"]


async def test_what_nobody_was_heard_of_for_is_sent_at_once() -> None:
    _, sockets, transports = connections(heard=0)
    for socket, transport in zip(sockets, transports, strict=True):
        transport.write(b"news")
        assert socket.told == [b"news"]


async def test_replies_are_sent_when_the_last_that_was_heard_of_is_replied_to() -> None:
    _, sockets, transports = connections(heard=3)
    for number, transport in enumerate(transports):
        assert not any([socket.told for socket in sockets])
        transport.write(b"%d" % number)
    assert [socket.told for socket in sockets] == [[b"0"], [b"1"], [b"2"]]


async def test_replies_do_not_wait_for_longer_than_a_turn_for_one_that_is_not_replied_to() -> None:
    outbox, sockets, transports = connections(heard=3)
    transports[0].write(b"0")
    transports[1].write(b"1")
    await asyncio.sleep(0)
    assert [socket.told for socket in sockets] == [[b"0"], [b"1"], []]
    # Whoever waits for long makes nobody else wait.
    outbox.heard += 1
    transports[0].write(b"next")
    assert sockets[0].told == [b"0", b"next"]


async def test_end_of_a_turn_in_which_all_were_replied_to_says_nothing_of_the_next() -> None:
    outbox, sockets, transports = connections(heard=2)
    transports[0].write(b"0")
    transports[1].write(b"1")
    assert sockets[1].told == [b"1"]
    # The next turn's have been heard of before the end of this one is told.
    outbox.heard += 2
    await asyncio.sleep(0)
    transports[0].write(b"2")
    assert sockets[0].told == [b"0"]
    transports[1].write(b"3")
    assert sockets[0].told == [b"0", b"2"] and sockets[1].told == [b"1", b"3"]


async def test_reply_does_not_wait_while_many_others_are_made() -> None:
    clock = FakeClock()
    outbox = Outbox(clock.monotonic)
    outbox.heard = 10
    sockets = [Socket() for _ in range(5)]
    transports = [Coalescing(socket, outbox) for socket in sockets]
    for transport in transports[:3]:
        transport.write(b"reply")
        assert not sockets[0].told
    clock.advance(2 * LONGEST)
    transports[3].write(b"reply")
    assert [len(socket.told) for socket in sockets] == [1, 1, 1, 1, 0]
    # Others that were heard of are still to be replied to.
    transports[4].write(b"reply")
    assert not sockets[4].told
    await asyncio.sleep(0)
    assert sockets[4].told == [b"reply"]


async def test_connections_are_written_to_in_the_order_of_their_first_writes() -> None:
    order: list[int] = []

    class Numbered(Socket):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def write(self, data: bytes | bytearray | memoryview) -> None:
            order.append(self.number)

    outbox = Outbox()
    outbox.heard = 3
    first, second = [Coalescing(Numbered(number), outbox) for number in (1, 2)]
    first.write(b"1")
    second.write(b"2")
    first.write(b"3")
    await asyncio.sleep(0)
    assert order == [1, 2]


async def test_connections_of_one_loop_share_an_outbox() -> None:
    loop = asyncio.get_running_loop()
    assert outbox_of(loop) is outbox_of(loop)
    other = asyncio.new_event_loop()
    assert outbox_of(other) is not outbox_of(loop)
    other.close()


async def test_loop_that_is_let_go_of_takes_its_outbox_with_it() -> None:
    async def deferred() -> None:
        outbox = outbox_of(asyncio.get_running_loop())
        outbox.heard = 2
        Coalescing(Socket(), outbox).write(b"reply")
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    await asyncio.to_thread(loop.run_until_complete, deferred())
    loop.close()
    gone = weakref.ref(outbox_of(loop))
    del loop
    gc.collect()
    assert gone() is None


async def test_what_is_written_in_one_turn_to_one_connection_leaves_in_one_piece() -> None:
    socket, transport = coalescing()
    transport.write(b"head")
    transport.write(b"body")
    assert socket.told == []
    await asyncio.sleep(0)
    assert socket.told == [b"headbody"]


async def test_what_is_too_much_to_wait_is_written_at_once() -> None:
    socket, transport = coalescing()
    transport.write(b"a")
    transport.write(b"b" * MOST)
    assert socket.told == [b"a" + b"b" * MOST]
    await asyncio.sleep(0)
    assert len(socket.told) == 1


async def test_whatever_ends_a_connection_sends_first_what_was_written() -> None:
    for end, told in ((Coalescing.close, "close"), (Coalescing.abort, "abort"), (Coalescing.write_eof, "eof")):
        socket, transport = coalescing()
        transport.write(b"last words")
        end(transport)
        await asyncio.sleep(0)
        assert socket.told == [b"last words", told]


async def test_what_was_written_to_a_connection_that_is_gone_by_the_end_of_the_turn_is_dropped() -> None:
    socket, transport = coalescing()
    transport.write(b"too late")
    socket.closing = True
    await asyncio.sleep(0)
    assert socket.told == []


async def test_connection_that_can_not_be_written_to_keeps_nobody_else_from_sending() -> None:
    class Ended(Socket):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("Cannot call write() after write_eof()")

    outbox, sockets, transports = connections(heard=3)
    ended = Ended()
    Coalescing(ended, outbox).write(b"too late")
    transports[0].write(b"reply")
    await asyncio.sleep(0)
    assert ended.told == ["abort"]
    assert sockets[0].told == [b"reply"]


async def test_what_waits_for_the_end_of_the_turn_is_not_taken_yet() -> None:
    socket, transport = coalescing()
    socket.unsent = 5
    transport.write(b"abc")
    assert transport.get_write_buffer_size() == 8
    await asyncio.sleep(0)
    assert transport.get_write_buffer_size() == 5


class Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.got = bytearray()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Writer(asyncio.Protocol):
    def __init__(self) -> None:
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.outbox = outbox_of(asyncio.get_running_loop())
        self.transport = Coalescing(transport, self.outbox)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False


@asynccontextmanager
async def connected() -> AsyncGenerator[tuple[Writer, Reader]]:
    """Two ends of one connection; its reader does not read yet."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Reader] = loop.create_future()

    def accepted() -> Reader:
        reader = Reader()
        made.set_result(reader)
        return reader

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    _, writer = await loop.create_connection(Writer, *server.sockets[0].getsockname()[:2])
    reader = await made
    try:
        yield writer, reader
    finally:
        writer.transport.abort()
        reader.transport.close()
        server.close()
        await server.wait_closed()


async def test_writer_that_never_waits_is_told_that_its_reader_is_behind() -> None:
    async with connected() as (writer, _):
        # Others were heard of that nobody replies to.
        writer.outbox.heard = 1_000_000
        written = 0
        while not writer.paused:
            # No turn of the loop ends in here: the socket has to say so by itself.
            writer.transport.write(b"x" * 1000)
            written += 1000
            assert written < 100_000_000


async def test_all_that_was_written_before_the_close_arrives() -> None:
    async with connected() as (writer, reader):
        writer.outbox.heard = 1_000_000
        for number in range(1000):
            writer.transport.write(b"%d\n" % number)
        writer.transport.close()
        assert isinstance(reader.transport, asyncio.ReadTransport)
        reader.transport.resume_reading()
        await asyncio.wait_for(reader.lost.wait(), 10)
        assert bytes(reader.got) == b"".join([b"%d\n" % number for number in range(1000)])
