"""Streams of the Python client against a Cauce behind a network that breaks: each delta once, whatever happens."""

import asyncio
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from cauce.client import CallFailed, Client, Progress, Reconnect, Stream, SyncClient, Unreachable
from cauce.domain.delta import Delta, Finish, Restart, Text
from cauce.domain.errors import CauceError, DeadlineExceeded
from cauce.testing.upstream import Reply, Upstream
from tests.cutting import CuttingProxy, How
from tests.http import ask, within
from tests.serving import BREAKS, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

AT_ONCE = Reconnect(base=0, most=0)
WORDS = "El río 🌊 baja."
QUICK = {**ONE_TRY, **BREAKS, "CAUCE_STREAMS__HEARTBEAT": "1"}


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(upstream_table("up", upstream.base_url, default_model="m"), QUICK) as running:
        yield running


@pytest.fixture
async def proxy(served: Served) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(served.port) as running:
        yield running


@pytest.fixture
async def client(proxy: CuttingProxy) -> AsyncIterator[Client]:
    async with Client(proxy.url, reconnect=AT_ONCE) as made:
        yield made


@pytest.fixture
async def straight(served: Served) -> AsyncIterator[Client]:
    """Not through the proxy."""
    async with Client(served.url) as made:
        yield made


def text(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas if isinstance(delta, Text)])


async def until_text(stream: Stream, wanted: str) -> None:
    async for _ in stream:
        if stream.text == wanted:
            return


async def test_connection_cut_at_every_byte_gives_each_delta_once(
    client: Client, proxy: CuttingProxy, upstream: Upstream, straight: Client
) -> None:
    upstream.answers = [Reply(text=WORDS)]
    whole = [delta async for delta in client.stream("Hello?", model="up/m", id="warm")]
    assert text(whole) == WORDS and isinstance(whole[-1], Finish)
    carried = proxy.carried
    cuts = 0
    assert carried > 900
    # Ids of one length: the answers are then as long as each other, but for figures of time in a head.
    for position in range(carried + 20):
        asked, proxy.carried = len(upstream.requests), 0
        proxy.cut_after(position, "close" if position % 2 else "reset")
        async with client.stream("Hello?", model="up/m", id=f"{position:04}") as stream:
            deltas = [delta async for delta in stream]
            answer = await stream.answer()
        async with straight.resume(stream.id) as again:
            assert deltas == [delta async for delta in again], position
        assert text(deltas) == stream.text == answer.text == WORDS
        assert len(upstream.requests) == asked + 1, position
        cuts += proxy.cut.is_set()
    # An answer whose words came together is shorter than the first one.
    assert cuts > carried / 2
    assert not upstream.closed.is_set()


async def test_connection_that_is_cut_again_and_again_comes_to_the_end(
    client: Client, proxy: CuttingProxy, upstream: Upstream
) -> None:
    said = " ".join([f"word{number}" for number in range(60)])
    upstream.answers = [Reply(text=said, pace=0.003)]
    cuts = 0
    async with client.stream("Hello?", model="up/m") as stream:
        proxy.cut_after(700)
        async for _ in stream:
            if proxy.cut.is_set():
                cuts += 1
                proxy.cut_after(700)
        assert stream.text == said
    assert cuts > 3 and len(upstream.requests) == 1


@pytest.mark.parametrize(("position", "how"), [(0, "hang"), (300, "hang"), (700, "hang"), (1000, "hang")])
async def test_connection_that_goes_silent_is_given_up_and_made_again(
    proxy: CuttingProxy, upstream: Upstream, position: int, how: How
) -> None:
    upstream.answers = [Reply(text=WORDS)]
    told: list[Progress] = []
    async with Client(proxy.url, reconnect=Reconnect(base=0, most=0, idle=0.3)) as client:
        proxy.cut_after(position, how)
        async with client.stream("Hello?", model="up/m", on_progress=told.append) as stream:
            answer = await within(stream.answer())
    assert answer.text == WORDS and len(upstream.requests) == 1
    assert "silent for 0.3 s" in next(one.reason for one in told if one.phase == "reconnecting")


