"""Calls on the compatible wires that go through the log: resumed, repeated, cancelled, read on other wires, left by their clients."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import msgspec
import pytest
from openai import APIError, AsyncOpenAI

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.integration.test_streams import Kept, config
from tests.serving import MESSAGES, ONE_TRY, Served, serving

pytestmark = pytest.mark.anyio


class Surface(NamedTuple):
    """A wire, where it is spoken, and what asks for a stream there."""

    wire: str
    path: str
    body: dict[str, Any]

    @property
    def streamed(self) -> dict[str, Any]:
        return {**self.body, "stream": True}


_CHAT = {"model": "up/m", "messages": MESSAGES}
SURFACES = {
    "chat": Surface("openai-chat", "/v1/chat/completions", _CHAT),
    "completions": Surface("openai-completions", "/v1/completions", {"model": "up/m", "prompt": "Say hello."}),
    "anthropic": Surface("anthropic", "/v1/messages", {**_CHAT, "max_tokens": 64}),
    "native": Surface("native", "/llm/message", _CHAT),
}
KEY = {"Idempotency-Key": "k"}


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> Surface:
    return SURFACES[request.param]


@pytest.fixture(params=["in memory", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    return partial(serving, data=tmp_path / "data") if request.param == "on disk" else serving


def blocks(response: Response) -> list[bytes]:
    return [block + b"\n\n" for block in response.body.split(b"\n\n")[:-1]]


def last_id(block: bytes) -> str:
    (found,) = [line.removeprefix(b"id: ") for line in block.split(b"\n") if line.startswith(b"id: ")]
    return found.decode()


async def post(served: Served, surface: Surface, body: Any = None, **headers: str) -> Response:
    return await within(
        ask(served.port, "POST", surface.path, body or surface.streamed, {**KEY, **_named(headers)}), 10
    )


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def test_stream_cut_after_any_frame_is_resumed_with_exactly_the_rest(
    kept: Kept, upstream: Upstream, surface: Surface
) -> None:
    upstream.answers = [Reply(text="Hola río", tool_calls=(("look", '{"x": 1}'),))]
    if surface.wire == "openai-completions":
        upstream.answers = [Reply(text="Hola río")]
    async with kept(config(upstream)) as served:
        whole = await post(served, surface)
        place = whole.headers["location"]
        assert place.startswith(f"/chat/stream/{surface.wire}:k/resume")
        frames = [block for block in blocks(whole) if b"\ndata: " in block]
        assert len(frames) >= 3
        for number, frame in enumerate(frames[:-1], 1):
            cursor = {"Last-Event-ID": last_id(frame)}
            resumed = await ask(served.port, "GET", place, headers=cursor)
            again = await post(served, surface, Last_Event_ID=last_id(frame))
            for response in (resumed, again):
                opening = (
                    b"" if surface.wire != "native" else b"retry: 1000\nid: %b\n\n" % cursor["Last-Event-ID"].encode()
                )
                assert response.body == opening + b"".join(frames[number:]), number
        over = await ask(served.port, "GET", place, headers={"Last-Event-ID": last_id(frames[-1])})
    assert over.status == 204 and len(upstream.requests) == 1


async def test_repeated_key_replays_the_same_answer_streamed_and_plain(
    kept: Kept, upstream: Upstream, surface: Surface
) -> None:
    async with kept(config(upstream)) as served:
        streamed = [await post(served, surface) for _ in range(2)]
        plain = [await post(served, surface, surface.body) for _ in range(2)]
    assert streamed[0].body == streamed[1].body and streamed[0].complete
    assert [response.status for response in plain] == [200, 200]
    first, second = (response.json() for response in plain)
    assert "Hello from upstream." in str(first)
    assert {**first, "processing_time": 0} == {**second, "processing_time": 0}
    assert {response.headers["x-cauce-stream-id"] for response in (*streamed, *plain)} == {f"{surface.wire}:k"}
    assert {response.headers["x-cauce-model"] for response in (*streamed, *plain)} == {"up/m"}
    assert len(upstream.requests) == 1


async def test_repeated_key_replays_a_failure_too(kept: Kept, upstream: Upstream, surface: Surface) -> None:
    upstream.answers = [Reply(status=503, error={"message": "busy"}), Reply(text="too late")]
    async with kept(config(upstream), ONE_TRY) as served:
        answers = [await post(served, surface), await post(served, surface), await post(served, surface, surface.body)]
    assert [answer.status for answer in answers] == [503, 503, 503]
    assert all("busy" in answer.body.decode() for answer in answers)
    assert len(upstream.requests) == 1


async def test_key_of_another_request_is_a_conflict(kept: Kept, upstream: Upstream, surface: Surface) -> None:
    async with kept(config(upstream)) as served:
        await post(served, surface)
        other = await post(served, surface, {**surface.streamed, "temperature": 0.5})
    assert other.status == 409 and "another request" in other.body.decode()


async def test_same_key_on_two_wires_and_as_a_stream_id_is_three_answers(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        for surface in (SURFACES["chat"], SURFACES["anthropic"]):
            assert (await post(served, surface)).status == 200
        assert (await ask(served.port, "POST", "/chat/stream/k", _CHAT)).status == 200
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("key", ["", "a b", "a/b", "x" * 201])
async def test_key_that_is_no_key_is_400(upstream: Upstream, surface: Surface, key: str) -> None:
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", surface.path, surface.body, {"Idempotency-Key": key})
    assert response.status == 400 and upstream.requests == []


async def test_longest_key_can_be_resumed_and_cancelled(upstream: Upstream) -> None:
    surface = SURFACES["completions"]
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", surface.path, surface.streamed, {"Idempotency-Key": "x" * 200})
        resumed = await ask(served.port, "GET", response.headers["location"] + "&after=0")
        state = await ask(served.port, "DELETE", f"/chat/stream/{response.headers['x-cauce-stream-id']}")
    assert resumed.body == response.body and state.json()["state"] == "completed"


async def test_durable_call_without_a_key_has_an_id_and_a_place_to_resume(upstream: Upstream, surface: Surface) -> None:
    async with serving(config(upstream)) as served:
        durable = {"X-Cauce-Durable": "true"}
        first = await ask(served.port, "POST", surface.path, surface.streamed, durable)
        again = await ask(served.port, "POST", surface.path, surface.streamed, durable)
        resumed = await ask(served.port, "GET", first.headers["location"], headers={"Last-Event-ID": "0"})
    assert resumed.body == first.body
    assert first.headers["x-cauce-stream-id"] != again.headers["x-cauce-stream-id"]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Cauce-Durable", "maybe"), ("X-Cauce-On-Disconnect", "never"), ("X-Cauce-On-Disconnect", "grace:x")],
)
async def test_header_that_says_nothing_known_is_400(upstream: Upstream, header: str, value: str) -> None:
    surface = SURFACES["chat"]
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", surface.path, surface.body, {**KEY, "X-Cauce-On-Disconnect": "x"})
        assert response.status == 400
        response = await ask(served.port, "POST", surface.path, surface.body, {header: value})
    assert response.status == 400 and header in response.body.decode()


async def test_logged_stream_of_another_principal_is_not_found(upstream: Upstream, surface: Surface) -> None:
    keys = "".join(f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("one", "two"))
    async with serving(config(upstream) + keys) as served:
        mine = await post(served, surface, Authorization="Bearer one")
        place, other = mine.headers["location"], {"Authorization": "Bearer two"}
        assert (await ask(served.port, "GET", place, headers=other)).status == 404
        theirs = await post(served, surface, Authorization="Bearer two")
        await post(served, surface, Authorization="Bearer one", Idempotency_Key="mine")
        assert (await ask(served.port, "DELETE", f"/chat/stream/{surface.wire}:mine", headers=other)).status == 404
    assert theirs.status == 200 and len(upstream.requests) == 3


async def test_cancel_ends_a_logged_call_in_an_error(kept: Kept, upstream: Upstream, surface: Surface) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", surface.path, _encoded(surface.streamed), KEY)
            await client.head()
            await within(client.until(b'b "'))
            state = await within(ask(served.port, "DELETE", f"/chat/stream/{surface.wire}:k"))
            assert state.json()["state"] == "cancelled"
            rest = await within(client.until(b"cancelled"))
        await within(upstream.closed.wait())
        plain = await post(served, surface, surface.body)
    assert b"[DONE]" not in rest and b"message_stop" not in rest
    assert plain.status == 409


def _encoded(body: dict[str, Any]) -> bytes:
    return msgspec.json.encode(body)


async def test_two_wires_see_the_same_log(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="Hola río", tool_calls=(("look", '{"x": 1}'),))]
    async with kept(config(upstream)) as served:
        shown = {SURFACES["chat"].wire: (await post(served, SURFACES["chat"])).body}
        for wire in ("native", "anthropic", "openai-chat"):
            for _ in range(2):
                place = f"/chat/stream/openai-chat:k/resume?wire={wire}&after=0"
                read = await ask(served.port, "GET", place)
                assert read.status == 200
                assert shown.setdefault(wire, read.body) == read.body
    for body in shown.values():
        assert "río" in body.decode() and "look" in body.decode()
    assert len(upstream.requests) == 1


async def test_unknown_wire_is_400_and_names_those_there_are(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        await post(served, SURFACES["chat"])
        response = await ask(served.port, "GET", "/chat/stream/openai-chat:k/resume?wire=morse")
    assert response.status == 400 and "openai-chat" in response.json()["error"]


async def test_reader_that_reloads_all_the_time_sees_what_a_steady_one_sees(
    kept: Kept, upstream: Upstream, surface: Surface
) -> None:
    gate = asyncio.Semaphore(0)
    words = " ".join(f"w{number}" for number in range(12))
    upstream.answers = [Reply(text=words, gate=gate)]
    async with kept(config(upstream)) as served, connection(served.port) as steady:
        await steady.send("POST", surface.path, _encoded(surface.streamed), KEY)
        place = f"/chat/stream/{surface.wire}:k/resume?wire={surface.wire}"
        gate.release()
        await within(upstream.asked.wait())
        got, cursor = b"", "0"
        for number in range(12):
            async with connection(served.port) as reloading:
                await reloading.send("GET", place, headers={"Last-Event-ID": cursor})
                await reloading.head()
                seen = await within(reloading.until(f'"w{number}'.encode()))
                reloading.abort()
            frames = [block + b"\n\n" for block in seen.split(b"\n\n")[:-1] if b"data: " in block]
            got += b"".join(frames)
            cursor = last_id(frames[-1])
            gate.release()
        gate.release()
        for _ in range(5):
            gate.release()
        rest = await within(ask(served.port, "GET", place, headers={"Last-Event-ID": cursor}))
        whole = await within(steady.response())
    framed = b"".join(block for block in blocks(whole) if b"data: " in block)
    assert got + b"".join(block for block in blocks(rest) if b"data: " in block) == framed


async def test_broken_answer_is_incomplete_on_logged_calls_streamed_and_plain(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    environment = {**ONE_TRY, "CAUCE_RECOVERY__ATTEMPTS": "0"}
    async with serving(config(upstream), environment) as served:
        streamed = {name: await post(served, SURFACES[name]) for name in ("chat", "anthropic", "completions")}
        plain = {name: await post(served, SURFACES[name], SURFACES[name].body) for name in streamed}
        native = await post(served, SURFACES["native"], SURFACES["native"].body)
    for response in streamed.values():
        assert response.complete and '"cauce":{"incomplete":true}' in response.body.decode()
    assert [response.json()["cauce"] for response in plain.values()] == [{"incomplete": True}] * 3
    assert plain["chat"].json()["choices"][0]["finish_reason"] == "length"
    assert plain["chat"].json()["choices"][0]["message"]["content"] == "a b "
    assert plain["anthropic"].json()["stop_reason"] == "max_tokens"
    assert native.status == 502 and native.json()["partial"] == "a b "


class _Beating(httpx.AsyncByteStream):
    """A body of which each heartbeat lets one more delta through."""

    def __init__(self, body: httpx.AsyncByteStream, gate: asyncio.Semaphore) -> None:
        self._body = body
        self._gate = gate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._body:
            if b": hb" in part:
                self._gate.release()
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


class _Listening(httpx.AsyncHTTPTransport):
    def __init__(self, gate: asyncio.Semaphore) -> None:
        super().__init__()
        self._gate = gate

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_Beating(response.stream, self._gate)
        )


async def test_openai_python_reads_ids_and_heartbeats(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="Hola río", gate=gate, tool_calls=(("look", '{"x": 1}'),))]
    environment = {"CAUCE_STREAMS__HEARTBEAT": "0.02", "CAUCE_STREAMS__HOLD_HEADERS": "0.01"}
    async with serving(config(upstream), environment) as served, httpx.AsyncClient(transport=_Listening(gate)) as http:
        client = AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0, http_client=http)

        async def read() -> tuple[str, list[str | None]]:
            text, calls = "", []
            chunks = await client.chat.completions.create(
                model="up/m", messages=MESSAGES, stream=True, extra_headers=KEY
            )
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
                calls += [call.function.arguments for call in chunk.choices[0].delta.tool_calls or []]
            return text, calls

        assert await within(read(), 20) == ("Hola río", ['{"x": 1}'])
        # The log has all of it now.
        assert await within(read(), 20) == ("Hola río", ['{"x": 1}'])
    assert len(upstream.requests) == 1


async def test_openai_python_raises_for_a_logged_answer_that_was_cancelled(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with serving(config(upstream)) as served:
        async with AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="up/m", messages=MESSAGES, stream=True, extra_headers=KEY
            )
            with pytest.raises(APIError, match="cancelled"):
                async for chunk in stream:
                    if chunk.choices[0].delta.content == "b ":
                        await ask(served.port, "DELETE", "/chat/stream/openai-chat:k")


GEMINI = "/v1beta/models/up%2Fm"
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"])
async def test_gemini_call_with_a_key_is_answered_once_and_without_numbers(
    kept: Kept, upstream: Upstream, verb: str
) -> None:
    async with kept(config(upstream)) as served:
        first, again = [await ask(served.port, "POST", f"{GEMINI}:{verb}", _CONTENTS, KEY) for _ in range(2)]
        state = await ask(served.port, "GET", "/chat/stream/gemini:k")
    assert first.status == 200 and first.body == again.body and "upstream." in first.body.decode()
    assert b"id: " not in first.body and first.headers["x-cauce-stream-id"] == "gemini:k"
    assert state.json()["state"] == "completed" and len(upstream.requests) == 1


async def test_cancelled_gemini_stream_ends_in_an_error(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with serving(config(upstream)) as served, connection(served.port) as client:
        await client.send("POST", f"{GEMINI}:streamGenerateContent?alt=sse", _encoded(_CONTENTS), KEY)
        await client.head()
        await within(client.until(b"b "))
        await within(ask(served.port, "DELETE", "/chat/stream/gemini:k"))
        rest = await within(client.until(b"cancelled"))
    assert b'"error"' in rest and b"finishReason" not in rest


async def test_several_prompts_cannot_share_a_key(upstream: Upstream) -> None:
    body = {"model": "up/m", "prompt": ["one", "two"]}
    async with serving(config(upstream)) as served:
        refused = await ask(served.port, "POST", "/v1/completions", body, KEY)
        plain = await ask(served.port, "POST", "/v1/completions", body)
    assert refused.status == 400 and "one prompt" in refused.body.decode() and plain.status == 200


async def test_echo_is_shown_to_whoever_reads_the_stream(upstream: Upstream) -> None:
    surface = SURFACES["completions"]
    async with serving(config(upstream)) as served:
        first = await post(served, surface, {**surface.streamed, "echo": True})
        resumed = await ask(served.port, "GET", first.headers["location"] + "&after=0")
        native = await ask(served.port, "GET", "/chat/stream/openai-completions:k/resume?after=0")
    assert resumed.body == first.body
    assert "".join(frame["choices"][0]["text"] for frame in first.frames()).startswith("Say hello.Hello from")
    assert native.frames()[-1]["data"] == "Hello from upstream."


async def test_several_answers_are_numbered_and_resumed_like_one(upstream: Upstream) -> None:
    surface = SURFACES["chat"]
    chunk = '{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":%d,"delta":{"content":"%s"},"finish_reason":%s}]}'
    said = [chunk % (0, "a", "null"), chunk % (1, "b", "null"), chunk % (0, "", '"stop"'), chunk % (1, "", '"length"')]
    upstream.answers = [Reply(chunks=(*[one.encode() for one in said], b"[DONE]"))]
    async with serving(config(upstream)) as served:
        whole = await post(served, surface, {**surface.streamed, "n": 2})
        frames = blocks(whole)
        for number, frame in enumerate(frames[:-1], 1):
            rest = await ask(served.port, "GET", whole.headers["location"], headers={"Last-Event-ID": last_id(frame)})
            assert rest.body == b"".join(frames[number:])
    ends = {frame["choices"][0]["index"]: frame["choices"][0]["finish_reason"] for frame in whole.frames()}
    assert ends == {0: "stop", 1: "length"} and frames[-1].endswith(b"data: [DONE]\n\n")


async def test_pages_are_told_that_they_may_send_the_headers_of_logged_calls(upstream: Upstream) -> None:
    origin = {"Origin": "http://localhost:3000"}
    async with serving(config(upstream)) as served:
        asked = {**origin, "Access-Control-Request-Headers": "idempotency-key, x-cauce-on-disconnect"}
        preflight = await ask(served.port, "OPTIONS", "/v1/chat/completions", headers=asked)
        bare = await ask(served.port, "OPTIONS", "/v1/chat/completions", headers=origin)
        answer = await ask(served.port, "POST", "/v1/chat/completions", _CHAT, {**KEY, **origin})
    for response in (preflight, bare):
        allowed = response.headers["access-control-allow-headers"]
        assert "idempotency-key" in allowed and "x-cauce-on-disconnect" in allowed
    exposed = answer.headers["access-control-expose-headers"]
    assert "x-cauce-stream-id" in exposed and "location" in exposed


async def test_failure_after_the_headers_have_left_is_in_the_stream(upstream: Upstream, surface: Surface) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate, error={"message": "busy"}, error_after=0)]
    async with (
        serving(config(upstream), {**ONE_TRY, "CAUCE_STREAMS__HOLD_HEADERS": "0"}) as served,
        connection(served.port) as client,
    ):
        await client.send("POST", surface.path, _encoded(surface.streamed), KEY)
        status, _ = await within(client.head())
        gate.release()
        told = await within(client.until(b"busy"))
        plain = await post(served, surface, surface.body)
    assert status == 200 and b"error" in told and b"[DONE]" not in told
    assert plain.status == 502 and "busy" in plain.body.decode()


async def test_calls_with_one_key_at_the_same_time_ask_one_model_once(
    kept: Kept, upstream: Upstream, surface: Surface
) -> None:
    async with kept(config(upstream)) as served:
        streamed = [post(served, surface) for _ in range(5)]
        plain = [post(served, surface, surface.body) for _ in range(5)]
        answers = await asyncio.gather(*streamed, *plain)
    assert len({answer.body for answer in answers[:5]}) == 1 and len(upstream.requests) == 1
    assert {answer.status for answer in answers} == {200}
