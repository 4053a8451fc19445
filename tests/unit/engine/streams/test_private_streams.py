"""Private streams beside a log that several servers share: whatever becomes of that log and of their ids, they are this process's alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import Conflict
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Created, Head, Hold, NewStream, Renewed, StreamKey
from cauce.engine.streams.settings import Life
from cauce.engine.streams.streams import Streams
from cauce.ports.provider import Call
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.parted_log import PartedStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE
from tests.unit.engine.streams.test_streams import Answer, tended

pytestmark = pytest.mark.anyio

OPEN = Request("m", (Message("user", (TextPart("hi"),)),))
PRIVATE = msgspec.structs.replace(OPEN, privacy="local")


class Asked(Answer):
    """Answers without end."""

    def __init__(self) -> None:
        super().__init__((Text("a"),), stall=True)

    def call(self, request: Request, scope: Scope, **named: Any) -> Call:
        return msgspec.structs.replace(super().call(request, scope, **named), private=request.privacy == "local")


class Shared(InprocStreamLog):
    """A log that several servers have. It can be away. Who looks for a stream is answered once `found` is set, who makes one once `made`
    is; `under_way` tells that somebody waits for that."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, lease=LEASE)
        self.away = False
        self.renewals = 0
        self.found, self.made = asyncio.Event(), asyncio.Event()
        self.found.set()
        self.made.set()
        self.under_way = asyncio.Event()

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        self.renewals += 1
        if self.away:
            raise LogUnavailable("streams cannot be written now: try again", retry_after=5)
        return await super().renew(holds)

    async def head(self, key: StreamKey) -> Head | None:
        head = await super().head(key)
        await self._until(self.found)
        return head

    async def create(self, new: NewStream) -> Created:
        await self._until(self.made)
        return await super().create(new)

    async def _until(self, let: asyncio.Event) -> None:
        if not let.is_set():
            self.under_way.set()
        await let.wait()


class Server:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.here = InprocStreamLog(self.clock)
        self.shared = Shared(self.clock)
        behind: Any = self.shared
        turn: Any = Asked()
        life = Life(lasting=True, lease=LEASE, private_here=True)
        self.streams = Streams(PartedStreamLog(self.here, behind), turn, self.clock, "a", life)

    async def start(self, request: Request, key: StreamKey = KEY) -> Head:
        return await self.streams.start(key, request, Scope(), f"req-{key.id}-{request.privacy}")

    async def end(self) -> None:
        await self.streams.drain(0)
        assert self.streams.open_streams == 0


async def test_private_stream_goes_on_while_the_log_of_the_others_is_away() -> None:
    server = Server()
    other = StreamKey("tenant/key", "other")
    await server.start(PRIVATE)
    await server.start(OPEN, other)
    await server.here.wait(KEY, 1)
    async with tended(server.streams), asyncio.timeout(5):
        server.shared.away = True
        before = server.shared.renewals
        while server.streams.open_streams > 1 or server.shared.renewals < before + 2:
            server.clock.advance(0.5)
            await asyncio.sleep(0)
    head = await server.here.head(KEY)
    assert head is not None and (head.state, head.epoch) == ("running", 1)
    assert await server.shared.head(KEY) is None and await server.here.head(other) is None
    await server.end()


async def test_end_of_the_process_is_the_end_of_its_private_streams_and_of_no_others() -> None:
    server = Server()
    other = StreamKey("tenant/key", "other")
    await server.start(PRIVATE)
    await server.start(OPEN, other)
    await server.here.wait(KEY, 1)
    await server.end()
    records = await server.here.read(KEY, 0, 100)
    finish = records[-1].delta
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and finish.error is not None
    assert finish.error.code == "overloaded" and await server.here.orphans(10) == []
    assert [head.key for head in await server.shared.orphans(10)] == [other]


async def test_private_request_has_no_id_that_is_being_given_to_another() -> None:
    server = Server()
    server.shared.made.clear()
    beginning = asyncio.create_task(server.start(OPEN))
    await server.shared.under_way.wait()
    with pytest.raises(Conflict):
        await server.start(PRIVATE)
    server.shared.made.set()
    await beginning
    assert await server.here.head(KEY) is None
    await server.end()


@pytest.mark.parametrize("first", [OPEN, PRIVATE], ids=["open", "private"])
async def test_id_that_was_given_away_while_it_was_looked_for_is_found_out(first: Request) -> None:
    server = Server()
    server.shared.found.clear()
    late = asyncio.create_task(server.start(PRIVATE))
    await server.shared.under_way.wait()
    held, server.shared.found = server.shared.found, asyncio.Event()
    # Who looks from now on need not wait.
    server.shared.found.set()
    begun = await server.start(first)
    held.set()
    if first is PRIVATE:
        assert (await late).key == begun.key
    else:
        with pytest.raises(Conflict):
            await late
    assert server.streams.open_streams == 1
    await server.end()


async def test_stream_of_another_server_with_the_id_of_a_private_one_is_left_to_others() -> None:
    server = Server()
    await server.start(PRIVATE)
    made = await server.shared.create(NewStream(KEY, OPEN, b"digest", server.clock.now()))
    assert made.hold is not None
    await server.shared.release([made.hold])
    await server.streams.adopt()
    head = await server.shared.head(KEY)
    assert head is not None and (head.state, head.epoch) == ("queued", 1)
    await server.end()