async def test_heartbeats_keep_a_quiet_stream_connected(
    proxy: CuttingProxy, upstream: Upstream, served: Served
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="one two", gate=gate)]
    async with Client(proxy.url, reconnect=Reconnect(idle=2.5)) as client:
        async with client.stream("Hello?", model="up/m") as stream:
            await until_text(stream, "one ")
            before = proxy.carried
            waiting = asyncio.ensure_future(anext(stream))
            while proxy.carried < before + 3 * len(": hb 1\n"):
                await asyncio.wait({waiting}, timeout=0.05)
            for _ in range(9):
                gate.release()
            await waiting
            assert (await stream.answer()).text == "one two"
    assert proxy.connections == 1


async def test_another_process_reads_on_from_where_the_first_one_stopped(
    client: Client, upstream: Upstream, proxy: CuttingProxy
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="one two three four", gate=gate)]
    async with client.stream("Hello?", model="up/m", id="mine") as stream:
        await until_text(stream, "one two ")
    place = (stream.cursor, stream.epoch)
    for _ in range(9):
        gate.release()
    async with Client(proxy.url) as other:
        async with other.resume("mine", after=place[0], epoch=place[1]) as rest:
            assert text([delta async for delta in rest]) == "three four"
            assert rest.text == "one two three four", "the end brings the whole"
        async with other.resume("mine") as again:
            assert (await again.answer()).text == "one two three four"
    assert len(upstream.requests) == 1 and not upstream.closed.is_set()


async def test_two_readers_get_the_same_deltas(client: Client, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="one two three four", gate=gate)]

    async def read() -> list[Delta]:
        async with client.stream("Hello?", model="up/m", id="both") as stream:
            return [delta async for delta in stream]

    async with client.stream("Hello?", model="up/m", id="both") as stream:
        await until_text(stream, "one ")
    readers = [asyncio.ensure_future(read()), asyncio.ensure_future(read())]
    for _ in range(9):
        gate.release()
    first, second = await within(asyncio.gather(*readers))
    assert first == second and text(first) == "one two three four"
    assert len(upstream.requests) == 1


async def test_cancel_stops_the_model_and_ends_the_stream(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=2)]
    async with client.stream("Hello?", model="up/m", id="mine") as stream:
        await until_text(stream, "one two ")
        waiting = asyncio.ensure_future(anext(stream))
        await stream.cancel()
        finish = await within(waiting)
        assert isinstance(finish, Finish) and finish.outcome == "cancelled"
        await within(upstream.closed.wait())
        answer = await stream.answer()
    assert (answer.text, answer.finish_reason) == ("one two ", "cancelled")
    assert stream.progress == Progress("done", outcome="cancelled")
    await client.cancel("mine")
    await client.cancel("never-was")


async def test_cancel_that_comes_before_the_start_is_not_overtaken_by_it(
    client: Client, upstream: Upstream, served: Served
) -> None:
    async with client.stream("Hello?", model="up/m", id="early") as stream:
        await stream.cancel()
        assert [type(delta) async for delta in stream] == [Finish]
    # Another program that had sent its start meanwhile is told the same.
    async with client.stream("Hello?", model="up/m", id="early") as stream:
        finish = [delta async for delta in stream][-1]
    assert isinstance(finish, Finish) and finish.outcome == "cancelled"
    assert upstream.requests == []


async def test_leaving_stops_a_stream_nobody_else_can_name_and_no_other(
    client: Client, upstream: Upstream, served: Served
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="one two", gate=gate), Reply(text="one two three", stall_after=1)]
    async with client.stream("Hello?", model="up/m", id="mine") as stream:
        await until_text(stream, "one ")
    state = (await ask(served.port, "GET", "/chat/stream/mine")).json()
    assert state["state"] == "running" and not upstream.closed.is_set()
    async with client.stream("Hello?", model="up/m") as stream:
        await until_text(stream, "one ")
    await within(upstream.closed.wait())
    state = (await ask(served.port, "GET", f"/chat/stream/{stream.id}")).json()
    assert state["state"] == "cancelled"


