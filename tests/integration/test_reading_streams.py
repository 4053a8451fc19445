"""Readers of a stream: late ones, those that join in the middle, those that come back to cancel."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from cauce.bootstrap import runtime
from cauce.domain.stream import Head, Record, StreamKey
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Defaults, Turn
from cauce.ports.provider import Call, Deltas
from cauce.server.app import Application
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from cauce.testing.upstream import Reply, Upstream
from tests.http import ask, connection, within
from tests.integration.test_silence import Client
from tests.integration.test_streams import BODY, RAW, Kept, config, read_until
from tests.serving import MESSAGES, configured, serving

pytestmark = pytest.mark.anyio

Read = Callable[..., Awaitable[tuple[int, bytes]]]


@pytest.fixture(params=["in memory", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    return partial(serving, data=tmp_path / "data") if request.param == "on disk" else serving


async def test_late_reader_gets_the_whole_answer_from_seq_one(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        first = await ask(served.port, "POST", "/chat/stream/s", BODY)
        late = await ask(served.port, "GET", "/chat/stream/s/resume?after=0")
    assert late.body == first.body
    assert [frame["seq"] for frame in late.frames()] == list(range(1, len(late.frames()) + 1))


async def test_finished_stream_replays_as_often_as_it_is_read(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        first = await ask(served.port, "POST", "/chat/stream/s", BODY)
        again = [await ask(served.port, "GET", "/chat/stream/s/resume?after=0") for _ in range(3)]
    assert {response.body for response in again} == {first.body} and len(upstream.requests) == 1


async def test_resumed_stream_can_be_cancelled(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await read_until(client, b'b "')
            client.abort()
        async with connection(served.port) as client:
            await client.send("GET", "/chat/stream/s/resume?after=0")
            await read_until(client, b'b "')
            await within(ask(served.port, "DELETE", "/chat/stream/s"))
            assert b'"data":"a b "' in await within(client.until(b'"type":"cancelled"'))
        await within(upstream.closed.wait())


async def test_cancel_of_an_old_stream_leaves_the_new_one_running(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="old"), Reply(text="a b c d", gate=gate)]
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/old", BODY)
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/new", RAW)
            await client.head()
            gate.release()
            await within(client.until(b'a "'))
            await within(ask(served.port, "DELETE", "/chat/stream/old"))
            for _ in range(8):
                gate.release()
            assert b'"data":"a b c d"' in await within(client.until(b'"type":"complete"'))


async def test_reader_joining_mid_commit_gets_each_event_once(kept: Kept, upstream: Upstream) -> None:
    """Readers join at every place of a stream while it is written, and each sees the same from there on."""
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text=" ".join(f"w{number}" for number in range(20)), gate=gate)]
    async with kept(config(upstream)) as served, connection(served.port) as steady:
        await steady.send("POST", "/chat/stream/s", RAW)
        await steady.head()
        joining: list[asyncio.Task[bytes]] = []

        async def join(after: int) -> bytes:
            return (await ask(served.port, "GET", f"/chat/stream/s/resume?after={after}")).body

        seen = b""
        for number in range(20):
            gate.release()
            joining.append(asyncio.create_task(join(0)))
            seen += await within(steady.until(f"w{number}".encode()))
        for _ in range(5):
            gate.release()
        seen += await within(steady.until(b'"type":"complete"'))
        joined = [await within(one) for one in joining]
    assert len(set(joined)) == 1
    numbers = [int(line[4:]) for line in joined[0].split(b"\n") if line.startswith(b"id: ")]
    assert numbers == list(range(len(numbers)))
    assert joined[0].startswith(seen.rpartition(b"\n\n")[0])


@pytest.mark.parametrize(
    ("address", "header", "later"),
    [("0", "3", 3), ("3", "0", 3), ("2", "4", 4), ("4", "2", 4), ("5.1", "5", 5), ("3", "3.1", 3), ("2", "3.1", 2)],
)
async def test_later_of_two_cursors_counts(upstream: Upstream, address: str, header: str, later: int) -> None:
    upstream.answers = [Reply(text="a b c d e")]
    async with serving(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        place = f"/chat/stream/s/resume?after={address}"
        read = await ask(served.port, "GET", place, headers={"Last-Event-ID": header})
    assert read.frames()[0]["seq"] == later + 1


@pytest.mark.parametrize("wire", ["openai-chat", "anthropic", "ui"])
async def test_event_source_that_comes_back_gets_the_rest_on_every_wire(upstream: Upstream, wire: str) -> None:
    upstream.answers = [Reply(text="a b c", reasoning="hm")]
    async with serving(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        place = f"/chat/stream/s/resume?wire={wire}&after=0"
        frames = [block + b"\n\n" for block in (await ask(served.port, "GET", place)).body.split(b"\n\n")[:-1]]
        for number, frame in enumerate(frames[:-1], 1):
            (last,) = [line[4:] for line in frame.decode().split("\n") if line.startswith("id: ")]
            rest = await ask(served.port, "GET", place, headers={"Last-Event-ID": last})
            assert rest.body == b"".join(frames[number:]), number


async def test_epoch_is_that_of_the_cursor_beside_it(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        place = "/chat/stream/s/resume?after=1&epoch=7"
        alone = await ask(served.port, "GET", place)
        earlier = await ask(served.port, "GET", place, headers={"Last-Event-ID": "0"})
        later = await ask(served.port, "GET", place, headers={"Last-Event-ID": "2"})
        fits = await ask(served.port, "GET", place.replace("7", "1"), headers={"Last-Event-ID": "2"})
    assert (alone.status, earlier.status, later.status, fits.status) == (409, 409, 409, 200)
    assert alone.headers["x-should-retry"] == "false" and fits.frames()[0]["seq"] == 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/chat/stream/new", {}), ("/v1/chat/completions", {"Idempotency-Key": "new"})],
    ids=["of an id", "of a key"],
)
async def test_reader_of_what_is_not_there_any_more_begins_nothing(
    upstream: Upstream, path: str, headers: dict[str, str]
) -> None:
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", path, BODY, {**headers, "Last-Event-ID": "5"})
        whole = await ask(served.port, "POST", path, BODY, headers)
    assert response.status == 409 and response.headers["x-should-retry"] == "false"
    assert whole.status == 200 and len(upstream.requests) == 1


async def test_number_of_an_event_counts_where_events_have_no_ids(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        asked = {"model": "up/m", "input": "hi", "stream": True}
        whole = await ask(served.port, "POST", "/v1/responses", asked)
        response_id = next(frame["response"]["id"] for frame in whole.frames() if "response" in frame)
        place = f"/v1/responses/{response_id}?stream=true&starting_after="
        rest = await ask(served.port, "GET", f"{place}3", headers={"Last-Event-ID": "2"})
        junk = await ask(served.port, "GET", f"{place}junk", headers={"Last-Event-ID": "2"})
    assert junk.status == 400
    assert rest.frames()[0]["sequence_number"] == 4


async def test_event_source_of_a_response_that_comes_back_gets_the_rest(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        asked = {"model": "up/m", "input": "hi", "background": True, "stream": True}
        whole = await ask(served.port, "POST", "/v1/responses", asked)
        place = f"/v1/responses/{whole.headers['x-cauce-stream-id']}?stream=true&starting_after=0"
        frames = [block + b"\n\n" for block in whole.body.split(b"\n\n")[:-1]]
        (last,) = [line[4:] for line in frames[3].decode().split("\n") if line.startswith("id: ")]
        rest = await ask(served.port, "GET", place, headers={"Last-Event-ID": last})
    assert rest.body == b"".join(frames[4:])


@asynccontextmanager
async def reading(log: InprocStreamLog, clock: FakeClock) -> AsyncGenerator[Read]:
    """A server over `log`: status and body of what is asked."""
    provider = ScriptedProvider("quick", answering("Hello there."))

    async def open(call: Call) -> Deltas:
        return await provider.open(call)

    built = runtime(configured())
    turn = Turn(built.router, open, Defaults())
    services = msgspec.structs.replace(built.services, clock=clock, turn=turn, streams=Streams(log, turn, clock))
    app = Application(services)

    async def read(target: str, method: str = "GET") -> tuple[int, bytes]:
        body = {"model": "offline", "messages": MESSAGES} if method == "POST" else {}
        if target == "/v1/responses":
            body = {"model": "offline", "input": "hi", "background": True, "stream": True}
        client = Client(app, target, body, method=method)
        await within(client.task)
        return client.status, b"".join(client.sent)

    try:
        yield read
    finally:
        await built.services.stop()


@pytest.mark.parametrize("wire", ["native", "openai-chat", "anthropic"])
async def test_finished_stream_replays_until_it_expires(wire: str) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, retention=3600, max_bytes=1 << 20)
    async with reading(log, clock) as read:
        assert (await read("/chat/stream/s", "POST"))[0] == 200
        place = f"/chat/stream/s/resume?after=0&wire={wire}"
        first = await read(place)
        clock.advance(3599)
        await log.sweep(10)
        assert await read(place) == first and b"there." in first[1]
        clock.advance(2)
        await log.sweep(10)
        assert (await read(place))[0] == 410
        assert (await read("/chat/stream/s", "POST"))[0] == 410


class Behind(InprocStreamLog):
    """What was written last is there, and this process has not heard of it yet."""

    behind = False

    async def head(self, key: StreamKey) -> Head | None:
        head = await super().head(key)
        if head is None or not self.behind:
            return head
        return msgspec.structs.replace(head, tail=head.tail - 1, state="running", terminal_at=None)

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        records = await super().read(key, after, limit)
        return records[:-1] if self.behind else records

    async def hears(self, key: StreamKey, seq: int) -> bool:
        self.behind = False
        return await super().hears(key, seq)


async def test_reader_that_has_had_more_than_this_process_knows_of_is_not_told_that_it_is_lost() -> None:
    clock = FakeClock()
    log = Behind(clock)
    async with reading(log, clock) as read:
        assert (await read("/chat/stream/s", "POST"))[0] == 200
        (key,) = log._streams
        tail = (await log.read(key, 0, 100))[-1].seq
        log.behind = True
        status, body = await read(f"/chat/stream/s/resume?after={tail}&epoch=1")
        assert status == 200 and b"data:" not in body
        log.behind = True
        assert (await read(f"/chat/stream/s/resume?after={tail}&epoch=2"))[0] == 409
        assert (await read(f"/chat/stream/s/resume?after={tail + 1}"))[0] == 409


async def test_reader_of_a_response_that_has_had_more_than_this_process_knows_of_is_not_told_that_it_is_lost() -> None:
    clock = FakeClock()
    log = Behind(clock)
    async with reading(log, clock) as read:
        status, body = await read("/v1/responses", "POST")
        assert status == 200
        (key,) = log._streams
        last = max([int(number) for number in re.findall(rb'"sequence_number":(\d+)', body)])
        place = f"/v1/responses/{key.id}?stream=true&starting_after="
        log.behind = True
        assert (await read(f"{place}{last}"))[0] == 200
        log.behind = True
        status, rest = await read(f"{place}{last - 1}")
        assert status == 200 and b"response.completed" in rest
        log.behind = True
        assert (await read(f"{place}{last + 1}"))[0] == 409
