"""`/api/chat`: what pages made with the AI SDK call. How the SDK itself reads it is tested with the other clients."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.serving import ONE_TRY, Served, serving, upstream_table
from tests.unit.wire.ui_reader import Reader

pytestmark = pytest.mark.anyio

SAID = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Say hello."}]}
KEYS = "".join(f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("ours", "theirs"))

Kept = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["in memory", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Serves with its streams kept there."""
    return partial(serving, data=tmp_path / "data") if request.param == "on disk" else serving


def config(upstream: Upstream) -> str:
    return upstream_table("up", upstream.base_url, default_model="m")


def body(chat: str = "c", *messages: Any, **fields: Any) -> dict[str, Any]:
    return {"id": chat, "messages": list(messages or [SAID]), "trigger": "submit-message", **fields}


async def post(served: Served, chat: str = "c", headers: dict[str, str] | None = None, **fields: Any) -> Response:
    return await within(ask(served.port, "POST", "/api/chat", body(chat, **fields), headers))


async def stopped(served: Served, chat: str = "c", **fields: Any) -> Response:
    return await within(ask(served.port, "POST", f"/api/chat/{chat}/stop", fields or None))


async def replayed(served: Served, chat: str = "c", headers: dict[str, str] | None = None) -> Response:
    return await within(ask(served.port, "GET", f"/api/chat/{chat}/stream", headers=headers))


def read(response: Response) -> Reader:
    assert response.status == 200 and response.complete, response
    return Reader().read(bare(response.body))


def opened(gate: asyncio.Semaphore) -> None:
    """Let all of an answer through."""
    for _ in range(20):
        gate.release()


async def caught(served: Served, gate: asyncio.Semaphore, chat: str = "c") -> Reader:
    """The chat's open answer, which goes on only once it is being read."""
    async with connection(served.port) as client:
        await client.send("GET", f"/api/chat/{chat}/stream")
        status, _ = await within(client.head())
        assert status == 200
        opened(gate)
        return Reader().read(bare(await within(client.until(b"[DONE]"))))


def bare(raw: bytes) -> bytes:
    """`raw` without what stands between and beside the data of its events."""
    return b"".join([line + b"\n\n" for line in raw.split(b"\n") if line.startswith(b"data: ")])


class Leaver:
    """Starts an answer, and leaves when it has seen enough of it."""

    def __init__(self, served: Served, chat: str = "c", **fields: Any) -> None:
        self._served = served
        self._body = msgspec.json.encode(body(chat, **fields))
        self.stream_id = ""
        self.seen = b""

    async def until(self, text: bytes, headers: dict[str, str] | None = None) -> "Leaver":
        async with connection(self._served.port) as client:
            await client.send("POST", "/api/chat", self._body, headers)
            status, told = await within(client.head())
            assert status == 200, told
            self.stream_id = told["x-cauce-stream-id"]
            self.seen = await within(client.until(text))
            client.abort()
        return self


async def test_chat_is_answered_in_the_chunks_of_the_sdk(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(reasoning="Let me see.", text="Hello there.")]
    async with kept(config(upstream)) as served:
        response = await post(served, model="up/m")
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"].startswith("no-store") and response.headers["x-accel-buffering"] == "no"
    message = read(response)
    assert message.text == "Hello there." and message.reasoning == "Let me see." and message.finish == "stop"
    stream_id = response.headers["x-cauce-stream-id"]
    assert message.id == stream_id == message.metadata["stream_id"] and stream_id.startswith("c~ui_")
    assert message.metadata["model"] == "up/m" and message.metadata["usage"]["output_tokens"] > 0
    assert upstream.requests[0]["messages"] == [{"role": "user", "content": "Say hello."}]


async def test_what_a_page_posts_after_a_tool_reaches_the_model(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("weather", '{"city": "Sevilla"}'),)), Reply(text="Clear.")]
    async with kept(config(upstream)) as served:
        first = read(await post(served, tools={"weather": {"parameters": {"type": "object"}}}))
        (made,) = first.tools
        assert (made["state"], made["input"], first.finish) == ("input-available", {"city": "Sevilla"}, "tool-calls")
        made.update(state="output-available", output={"sky": "clear"})
        response = await within(ask(served.port, "POST", "/api/chat", body("c", SAID, first.body())))
    second = read(response)
    # It goes on in the message that has the call.
    assert second.text == "Clear." and second.id is None
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "weather"
    sent = upstream.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[2]["content"] == '{"sky":"clear"}' and sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]