@pytest.mark.parametrize("id", [None, "mine"])
@pytest.mark.parametrize("policy", ["cancel", "grace:0.05"])
async def test_client_that_leaves_a_stream_that_is_to_be_cancelled_closes_the_upstream(
    client: Client, upstream: Upstream, served: Served, policy: str, id: str | None
) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=1)]
    async with client.stream("Hello?", model="up/m", id=id, on_disconnect=policy) as stream:
        await until_text(stream, "one ")
        assert not upstream.closed.is_set()
    await within(upstream.closed.wait())
    async with client.resume(stream.id) as rest:
        finish = [delta async for delta in rest][-1]
    assert isinstance(finish, Finish) and finish.outcome == "cancelled"


@pytest.mark.parametrize("policy", ["continue", "grace:60", "grace"])
async def test_client_that_leaves_a_stream_that_is_to_go_on_does_not_cancel_it(
    client: Client, upstream: Upstream, policy: str
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="one two", gate=gate)]
    async with client.stream("Hello?", model="up/m", on_disconnect=policy) as stream:
        await until_text(stream, "one ")
    for _ in range(9):
        gate.release()
    async with client.resume(stream.id, after=stream.cursor, epoch=stream.epoch) as rest:
        assert (await rest.answer()).text == "one two"
    assert len(upstream.requests) == 1 and not upstream.closed.is_set()


async def test_broken_connection_ends_a_stream_that_is_to_be_cancelled_and_its_reader_is_told_why(
    client: Client, upstream: Upstream, proxy: CuttingProxy
) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=1)]
    async with client.stream("Hello?", model="up/m", on_disconnect="cancel") as stream:
        await until_text(stream, "one ")
        proxy.cut_after(0, "close")
        *_, finish = [delta async for delta in stream]
    assert isinstance(finish, Finish) and (finish.outcome, finish.cause) == ("cancelled", "abandoned")
    await within(upstream.closed.wait())


async def test_what_is_no_policy_is_refused_by_its_name(client: Client, upstream: Upstream) -> None:
    with pytest.raises(CallFailed, match="grace:SECONDS") as caught:
        await client.stream("Hello?", model="up/m", on_disconnect="stay").answer()
    assert (caught.value.status, caught.value.field) == (400, "X-Cauce-On-Disconnect")
    assert upstream.requests == []


async def test_stream_that_is_over_has_nothing_left_and_still_its_answer(client: Client, upstream: Upstream) -> None:
    async with client.stream("Hello?", model="up/m", id="over") as stream:
        first = await stream.answer()
    async with client.resume("over", after=stream.cursor, epoch=stream.epoch) as rest:
        assert [delta async for delta in rest] == []
        assert (await rest.answer()).text == first.text == "Hello from upstream."
    upstream.answers = [Reply(text="one two", cut_after=1)]
    with pytest.raises(CallFailed):
        async with client.stream("Hello?", model="up/m", id="broken") as stream:
            await stream.answer()
    async with client.resume("broken", after=stream.cursor) as rest:
        assert [delta async for delta in rest] == [] and rest.text == "one "
        with pytest.raises(CallFailed):
            await rest.answer()


async def test_place_that_the_server_does_not_know_begins_again_and_says_so(client: Client, upstream: Upstream) -> None:
    async with client.stream("Hello?", model="up/m", id="lost") as stream:
        whole = [delta async for delta in stream]
    for after, epoch in ((999, None), (2, 77)):
        async with client.resume("lost", after=after, epoch=epoch) as rest:
            restart, *deltas = [delta async for delta in rest]
        assert isinstance(restart, Restart) and restart.from_seq == 1
        assert deltas == whole and rest.text == "Hello from upstream."


async def test_what_cannot_be_resumed_or_begun_is_an_error_at_once(client: Client, proxy: CuttingProxy) -> None:
    async with client.stream("Hello?", model="up/m", id="taken") as stream:
        await stream.answer()
    proxy.connections = 0
    for stream, code, status in (
        (client.resume("nowhere"), "not_found", 404),
        (client.stream("Another?", model="up/m", id="taken"), "conflict", 409),
        (client.stream("Hello?", model="nobody/knows"), "model_not_found", 404),
        (client.stream("Hello?", model="up/m", temperature=9), "invalid_request", 400),
        (client.stream("Hello?", model="up/m", id=" "), "invalid_request", 400),
    ):
        with pytest.raises(CallFailed) as caught:
            async with stream:
                await stream.answer()
        assert (caught.value.code, caught.value.status) == (code, status)
        assert caught.value.request_id is not None
    assert proxy.connections <= 5


