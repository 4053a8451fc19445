"""`/chat/stream/{id}`: starting, leaving, coming back, cancelling."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Connection, ask, connection, within
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

BODY = {"model": "up/m", "messages": MESSAGES}
RAW = b'{"model":"up/m","messages":[{"role":"user","content":"Say hello."}]}'


Kept = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["in memory", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Serves with its streams kept there."""
    return partial(serving, data=tmp_path / "data") if request.param == "on disk" else serving


def config(upstream: Upstream) -> str:
    return upstream_table("up", upstream.base_url, default_model="m")


async def ended(served: Served, stream_id: str) -> dict[str, object]:
    """The state of the stream once it has ended."""
    while True:
        state = (await ask(served.port, "GET", f"/chat/stream/{stream_id}")).json()
        if state["state"] in ("completed", "failed", "cancelled", "incomplete"):
            return state


async def read_until(client: Connection, text: bytes) -> bytes:
    await client.head()
    return await within(client.until(text))


async def test_simple_client_reads_start_content_and_complete(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        response = await ask(served.port, "POST", "/chat/stream/mine-1", {"messages": MESSAGES})
    frames = [frame for frame in response.frames() if frame["type"] in ("start", "content", "complete", "error")]
    assert frames[0]["type"] == "start" and frames[-1]["type"] == "complete"
    assert "".join(frame["data"] for frame in frames if frame["type"] == "content") == frames[-1]["data"]
    assert frames[-1]["data"] == "Hello from upstream."
    assert all(frame["id"] == "mine-1" for frame in frames)
    assert response.body.startswith(b"retry: 1000\nid: 0\n\n")


async def test_leaving_is_not_cancelling_and_the_cursor_brings_exactly_the_rest(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            seen = await read_until(client, b'"data":"b "')
            client.abort()
        cursor = seen.count(b"\ndata: ")
        for _ in range(10):
            gate.release()
        first = await within(ask(served.port, "POST", "/chat/stream/s/resume", headers={"Last-Event-ID": str(cursor)}))
        second = await within(ask(served.port, "GET", f"/chat/stream/s/resume?after={cursor}"))
        whole = await within(ask(served.port, "GET", "/chat/stream/s/resume?after=0"))
    assert not upstream.closed.is_set()
    assert [frame["seq"] for frame in first.frames()] == list(range(cursor + 1, cursor + len(first.frames()) + 1))
    assert first.body == second.body
    assert "".join(frame["data"] for frame in whole.frames() if frame["type"] == "content") == "a b c d"
    assert first.frames()[-1]["data"] == "a b c d"


async def test_client_without_cursor_continues_after_the_last_flush(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await read_until(client, b'"data":"b "')
            client.abort()
        for _ in range(10):
            gate.release()
        response = await within(ask(served.port, "POST", "/chat/stream/s/resume"))
    frames = response.frames()
    assert (frames[0]["type"], frames[0]["resumed"]) == ("start", True) and "seq" not in frames[0]
    assert "".join(frame["data"] for frame in frames if frame["type"] == "content") == "c d"
    assert frames[-1]["data"] == "a b c d"


async def test_resume_of_an_ended_stream_without_cursor_gives_its_terminal_frame(
    kept: Kept, upstream: Upstream
) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        response = await ask(served.port, "POST", "/chat/stream/s/resume")
    assert response.status == 200
    assert [frame["type"] for frame in response.frames()] == ["start", "complete"]


async def test_cursor_at_the_end_of_an_ended_stream_is_204(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        tail = (await ask(served.port, "POST", "/chat/stream/s", BODY)).frames()[-1]["seq"]
        response = await ask(served.port, "GET", f"/chat/stream/s/resume?after={tail}")
    assert response.status == 204


async def test_cursor_beyond_the_tail_or_of_another_epoch_is_a_conflict(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        tail = (await ask(served.port, "POST", "/chat/stream/s", BODY)).frames()[-1]["seq"]
        for query in ("after=999", "after=1&epoch=7"):
            response = await ask(served.port, "GET", f"/chat/stream/s/resume?{query}")
            body = response.json()
            assert (response.status, body["error_code"], body["tail"], body["epoch"]) == (409, "conflict", tail, 1)


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5.2", "9" * 40])
async def test_cursor_that_is_no_number_is_400(kept: Kept, upstream: Upstream, cursor: str) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        response = await ask(served.port, "GET", "/chat/stream/s/resume", headers={"Last-Event-ID": cursor})
    assert response.status == 400 and response.json()["field"] == "after"


async def test_second_post_attaches_and_asks_nobody_again(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        first = await ask(served.port, "POST", "/chat/stream/s", BODY)
        second = await ask(served.port, "POST", "/chat/stream/s", BODY)
        attached = await ask(served.port, "POST", "/chat/stream/s")
    assert first.body == second.body == attached.body
    assert len(upstream.requests) == 1


async def test_known_id_with_another_request_is_a_conflict(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        response = await ask(served.port, "POST", "/chat/stream/s", {**BODY, "temperature": 1})
    assert response.status == 409


async def test_cancel_closes_the_upstream_and_ends_the_stream_for_its_readers(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await read_until(client, b'"data":"b "')
            state = (await within(ask(served.port, "DELETE", "/chat/stream/s"))).json()
            assert state["state"] == "cancelled"
            assert b'"data":"a b "' in await within(client.until(b'"type":"cancelled"'))
        await within(upstream.closed.wait())
        again = (await ask(served.port, "DELETE", "/chat/stream/s")).json()
        assert again["state"] == "cancelled"


async def test_cancel_before_the_first_delta_closes_the_upstream(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await client.head()
            await within(upstream.asked.wait())
            await within(ask(served.port, "DELETE", "/chat/stream/s"))
            await within(upstream.closed.wait())


async def test_cancel_that_overtakes_its_start_is_remembered(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        early = await ask(served.port, "DELETE", "/chat/stream/s")
        response = await within(ask(served.port, "POST", "/chat/stream/s", BODY))
    assert early.status == 404
    assert [frame["type"] for frame in response.frames()] == ["start", "cancelled"]
    assert upstream.requests == []


async def test_cancel_of_an_ended_stream_changes_nothing(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", BODY)
        state = (await ask(served.port, "DELETE", "/chat/stream/s")).json()
    assert state["state"] == "completed" and "cancel_requested" not in state


async def test_failures_are_frames_and_fallbacks_are_told(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"}), Reply(text="second")]
    toml = config(upstream) + upstream_table("two", upstream.base_url)
    async with kept(toml, ONE_TRY) as served:
        told = await ask(served.port, "POST", "/chat/stream/a", {**BODY, "fallbacks": ["two/m"]})
        upstream.answers = [Reply(status=503, error={"message": "busy"})]
        failed = await ask(served.port, "POST", "/chat/stream/b", BODY)
        state = await ended(served, "b")
    retrying = next(frame for frame in told.frames() if frame["type"] == "error")
    assert (retrying["retrying"], retrying["retry_count"], retrying["error_code"]) == (True, 1, "overloaded")
    assert told.frames()[-1]["data"] == "second" and told.frames()[-1]["level"] == "fallback"
    last = failed.frames()[-1]
    assert failed.status == 200 and failed.complete
    assert (last["type"], last["final_error"], last["error_code"]) == ("error", True, "overloaded")
    assert state["state"] == "failed"


async def test_stream_of_another_principal_is_not_found(kept: Kept, upstream: Upstream) -> None:
    from cauce.server.gate import hash_key

    keys = "".join(f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("one", "two"))
    async with kept(config(upstream) + keys) as served:
        mine, other = {"Authorization": "Bearer one"}, {"x-api-key": "two"}
        await ask(served.port, "POST", "/chat/stream/s", BODY, mine)
        assert (await ask(served.port, "GET", "/chat/stream/s", headers=mine)).status == 200
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/resume"), ("GET", "/resume?after=0")):
            assert (await ask(served.port, method, f"/chat/stream/s{path}", headers=other)).status == 404


async def test_unknown_model_is_refused_before_a_stream_exists(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        response = await ask(served.port, "POST", "/chat/stream/s", {**BODY, "model": "nope"})
        assert (response.status, response.json()["error_code"]) == (404, "model_not_found")
        assert (await ask(served.port, "GET", "/chat/stream/s")).status == 404


async def test_offline_answer_names_its_level_in_the_complete_frame(kept: Kept, upstream: Upstream) -> None:
    async with kept() as served:
        body = {"messages": [{"role": "user", "content": "How do I configure a provider?"}]}
        frames = (await ask(served.port, "POST", "/chat/stream/s", body)).frames()
    assert frames[-1]["type"] == "complete" and frames[-1]["level"] == "offline"


@pytest.mark.parametrize("stream_id", ["%00", "a%0ab", "x" * 201, "%20"])
async def test_id_that_is_no_id_is_400(kept: Kept, upstream: Upstream, stream_id: str) -> None:
    async with kept(config(upstream)) as served:
        response = await ask(served.port, "POST", f"/chat/stream/{stream_id}", BODY)
    assert response.status == 400


async def test_ids_may_be_written_in_any_script(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        response = await ask(served.port, "POST", "/chat/stream/conversaci%C3%B3n-1", BODY)
    assert response.frames()[0]["id"] == "conversación-1"


@pytest.mark.parametrize("path", ["/llm/message", "/v1/chat/completions"])
async def test_shutdown_ends_streams_without_a_log_honestly_too(kept: Kept, upstream: Upstream, path: str) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", path, RAW[:-1] + b',"stream":true}')
            await read_until(client, b'"b "')
            served.server.stop()
            assert b"shut down" in await within(client.until(b"overloaded"))
            assert (await within(client.chunk())) == b""


async def test_shutdown_answers_plain_calls_that_wait(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/llm/message", RAW)
            await within(upstream.asked.wait())
            served.server.stop()
            response = await within(client.response())
    assert (response.status, response.json()["error_code"]) == (503, "overloaded")


async def test_shutdown_ends_streams_honestly_that_are_kept_in_memory(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with serving(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await read_until(client, b'"data":"b "')
            served.server.stop()
            frame = await within(client.until(b'"final_error":true'))
            assert b'"error_code":"overloaded"' in frame


async def test_shutdown_breaks_connections_to_streams_that_are_gone_on_with(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with serving(config(upstream), data=tmp_path / "data") as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", RAW)
            await read_until(client, b'"data":"b "')
            served.server.stop()
            # Never a clean end of the body: nobody may take it for the end of the answer.
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await within(client.until(b'"final_error":true'))
    await within(upstream.closed.wait())