async def test_page_that_is_loaded_again_gets_the_whole_open_answer(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with kept(config(upstream)) as served:
        left = await Leaver(served).until(b'"b "')
        async with connection(served.port) as client:
            await client.send("GET", "/api/chat/c/stream")
            status, told = await within(client.head())
            again = await within(client.until(b'"b "'))
            opened(gate)
            again += await within(client.until(b"[DONE]"))
        assert (status, told["x-cauce-stream-id"], told["x-vercel-ai-ui-message-stream"]) == (200, left.stream_id, "v1")
        assert again.startswith(left.seen[: left.seen.rindex(b"\n\n")])
        whole = Reader().read(bare(again))
        assert whole.text == "a b c d" and whole.id == left.stream_id and not upstream.closed.is_set()
        assert len(upstream.requests) == 1
        gone = await replayed(served)
    assert (gone.status, gone.body) == (204, b"")


async def test_chat_without_an_open_answer_has_nothing_to_show(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        await post(served, "cc")
        for chat in ("c", "cc", "never"):
            assert (await replayed(served, chat)).status == 204
            assert (await stopped(served, chat)).status == 204


async def test_newest_of_several_open_answers_is_the_one_that_is_read_and_stopped(
    kept: Kept, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text=f"{word} b", gate=gate) for word in ("one", "two", "three")]
    async with kept(config(upstream)) as served:
        starts = b'"status":"attempt"'
        first = await Leaver(served).until(starts)
        second = await Leaver(served).until(starts)
        # Another chat, whose id begins the same.
        await Leaver(served, "c~x").until(starts)
        told = (await stopped(served)).json()
        assert (told["id"], told["state"]) == (second.stream_id, "cancelled")
        told = (await stopped(served)).json()
        assert (told["id"], told["state"]) == (first.stream_id, "cancelled")
        assert (await stopped(served)).status == 204
        other = (await stopped(served, "c~x")).json()
        assert other["id"].startswith("c%7Ex~") and other["state"] == "cancelled"


async def test_stop_closes_the_upstream_and_aborts_the_message(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c", gate=asyncio.Semaphore(1))]
    async with kept(config(upstream)) as served, connection(served.port) as client:
        await client.send("POST", "/api/chat", msgspec.json.encode(body()))
        await within(client.head())
        seen = await within(client.until(b'"a "'))
        response = await stopped(served)
        seen += await within(client.until(b"[DONE]"))
        await within(upstream.closed.wait())
    assert response.json()["state"] == "cancelled" and response.json()["finish_reason"] == "cancelled"
    message = Reader().read(bare(seen))
    assert message.aborted and message.text == "a " and message.metadata["outcome"] == "cancelled"


async def test_late_stop_that_names_an_answer_leaves_a_newer_one_alone(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(), Reply(text="a b", gate=gate)]
    async with kept(config(upstream)) as served:
        old = read(await post(served)).metadata["stream_id"]
        new = await Leaver(served).until(b'"a "')
        told = (await stopped(served, stream_id=old)).json()
        assert (told["id"], told["state"]) == (old, "completed")
        assert (await stopped(served, "d", stream_id=old)).status == 404
        assert (await stopped(served, stream_id="c~unknown")).status == 404
        assert (await caught(served, gate)).text == "a b"
        state = await ask(served.port, "GET", f"/chat/stream/{new.stream_id}")
    assert state.json()["state"] == "completed"


async def test_answer_is_nobodys_but_its_owners(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b", gate=asyncio.Semaphore(1))]
    ours, theirs = ({"Authorization": f"Bearer {name}"} for name in ("ours", "theirs"))
    async with kept(config(upstream) + KEYS) as served:
        left = await Leaver(served).until(b'"a "', ours)
        assert (await post(served)).status == 401
        assert (await replayed(served)).status == 401
        assert (await replayed(served, headers=theirs)).status == 204
        path = "/api/chat/c/stop"
        assert (await ask(served.port, "POST", path, headers=theirs)).status == 204
        named = {"stream_id": left.stream_id}
        assert (await ask(served.port, "POST", path, named, theirs)).status == 404
        assert (await ask(served.port, "POST", path, named, ours)).json()["state"] == "cancelled"


async def test_chat_id_may_be_anything_but_a_path(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        for chat in ("ñ 100%", "", "a/b", "a\n", "x" * 101):
            assert (await post(served, chat)).status == 400, chat
        for chat in ("chät", "a~b%7E", "x" * 100, "..", "a?b#c"):
            message = read(await post(served, chat))
            assert message.text == "Hello from upstream." and message.metadata["stream_id"] == message.id
        gate = asyncio.Semaphore(1)
        upstream.answers = [Reply(text="a b", gate=gate)]
        await Leaver(served, "chät~%").until(b'"a "')
        assert (await caught(served, gate, "ch%C3%A4t~%25")).text == "a b"


async def test_request_that_is_refused_is_an_http_error_and_leaves_no_stream(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        unknown = await post(served, model="no/such")
        assert (unknown.status, unknown.json()["error_code"]) == (404, "model_not_found")
        wrong = await within(ask(served.port, "POST", "/api/chat", {"id": "c", "messages": [{"role": "user"}]}))
        assert (wrong.status, wrong.json()["field"]) == (400, "messages[0].parts")
        assert (await within(ask(served.port, "GET", "/api/chat"))).status == 405
        assert (await within(ask(served.port, "DELETE", "/api/chat/c/stop"))).status == 405
        assert (await within(ask(served.port, "POST", "/api/chat/c/stream"))).status == 405
        assert (await within(ask(served.port, "GET", "/api/chat/c"))).status == 404
        assert (await replayed(served)).status == 204
    assert upstream.requests == []


async def test_failure_of_the_model_is_an_error_in_the_stream(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "it fell over"}), Reply(text="a b c", cut_after=2)]
    toml = config(upstream) + "[recovery]\nattempts = 0\n[breaker]\nenabled = false\n"
    async with kept(toml, ONE_TRY) as served:
        failed, broken = [read(await post(served, model="up/m")) for _ in range(2)]
    assert failed.error is not None and "it fell over" in failed.error and failed.metadata["outcome"] == "failed"
    assert broken.error is not None and broken.text == "a b " and broken.metadata["outcome"] == "incomplete"
    assert broken.metadata["error_code"] == "provider_error" and broken.finish is None


async def test_key_makes_a_post_idempotent(kept: Kept, upstream: Upstream) -> None:
    key = {"Idempotency-Key": "k1"}
    async with kept(config(upstream)) as served:
        once, again = await post(served, headers=key), await post(served, headers=key)
        other = await post(served, headers=key, temperature=0.5)
        assert (await post(served, "d", headers=key)).status == 200
        assert (await post(served, headers={"Idempotency-Key": "a b"})).status == 400
    assert once.body == again.body and once.headers["x-cauce-stream-id"] == "c~k1"
    assert other.status == 409 and len(upstream.requests) == 2


async def test_any_stream_can_be_read_on_as_ui_messages_from_any_chunk(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c", tool_calls=(("look", "{}"),)), Reply(text="of the native wire")]
    async with kept(config(upstream)) as served:
        whole = await post(served)
        path = f"{whole.headers['location']}&after="
        assert "?wire=ui" in path
        frames = whole.body.split(b"\n\n")[:-1]
        assert frames[0].startswith(b"id: 1\nretry: 1000\ndata: ")
        for place, frame in enumerate(frames[:-1], 1):
            cursor = frame[4 : frame.index(b"\n")].decode()
            rest = await within(ask(served.port, "GET", path + cursor))
            assert rest.body == b"\n\n".join([*frames[place:], b""]), cursor
            assert rest.headers["x-vercel-ai-ui-message-stream"] == "v1"
        native = {"messages": [{"role": "user", "content": "hi"}]}
        await within(ask(served.port, "POST", "/chat/stream/n", native))
        shown = await within(ask(served.port, "GET", "/chat/stream/n/resume?wire=ui&after=0"))
    assert Reader().read(bare(shown.body)).text == "of the native wire"


async def test_pages_of_other_origins_are_answered_as_everywhere(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        allowed = await post(served, headers={"Origin": "http://localhost:3000"})
        foreign = await post(served, headers={"Origin": "https://evil.example"})
        preflight = await ask(
            served.port,
            "OPTIONS",
            "/api/chat",
            headers={"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "content-type"},
        )
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000" and allowed.status == 200
    assert foreign.status == 403 and preflight.status == 204
    assert "content-type" in preflight.headers["access-control-allow-headers"]


async def test_answer_goes_on_after_a_restart_and_its_chat_finds_it(tmp_path: Path, upstream: Upstream) -> None:
    first, second = asyncio.Semaphore(2), asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b gone", gate=first), Reply(text="c d", gate=second)]
    data = tmp_path / "data"
    async with serving(config(upstream), data=data) as served:
        left = await Leaver(served, model="up/m").until(b'"b "')
    async with serving(config(upstream), data=data) as served:
        message = await caught(served, second)
        assert (await replayed(served)).status == 204
    assert message.id == left.stream_id and message.finish == "stop"
    assert message.text.startswith("a b ") and message.text.endswith("c d") and "gone" not in message.text


async def test_servers_that_share_their_streams_find_each_others_answers(tmp_path: Path, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b", gate=gate)]
    toml = config(upstream) + f'[streams]\nfolder = "{tmp_path / "shared"}"\n'
    async with serving(toml, data=tmp_path / "one") as one, serving(toml, data=tmp_path / "two") as two:
        left = await Leaver(one).until(b'"a "')
        async with connection(two.port) as client:
            await client.send("GET", "/api/chat/c/stream")
            assert (await within(client.head()))[0] == 200
            seen = await within(client.until(b'"a "'))
            told = (await stopped(two)).json()
            seen += await within(client.until(b"[DONE]"))
        await within(upstream.closed.wait())
    assert told["id"] == left.stream_id and told["cancel_requested"] is True
    assert Reader().read(bare(seen)).aborted


async def test_answer_may_begin_anew_unless_the_page_cannot_show_that(upstream: Upstream) -> None:
    upstream.answers = [
        Reply(text="all wrong here", cut_after=2),
        Reply(text="Right."),
        Reply(text="a b c", cut_after=2),
    ]
    toml = config(upstream) + '[models.careful]\ncandidates = ["up/m"]\nmidstream = "restart"\n'
    async with serving(toml + "[breaker]\nenabled = false\n", ONE_TRY) as served:
        anew = read(await post(served, model="careful"))
        refused = read(await post(served, model="careful", headers={"X-Cauce-Restart": "refuse"}))
    assert "reset-step" in anew.kinds and anew.text == "Right." and anew.finish == "stop"
    assert anew.metadata["restarted"] is True and len(anew.metadata["attempts"]) == 2
    assert "reset-step" not in refused.kinds and refused.text == "a b " and refused.error is not None


async def test_answer_that_is_shown_whole_has_nothing_of_a_first_try(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="all wrong here", cut_after=2), Reply(text="Right.")]
    toml = config(upstream) + '[models.checked]\ncandidates = ["up/m"]\nmidstream = "restart"\nbuffer = true\n'
    async with serving(toml, ONE_TRY) as served:
        message = read(await post(served, model="checked"))
    assert message.text == "Right." and message.finish == "stop" and "reset-step" not in message.kinds
    assert [told["status"] for told in message.transient] == ["attempt", "retrying", "restart"]


async def test_call_that_broke_off_is_shown_so_and_made_anew(kept: Kept, upstream: Upstream) -> None:
    calls = (("weather", '{"city": "Sevilla"}'),)
    upstream.answers = [Reply(text="", tool_calls=calls, cut_after=2), Reply(text="", tool_calls=calls)]
    async with kept(config(upstream) + "[breaker]\nenabled = false\n", ONE_TRY) as served:
        message = read(await post(served, model="up/m"))
    broken, made = message.tools
    assert (broken["state"], broken["input"]) == ("output-error", None)
    assert (made["state"], made["input"]) == ("input-available", {"city": "Sevilla"})
    assert broken["toolCallId"] != made["toolCallId"] and message.finish == "tool-calls"


async def test_page_may_have_leaving_end_its_answer(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b", gate=asyncio.Semaphore(1))]
    async with kept(config(upstream)) as served:
        left = await Leaver(served, model="up/m").until(b'"a "', {"X-Cauce-On-Disconnect": "cancel"})
        await within(upstream.closed.wait())
        state = (await within(ask(served.port, "DELETE", f"/chat/stream/{left.stream_id}"))).json()
    assert state["state"] == "cancelled"