async def test_stream_id_in_any_script_and_with_any_sign_works(client: Client) -> None:
    for id in ("río/🌊?a=1&b#c%2F".replace("/", "-"), "a+b", "..."):
        async with client.stream("Hello?", model="up/m", id=id) as stream:
            assert (await stream.answer()).stream_id == id
        assert (await client.resume(id).answer()).text == "Hello from upstream."


async def test_time_of_a_stream_holds_over_all_its_connections(proxy: CuttingProxy, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two", stall_after=1)]
    async with Client(proxy.url, timeout=0.5, reconnect=AT_ONCE) as client:
        with pytest.raises(DeadlineExceeded):
            async with client.stream("Hello?", model="up/m") as stream:
                await within(stream.answer())
    await within(upstream.closed.wait())
    assert stream.text == "one "


async def test_server_that_is_gone_for_good_is_told_after_some_tries(proxy: CuttingProxy, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two", stall_after=1)]
    told: list[Progress] = []
    reconnect = Reconnect(attempts=3, base=0, most=0)
    async with Client(proxy.url, reconnect=reconnect) as client:
        async with client.stream("Hello?", model="up/m", id="mine", on_progress=told.append) as stream:
            await until_text(stream, "one ")
            await proxy.__aexit__()
            with pytest.raises(Unreachable):
                await within(stream.answer())
    assert [one.attempt for one in told if one.phase == "reconnecting"] == [1, 2, 3]


async def test_object_that_is_still_being_written_can_be_looked_at(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text='{"name": "cat", "legs": 4}')]
    seen: list[object] = []
    async with client.stream("An animal?", model="up/m", response_format={"type": "json_object"}) as stream:
        async for _ in stream:
            if stream.partial not in seen:
                seen.append(stream.partial)
        answer = await stream.answer()
    assert seen[-1] == answer.parsed == {"name": "cat", "legs": 4} and {"name": "ca"} not in seen[:1]


def test_sync_client_streams_resumes_and_cancels_over_a_bad_network(anyio_backend: str) -> None:
    """The server has a thread and a loop of its own here: the client blocks this one."""
    ready: list[tuple[CuttingProxy, asyncio.AbstractEventLoop, asyncio.Event]] = []
    up = threading.Event()

    async def serve() -> None:
        async with Upstream() as upstream:
            upstream.answers = [Reply(text=WORDS), Reply(text="one two", stall_after=1), Reply(text="six")]
            async with serving(upstream_table("up", upstream.base_url, default_model="m"), QUICK) as served:
                async with CuttingProxy(served.port) as proxy:
                    over = asyncio.Event()
                    ready.append((proxy, asyncio.get_running_loop(), over))
                    up.set()
                    await over.wait()
                    await within(upstream.closed.wait())

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    assert up.wait(30)
    proxy, loop, over = ready[0]
    told: list[Progress] = []
    try:
        with SyncClient(proxy.url, reconnect=AT_ONCE) as client:
            proxy.cut_after(800)
            with client.stream("Hello?", model="up/m", id="sync", on_progress=told.append) as stream:
                assert text(list(stream)) == WORDS == stream.text
                assert stream.answer().text == WORDS and stream.request_id is not None
            with client.resume(stream.id, after=stream.cursor, epoch=stream.epoch) as rest:
                assert list(rest) == [] and rest.answer().text == WORDS
            with client.stream("Hello?", model="up/m") as stream:
                assert next(delta.text for delta in stream if isinstance(delta, Text)) == "one "
                canceller = threading.Thread(target=stream.cancel)
                canceller.start()
                finish = list(stream)[-1]
                canceller.join(10)
            assert isinstance(finish, Finish) and finish.outcome == "cancelled"
            assert stream.progress.phase == "done" and stream.reasoning == "" and stream.partial is None
            client.cancel("sync")
            with client.stream("Hello?", model="up/m", on_disconnect="continue") as left:
                next(left)
            assert client.resume(left.id).answer().text == "six"
            with pytest.raises(CauceError):
                client.resume("nowhere").answer()
    finally:
        loop.call_soon_threadsafe(over.set)
        server.join(30)
    assert "reconnecting" in [one.phase for one in told]
    assert msgspec.json.encode(told)
