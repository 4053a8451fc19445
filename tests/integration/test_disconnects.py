"""What becomes of a logged stream when its readers leave: by surface, by model, by request; as the provider sees it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from cauce.config import ConfigError
from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey
from cauce.engine.streams.options import options_of
from cauce.testing.upstream import Reply, Upstream
from tests.http import Connection, ask, connection, within
from tests.integration.test_logged_calls import SURFACES
from tests.integration.test_streams import config, ended
from tests.serving import MESSAGES, Served, configured, serving

pytestmark = pytest.mark.anyio

CHAT = SURFACES["chat"]
WORDS = "a b c d"
PRINCIPAL = Scope().principal
NAMES = ("own", "routed", "openai-chat:k", "openai-chat:l")
QUICK = {"CAUCE_STREAMS__GRACE": "0.05"}
"""A grace that a test can wait for: what it waits for is the end, not the time."""


def routed(upstream: Upstream, more: str) -> str:
    return config(upstream) + f'[models.route]\ncandidates = ["up/m"]\n{more}\n'


@asynccontextmanager
async def reading(
    served: Served, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> AsyncIterator[Connection]:
    """A reader who has been sent the first words, and leaves without a word."""
    async with connection(served.port) as client:
        await client.send("POST", path, msgspec.json.encode(body), headers)
        await client.head()
        await within(client.until(b"b "))
        yield client
        client.abort()


async def state_of(served: Served, stream_id: str) -> dict[str, Any]:
    return await within(ended(served, stream_id))


async def test_abandoned_stream_closes_its_upstream_after_grace(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=WORDS, stall_after=2)]
    async with serving(config(upstream), QUICK) as served:
        async with reading(served, CHAT.path, CHAT.streamed, {"Idempotency-Key": "k"}):
            assert not upstream.closed.is_set()
        await within(upstream.closed.wait())
        state = await state_of(served, "openai-chat:k")
    assert state["state"] == "cancelled"


async def test_abandoned_stream_closes_its_upstream_after_grace_before_the_first_token(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with serving(config(upstream), QUICK) as served:
        async with connection(served.port) as client:
            await client.send("POST", CHAT.path, msgspec.json.encode(CHAT.streamed), {"Idempotency-Key": "k"})
            await within(upstream.asked.wait())
            client.abort()
        await within(upstream.closed.wait())
        assert (await state_of(served, "openai-chat:k"))["state"] == "cancelled"


async def test_abandoned_plain_call_counts_as_one_reader_who_left(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=WORDS, stall_after=2)]
    async with serving(config(upstream), QUICK) as served:
        async with connection(served.port) as client:
            await client.send("POST", CHAT.path, msgspec.json.encode(CHAT.body), {"Idempotency-Key": "k"})
            await within(upstream.asked.wait())
            client.abort()
        await within(upstream.closed.wait())
        assert (await state_of(served, "openai-chat:k"))["state"] == "cancelled"


async def test_disconnect_at_the_first_frame_still_ends_the_stream(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    async with serving(config(upstream), {"CAUCE_STREAMS__HOLD_HEADERS": "0"}) as served:
        async with connection(served.port) as client:
            headers = {"Idempotency-Key": "k", "X-Cauce-On-Disconnect": "cancel"}
            await client.send("POST", CHAT.path, msgspec.json.encode(CHAT.streamed), headers)
            await client.head()
            await within(client.until(b'"role":"assistant"'))
            client.abort()
        assert (await state_of(served, "openai-chat:k"))["state"] == "cancelled"


async def test_cancel_policy_closes_the_upstream_when_its_only_reader_leaves(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=WORDS, stall_after=2)]
    async with serving(config(upstream)) as served:
        headers = {"Idempotency-Key": "k", "X-Cauce-On-Disconnect": "cancel"}
        async with reading(served, CHAT.path, CHAT.streamed, headers):
            pass
        await within(upstream.closed.wait())
        assert (await state_of(served, "openai-chat:k"))["state"] == "cancelled"


@pytest.mark.parametrize("path", ["/chat/stream/s", CHAT.path])
async def test_stream_that_is_to_continue_outlives_its_readers(upstream: Upstream, path: str) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    async with serving(config(upstream), QUICK) as served:
        # On `/chat/stream` that is what becomes of it by itself.
        headers = {} if path.endswith("/s") else {"Idempotency-Key": "k", "X-Cauce-On-Disconnect": "continue"}
        async with reading(served, path, CHAT.streamed, headers):
            pass
        for _ in range(5):
            gate.release()
        state = await state_of(served, "s" if path.endswith("/s") else "openai-chat:k")
    assert state["state"] == "completed" and not upstream.closed.is_set()


async def test_reader_who_comes_back_in_time_keeps_the_stream(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    async with serving(config(upstream)) as served:
        headers = {"Idempotency-Key": "k", "X-Cauce-On-Disconnect": "grace:60"}
        async with reading(served, CHAT.path, CHAT.streamed, headers):
            pass
        async with connection(served.port) as back:
            await back.send("GET", "/chat/stream/openai-chat:k/resume?wire=openai-chat&after=0")
            await back.head()
            for _ in range(5):
                gate.release()
            rest = await within(back.until(b"[DONE]"))
    assert b'"d"' in rest and not upstream.closed.is_set()


async def test_two_readers_and_one_leaves_is_not_abandoned(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    async with serving(config(upstream)) as served:
        headers = {"Idempotency-Key": "k", "X-Cauce-On-Disconnect": "cancel"}
        async with connection(served.port) as other:
            async with reading(served, CHAT.path, CHAT.streamed, headers):
                await other.send("GET", "/chat/stream/openai-chat:k/resume?wire=openai-chat&after=0")
                await other.head()
                await within(other.until(b"b "))
            for _ in range(5):
                gate.release()
            rest = await within(other.until(b"[DONE]"))
    assert b'"d"' in rest and not upstream.closed.is_set()


async def test_policy_of_the_model_holds_where_the_request_says_nothing(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=WORDS, stall_after=2)]
    toml = routed(upstream, 'on_disconnect = "cancel"') + '[aliases]\nnick = "route"\n'
    async with serving(toml) as served:
        for name, path in (("nick", "/chat/stream/s"), ("route", "/chat/stream/t")):
            upstream.closed.clear()
            async with reading(served, path, {**CHAT.body, "model": name}):
                pass
            await within(upstream.closed.wait())
            assert (await state_of(served, path[-1]))["state"] == "cancelled"


async def test_request_says_more_than_its_model(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    async with serving(routed(upstream, 'on_disconnect = "cancel"')) as served:
        body = {"model": "route", "messages": MESSAGES}
        async with reading(served, "/chat/stream/s", body, {"X-Cauce-On-Disconnect": "continue"}):
            pass
        for _ in range(5):
            gate.release()
        assert (await state_of(served, "s"))["state"] == "completed"


async def test_saying_what_becomes_of_a_call_puts_it_into_the_log(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        response = await ask(served.port, "POST", CHAT.path, CHAT.streamed, {"X-Cauce-On-Disconnect": "continue"})
        resumed = await ask(served.port, "GET", response.headers["location"] + "&after=0")
    assert resumed.body == response.body


async def test_buffered_answer_is_shown_at_its_end_and_heartbeats_until_then(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text=WORDS, gate=gate)]
    quick = {"CAUCE_STREAMS__HEARTBEAT": "0.02", "CAUCE_STREAMS__HOLD_HEADERS": "0"}
    async with serving(routed(upstream, "buffer = true"), quick) as served:
        async with connection(served.port) as client:
            await client.send("POST", CHAT.path, msgspec.json.encode({**CHAT.streamed, "model": "route"}))
            _, headers = await client.head()
            for _ in range(3):
                gate.release()
                beaten = await within(client.until(b": hb"))
                assert b"data:" not in beaten
            for _ in range(20):
                gate.release()
            shown = await within(client.until(b"[DONE]"))
        plain = await within(ask(served.port, "POST", CHAT.path, {**CHAT.body, "model": "route"}))
    assert b'"content":"a' in shown and headers["x-cauce-stream-id"].startswith("chatcmpl")
    assert plain.status == 200 and plain.headers["location"].startswith("/chat/stream/chatcmpl")


async def test_model_whose_answers_are_not_kept_in_a_way_of_its_own_has_no_log(upstream: Upstream) -> None:
    async with serving(routed(upstream, "buffer = true")) as served:
        response = await ask(served.port, "POST", CHAT.path, CHAT.body)
    assert response.status == 200 and "location" not in response.headers


@pytest.mark.parametrize("said", ["never", "grace:", "grace:-1", "Continue"])
def test_policy_that_is_none_is_refused_with_its_place(said: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.fast\.on_disconnect: must be continue, cancel, grace"):
        configured(f'[models.fast]\ncandidates = ["offline"]\non_disconnect = "{said}"\n')


async def test_what_is_decided_at_the_creation_is_that_of_the_surface_the_model_and_the_request(
    upstream: Upstream,
) -> None:
    toml = routed(upstream, 'on_disconnect = "grace:7"\nbuffer = true') + "[streams]\nretention_api = 700\ngrace = 5\n"
    accept = {"X-Cauce-Restart": "accept"}
    async with serving(toml) as served:
        await ask(served.port, "POST", "/chat/stream/own", CHAT.body, accept)
        await ask(served.port, "POST", "/chat/stream/routed", {**CHAT.body, "model": "route"})
        await ask(served.port, "POST", CHAT.path, CHAT.streamed, {"Idempotency-Key": "k", **accept})
        more = {"Idempotency-Key": "l", "X-Cauce-On-Disconnect": "grace:1.5"}
        await ask(served.port, "POST", CHAT.path, {**CHAT.streamed, "model": "route"}, more)
        heads = {name: await served.runtime.services.streams.head(StreamKey(PRINCIPAL, name)) for name in NAMES}
    decided = {name: options_of(head) for name, head in heads.items() if head is not None}
    told = {
        name: (one.wire, one.on_disconnect, one.grace, one.retention, one.replaces, one.buffer)
        for name, one in decided.items()
    }
    assert told == {
        "own": ("native", "continue", 5, None, True, False),
        "routed": ("native", "grace", 7, None, False, True),
        "openai-chat:k": ("openai-chat", "grace", 5, 700, False, False),
        "openai-chat:l": ("openai-chat", "grace", 1.5, 700, False, True),
    }
