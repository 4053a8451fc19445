"""Keys of calls: what they bring back, what they do not keep, and which there are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import msgspec
import pytest
from openai import AsyncOpenAI, InternalServerError

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.integration.test_logged_calls import GEMINI, KEY, SURFACES, blocks, last_id
from tests.integration.test_streams import config
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

UNQUEUED = {"CAUCE_QUEUE__LENGTH": "0"}
QUESTION = {
    "id": "c:1",
    "model": "up/m",
    "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{name}, plain": (one.path, one.body) for name, one in SURFACES.items()},
    **{f"{name}, streamed": (one.path, one.streamed) for name, one in SURFACES.items()},
    "responses, plain": ("/v1/responses", {"model": "up/m", "input": "hi"}),
    "responses, streamed": ("/v1/responses", {"model": "up/m", "input": "hi", "stream": True}),
    "gemini, plain": (f"{GEMINI}:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
    "gemini, streamed": (
        f"{GEMINI}:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    ),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return CALLS[request.param]


class Full(msgspec.Struct):
    """A server whose one place is taken."""

    served: Served
    gate: asyncio.Semaphore
    first: asyncio.Task[Response]

    async def make_room(self) -> None:
        for _ in range(9):
            self.gate.release()
        await within(self.first)


@contextlib.asynccontextmanager
async def full(upstream: Upstream, data: Path | None = None) -> AsyncIterator[Full]:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="first", gate=gate), Reply(text="second")]
    table = upstream_table("up", upstream.base_url, default_model="m", max_concurrent=1)
    async with serving(table, UNQUEUED, data) as served:
        other = {"model": "up/m", "messages": MESSAGES, "stream": True}
        first = asyncio.create_task(ask(served.port, "POST", "/v1/chat/completions", other))
        await within(upstream.asked.wait())
        yield Full(served, gate, first)


async def test_call_that_we_refused_ourselves_begins_anew_under_its_key(
    upstream: Upstream, call: tuple[str, dict[str, Any]]
) -> None:
    path, body = call
    async with full(upstream) as busy:
        refused = [await ask(busy.served.port, "POST", path, body, KEY) for _ in range(2)]
        await busy.make_room()
        answered, again = [await ask(busy.served.port, "POST", path, body, KEY) for _ in range(2)]
    for one in refused:
        assert one.status == 429 and "x-should-retry" not in one.headers and int(one.headers["retry-after"]) >= 1
    assert (answered.status, again.status) == (200, 200) and "second" in answered.body.decode()
    ids = [one.headers["x-cauce-stream-id"] for one in (answered, again)]
    assert ids[0] == ids[1] and len(upstream.requests) == 2


async def test_which_try_of_a_key_counts_is_known_after_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    path, body = CALLS["chat, plain"]
    async with full(upstream, tmp_path) as busy:
        await ask(busy.served.port, "POST", path, body, KEY)
        await busy.make_room()
        answered = await ask(busy.served.port, "POST", path, body, KEY)
        cancelled = await ask(busy.served.port, "DELETE", "/chat/stream/openai-chat:k")
    async with serving(config(upstream), data=tmp_path) as served:
        again = await ask(served.port, "POST", path, body, KEY)
    assert again.body == answered.body and answered.headers["x-cauce-stream-id"] == "openai-chat.2:k"
    assert cancelled.json()["id"] == "openai-chat.2:k" and len(upstream.requests) == 2


async def test_reader_that_resumes_a_refused_call_begins_nothing(upstream: Upstream) -> None:
    path, body = CALLS["chat, streamed"]
    async with full(upstream) as busy:
        await ask(busy.served.port, "POST", path, body, KEY)
        await busy.make_room()
        tail = (await ask(busy.served.port, "GET", "/chat/stream/openai-chat:k")).json()["tail"]
        read = await ask(busy.served.port, "POST", path, body, {**KEY, "Last-Event-ID": str(tail)})
    assert read.status == 204 and len(upstream.requests) == 1


async def test_chat_of_a_page_that_we_refused_begins_anew_under_its_key(upstream: Upstream) -> None:
    async with full(upstream) as busy:
        refused = await ask(busy.served.port, "POST", "/api/chat", QUESTION, KEY)
        await busy.make_room()
        answered, again = [await ask(busy.served.port, "POST", "/api/chat", QUESTION, KEY) for _ in range(2)]
        read = await ask(busy.served.port, "GET", answered.headers["location"] + "&after=0")
    assert '"error"' in refused.body.decode() and answered.body == again.body == read.body
    assert "second" in answered.body.decode() and len(upstream.requests) == 2


async def test_openai_python_gets_its_answer_after_a_refusal_of_ours_under_one_key(upstream: Upstream) -> None:
    seen: list[int] = []
    async with full(upstream) as busy:

        async def told(response: httpx.Response) -> None:
            seen.append(response.status_code)
            if response.status_code == 429:
                await busy.make_room()

        async with httpx.AsyncClient(event_hooks={"response": [told]}) as web:
            client = AsyncOpenAI(base_url=busy.served.v1, api_key="any", max_retries=1, http_client=web)
            answer = await client.chat.completions.create(model="up/m", messages=MESSAGES, extra_headers=KEY)
    assert seen == [429, 200] and answer.choices[0].message.content == "second"


async def test_failure_out_of_the_log_says_that_asking_again_is_no_use(
    upstream: Upstream, call: tuple[str, dict[str, Any]]
) -> None:
    path, body = call
    upstream.answers = [Reply(status=429, error={"message": "slow"}, retry_after=7), Reply(text="too late")]
    async with serving(config(upstream), ONE_TRY) as served:
        first, again = [await ask(served.port, "POST", path, body, KEY) for _ in range(2)]
    assert (first.status, again.status) == (429, 429) and len(upstream.requests) == 1
    assert first.headers["retry-after"] == "7" and "x-should-retry" not in first.headers
    assert again.headers["x-should-retry"] == "false" and b"retry" not in again.body.lower()
    assert not {"retry-after", "retry-after-ms"} & set(again.headers)


async def test_openai_python_does_not_ask_again_for_a_failure_out_of_the_log(upstream: Upstream) -> None:
    seen: list[int] = []
    upstream.answers = [Reply(status=503, error={"message": "busy"})]

    async def told(response: httpx.Response) -> None:
        seen.append(response.status_code)

    async with serving(config(upstream), ONE_TRY) as served:
        async with httpx.AsyncClient(event_hooks={"response": [told]}) as web:
            client = AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=5, http_client=web)
            with pytest.raises(InternalServerError):
                await client.chat.completions.create(model="up/m", messages=MESSAGES, extra_headers=KEY)
    assert seen == [503, 503] and len(upstream.requests) == 1


async def test_usage_is_shown_to_those_who_ask_for_it_whoever_asked_first(upstream: Upstream) -> None:
    path, body = CALLS["chat, streamed"]
    with_usage = {**body, "stream_options": {"include_usage": True}}
    async with serving(config(upstream)) as served:
        without, told = [await ask(served.port, "POST", path, one, KEY) for one in (body, with_usage)]
        frames = blocks(without)
        rest = await ask(served.port, "POST", path, with_usage, {**KEY, "Last-Event-ID": last_id(frames[-2])})
    assert b'"usage":{' not in without.body and b'"usage":{' in told.body
    assert blocks(told)[: len(frames) - 1] == frames[:-1]
    assert frames[-2] + rest.body == b"".join(blocks(told)[len(frames) - 2 :]) and b'"usage":{' in rest.body


@pytest.mark.parametrize("headers", [KEY, {"X-Cauce-Durable": "true"}], ids=["key", "durable"])
async def test_logged_call_tells_how_long_it_took_until_its_stream_was_there(
    upstream: Upstream, call: tuple[str, dict[str, Any]], headers: dict[str, str]
) -> None:
    path, body = call
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", path, body, headers)
    assert float(response.headers["x-cauce-overhead-ms"]) > 0


async def test_two_kinds_of_conflict_are_told_apart(upstream: Upstream, call: tuple[str, dict[str, Any]]) -> None:
    path, body = call
    other = (
        {**body, "temperature": 0.5} if "contents" not in body else {**body, "generationConfig": {"temperature": 0.5}}
    )
    async with serving(config(upstream)) as served:
        first = await ask(served.port, "POST", path, body, KEY)
        reused = await ask(served.port, "POST", path, other, KEY)
        place = f"/chat/stream/{first.headers['x-cauce-stream-id']}/resume"
        lost = await ask(served.port, "GET", f"{place}?after=9999")
    assert reused.status == 409 and '"reason":"stream_id_reused"' in reused.body.decode()
    assert reused.headers["x-should-retry"] == "false"
    assert lost.status == 409 and lost.json()["reason"] == "records_lost"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/api/chat"])
async def test_key_in_any_script_is_the_name_of_its_stream(upstream: Upstream, path: str) -> None:
    body: dict[str, Any] = {
        "/v1/chat/completions": CALLS["chat, streamed"],
        "/v1/responses": CALLS["responses, streamed"],
    }.get(path, (path, QUESTION))[1]
    async with serving(config(upstream)) as served:
        first, again = [await send_raw(served, path, body, "clé-río".encode()) for _ in range(2)]
        place = first.headers["location"]
        read = await ask(served.port, "GET", place + ("&" if "?" in place else "?") + "after=0")
        refused = await send_raw(served, path, body, "clé".encode("latin-1"))
    assert first.status == 200 and first.body == again.body == read.body and len(upstream.requests) == 1
    if path == "/v1/chat/completions":
        assert first.headers["x-cauce-stream-id"] == quote("openai-chat:clé-río", safe=":-")
    assert refused.status == 400 and "UTF-8" in refused.body.decode()


async def send_raw(served: Served, path: str, body: Any, key: bytes) -> Response:
    """A POST with a key of these bytes, as they are."""
    raw = msgspec.json.encode(body)
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (
        path.encode(),
        len(raw),
    )
    async with connection(served.port) as client:
        client.writer.write(head + b"Idempotency-Key: " + key + b"\r\n\r\n" + raw)
        return await within(client.response())


@pytest.mark.parametrize("name", ["openai-chat:mix", "openai-chat.2:mix", "native:mix", "gemini:mix"])
async def test_stream_of_a_key_is_not_begun_and_not_repeated_by_its_id(upstream: Upstream, name: str) -> None:
    async with serving(config(upstream)) as served:
        refused = await ask(served.port, "POST", f"/chat/stream/{name}", SURFACES["native"].body)
        assert refused.status == 400 and "Idempotency-Key" in refused.json()["error"] and upstream.requests == []
        await ask(served.port, "POST", "/v1/chat/completions", SURFACES["chat"].streamed, {"Idempotency-Key": "mix"})
        refused = await ask(served.port, "POST", "/chat/stream/openai-chat:mix", SURFACES["chat"].body)
        read = await ask(served.port, "POST", "/chat/stream/openai-chat:mix")
        state = await ask(served.port, "DELETE", "/chat/stream/openai-chat:mix")
    assert refused.status == 400 and read.status == 200 and state.json()["state"] == "completed"


async def test_chat_of_a_page_and_a_key_of_a_call_never_meet(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="one", gate=gate)]
    path, body = CALLS["chat, streamed"]
    async with serving(config(upstream)) as served:
        asking = asyncio.create_task(ask(served.port, "POST", path, body, {"Idempotency-Key": "x~y"}))
        await within(upstream.asked.wait())
        shown = await ask(served.port, "GET", "/api/chat/openai-chat:x/stream")
        for _ in range(9):
            gate.release()
        await within(asking)
    assert shown.status == 204
