"""Readers that take nothing: their connections are broken, and only theirs."""

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import pytest

from cauce.server.event_stream import EventStream
from cauce.server.exchange import EXTENSION, Exchange, Header
from cauce.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

STALLED = 60


class Peer:
    """The other end of a connection. It takes nothing while there is no `room`."""

    def __init__(self) -> None:
        self.untaken = 0
        self.room = asyncio.Event()
        self.room.set()
        self.broken = asyncio.Event()
        self.sent = b""
        self.clock = FakeClock()
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "extensions": {EXTENSION: self}}
        self.exchange = Exchange(scope, self._receive, self._send, self.clock, "req_1")

    def stream(self) -> EventStream:
        stream = EventStream(self.exchange, lambda: (), hold=0, heartbeat=10)
        stream.give_up_after(STALLED)
        return stream

    def whole(self) -> bytes | None:
        return b""

    def when_lost(self, tell: Callable[[], None] | None) -> bool:
        return True

    async def answer(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        await self.begin(status, headers, body, more=False)

    async def begin(self, status: int, headers: Iterable[Header], data: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def abort(self) -> None:
        self.broken.set()

    def unsent(self) -> int:
        return self.untaken

    async def pass_time(self, seconds: float) -> None:
        """In steps that are shorter than whatever waits."""
        for _ in range(int(seconds)):
            await soon()
            self.clock.advance(1)
        await soon()

    async def _receive(self) -> MutableMapping[str, Any]:
        await self.broken.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        await self.room.wait()
        self.sent += event.get("body", b"")


async def soon() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("untaken", [500, 900], ids=["body", "headers and body"])
async def test_reader_that_takes_nothing_for_a_minute_is_sent_away(untaken: int) -> None:
    peer = Peer()
    peer.clock.advance(1000)
    async with peer.stream() as stream:
        peer.untaken = untaken
        await stream.write(b"a" * 500)
        await peer.pass_time(STALLED - 1)
        assert not peer.broken.is_set()
        await peer.pass_time(11)
        assert peer.broken.is_set()


async def test_reader_whose_write_is_stuck_is_sent_away() -> None:
    peer = Peer()
    async with peer.stream() as stream:
        await stream.write(b"a" * 500)
        peer.untaken = 500
        peer.room.clear()
        stuck = asyncio.create_task(stream.write(b"b"))
        await peer.pass_time(STALLED + 10)
        assert peer.broken.is_set() and not stuck.done()
        stuck.cancel()


async def test_reader_that_takes_a_little_now_and_then_stays() -> None:
    peer = Peer()
    async with peer.stream() as stream:
        await stream.write(b"a" * 500)
        for left in range(500, 400, -10):
            peer.untaken = left
            await peer.pass_time(STALLED / 2)
        assert not peer.broken.is_set()


async def test_reader_of_a_silent_stream_stays_and_gets_heartbeats() -> None:
    peer = Peer()
    async with peer.stream() as stream:
        await stream.write(b"a")
        await peer.pass_time(4 * STALLED)
        assert not peer.broken.is_set()
        assert peer.sent.count(b": hb ") >= 20


async def test_nothing_is_sent_behind_what_a_reader_has_not_taken() -> None:
    peer = Peer()
    async with peer.stream() as stream:
        await stream.write(b"a")
        peer.untaken = 1
        await peer.pass_time(STALLED / 2)
        assert peer.sent == b"a"


async def test_reader_that_leaves_the_end_untaken_is_sent_away() -> None:
    peer = Peer()
    stream = peer.stream()
    async with stream:
        await stream.write(b"a" * 500)
        peer.untaken = 500
        await stream.finish()
    waiting = asyncio.create_task(stream.until_taken())
    await peer.pass_time(STALLED - 1)
    assert not waiting.done()
    await peer.pass_time(11)
    assert peer.broken.is_set() and waiting.done()


async def test_reader_that_has_the_end_is_not_waited_for() -> None:
    peer = Peer()
    stream = peer.stream()
    async with stream:
        await stream.write(b"a")
        await stream.finish()
    await stream.until_taken()
    assert not peer.broken.is_set()
