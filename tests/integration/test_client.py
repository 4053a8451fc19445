"""The Python client, async and sync, against a Cauce in front of a fake upstream."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pydantic
import pytest

from cauce.client import CallFailed, Client, ParseError, Reconnect, SyncClient, Unreachable
from cauce.client.errors import refused
from cauce.domain.delta import Attempt, Finish, Status, Text
from cauce.domain.errors import CauceError, DeadlineExceeded
from cauce.domain.message import Message, TextPart
from cauce.testing.upstream import Reply, Upstream
from tests.http import within
from tests.serving import BREAKS, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

CAT = '{"name": "cat", "legs": 4}'


class Animal(pydantic.BaseModel):
    name: str
    legs: int = pydantic.Field(ge=0)


class Beast(msgspec.Struct):
    name: str
    legs: int


@dataclasses.dataclass
class Creature:
    name: str
    legs: int


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(upstream_table("up", upstream.base_url, default_model="m"), {**ONE_TRY, **BREAKS}) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with Client(served.url, api_key="any") as made:
        yield made


async def test_message(client: Client, upstream: Upstream) -> None:
    answer = await client.message("Hello?", model="up/m", temperature=0.5, max_tokens=9)
    assert (answer.text, answer.model, answer.finish_reason) == ("Hello from upstream.", "up/m", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cost_source) == (7, 5, "priced")
    assert answer.request_id is not None and answer.request_id.startswith("req_")
    assert [attempt.provider for attempt in answer.attempts] == ["up"]
    assert not answer.usage.estimated
    assert upstream.requests[0]["messages"] == [{"role": "user", "content": "Hello?"}]
    assert upstream.requests[0]["temperature"] == 0.5


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_usage_that_nobody_reported_is_told_as_an_estimate(
    client: Client, upstream: Upstream, streamed: bool
) -> None:
    upstream.script(Reply(usage=None))
    if streamed:
        answer = await client.stream("Hello?", model="up/m").answer()
    else:
        answer = await client.message("Hello?", model="up/m")
    assert answer.usage.estimated and answer.usage.output_tokens > 0


async def test_conversation_of_values_and_tool_calls(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", '{"x": 1}'),))]
    said = [Message("system", (TextPart("Be brief."),)), Message("user", (TextPart("Look."),))]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    answer = await client.message(said, tools=[tool])
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("look", '{"x": 1}')]
    assert answer.finish_reason == "tool_calls"


async def test_stream(client: Client) -> None:
    async with aclosing(client.stream("Hello?", model="up/m")) as stream:
        deltas = [delta async for delta in stream]
    assert "".join([delta.text for delta in deltas if isinstance(delta, Text)]) == "Hello from upstream."
    assert isinstance(deltas[0], Status) and isinstance(deltas[1], Attempt)
    finish = deltas[-1]
    assert isinstance(finish, Finish) and (finish.reason, finish.usage.total_tokens) == ("stop", 12)


async def test_leaving_a_stream_stops_the_model(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two three four", stall_after=2)]
    async with aclosing(client.stream("Hello?", model="up/m")) as stream:
        async for delta in stream:
            if isinstance(delta, Text):
                break
    await within(upstream.closed.wait())


async def test_stream_that_breaks_raises_after_what_came(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two three", cut_after=2)]
    seen = ""
    with pytest.raises(CallFailed) as caught:
        async for delta in client.stream("Hello?", model="up/m"):
            seen += delta.text if isinstance(delta, Text) else ""
    assert seen.startswith("one")
    assert (caught.value.code, caught.value.status) == ("provider_error", 502)
    assert caught.value.request_id is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_error_of_the_server_is_told_whole(client: Client, upstream: Upstream, stream: bool) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow"}, headers={"retry-after": "7"})]
    with pytest.raises(CallFailed) as caught:
        if stream:
            await anext(client.stream("Hello?", model="up/m"))
        await client.message("Hello?", model="up/m")
    error = caught.value
    assert (error.code, error.status) == ("rate_limited", 429)
    assert error.retry_after == pytest.approx(7, abs=1)
    assert error.request_id is not None and "slow" in error.message


async def test_mistake_names_its_field(client: Client) -> None:
    with pytest.raises(CallFailed) as caught:
        await client.message("Hello?", model="up/m", temperature=9)
    assert (caught.value.code, caught.value.field, caught.value.status) == ("invalid_request", "temperature", 400)


async def test_no_server_and_another_server_are_unreachable(upstream: Upstream) -> None:
    once = Reconnect(attempts=0)
    async with (
        Client("http://127.0.0.1:1", reconnect=once) as nobody,
        Client(upstream.base_url, reconnect=once) as another,
    ):
        for client in (nobody, another):
            with pytest.raises(Unreachable):
                await client.message("Hello?")
            with pytest.raises(Unreachable):
                await anext(client.stream("Hello?"))
    for body in (b"<html>", b'{"error": 5}', b"\xff", b"[" * 5_000):
        assert isinstance(refused(502, {}, body), Unreachable)


async def test_time_that_is_over_is_told(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True)]
    async with Client(served.url, timeout=0.1) as client:
        with pytest.raises(DeadlineExceeded):
            await client.message("Hello?", model="up/m")
        with pytest.raises(CallFailed) as caught:
            await client.message("Hello?", model="up/m", timeout=0.1)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("kind", [Animal, Beast, Creature])
async def test_parse(client: Client, upstream: Upstream, kind: type[Animal | Beast | Creature]) -> None:
    upstream.answers = [Reply(text=CAT)]
    parsed = await client.parse(kind, "An animal?", model="up/m")
    assert parsed.value == kind(name="cat", legs=4)
    assert parsed.answer.parsed == {"name": "cat", "legs": 4}
    sent = upstream.requests[0]["response_format"]
    assert sent["json_schema"]["name"] == kind.__name__


async def test_parse_of_what_is_no_object_is_wrapped_on_its_way(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text='{"value": [1, 2]}')]
    parsed = await client.parse(list[int], "Numbers?", model="up/m")
    assert parsed.value == [1, 2]


async def test_parse_lets_the_model_mend_its_answer(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text='{"name": "cat", "legs": -4}'), Reply(text=CAT)]
    parsed = await client.parse(Animal, "An animal?", model="up/m")
    assert parsed.value == Animal(name="cat", legs=4)
    assert parsed.answer.usage.total_tokens == 24
    assert [attempt.error_code for attempt in parsed.answer.attempts] == ["provider_error", None]


async def test_parse_of_an_answer_that_stays_wrong_fails_with_its_text(client: Client, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="A cat."), Reply(text="A cat!")]
    with pytest.raises(CallFailed) as caught:
        await client.parse(Animal, "An animal?", model="up/m")
    assert caught.value.code == "provider_error" and caught.value.facts == {"answer": "A cat!"}


async def test_parse_of_an_answer_that_was_cut_or_fails_the_types_own_check_has_the_text(
    client: Client, upstream: Upstream
) -> None:
    class Odd(pydantic.BaseModel):
        legs: int

        @pydantic.field_validator("legs")
        @classmethod
        def odd(cls, legs: int) -> int:
            if legs % 2 == 0:
                raise ValueError("an even number")
            return legs

    upstream.answers = [Reply(text='{"le', finish_reason="length"), Reply(text='{"legs": 4}')]
    for words in ("'length'", "an even number"):
        with pytest.raises(ParseError, match=words) as caught:
            await client.parse(Odd, "An animal?", model="up/m")
        assert caught.value.text.startswith('{"le') and caught.value.request_id is not None


def test_sync_client_does_the_same(anyio_backend: str) -> None:
    """The server has a thread and a loop of its own here: the client blocks this one."""
    ready: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = []
    up = threading.Event()

    async def serve() -> None:
        async with Upstream() as upstream:
            upstream.answers = [Reply(), Reply(text="one two"), Reply(text=CAT), Reply(text="one two", stall_after=1)]
            async with serving(upstream_table("up", upstream.base_url, default_model="m")) as served:
                over = asyncio.Event()
                ready.append((served.url, asyncio.get_running_loop(), over))
                up.set()
                await over.wait()
                await within(upstream.closed.wait())

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    assert up.wait(30)
    url, loop, over = ready[0]
    try:
        with SyncClient(url) as client:
            assert client.message("Hello?", model="up/m").text == "Hello from upstream."
            words = [delta.text for delta in client.stream("Hello?", model="up/m") if isinstance(delta, Text)]
            assert "".join(words) == "one two"
            assert client.parse(Beast, "An animal?", model="up/m").value == Beast("cat", 4)
            stream = client.stream("Hello?", model="up/m")
            assert next(delta.text for delta in stream if isinstance(delta, Text)) == "one "
            stream.close()
            with pytest.raises(CauceError):
                client.message("Hello?", model="nowhere")
        client.close()
    finally:
        loop.call_soon_threadsafe(over.set)
        server.join(30)
