"""Responses that outlive their connection: the official `openai` SDK, unchanged, against Cauce with a log in memory or on disk."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from cauce.domain.request import Scope
from cauce.server.gate import hash_key
from cauce.server.logged_responses import Settling
from cauce.stores.sqlite.responses import SqliteResponses
from cauce.testing.upstream import Reply, Upstream
from tests.cutting import CuttingProxy
from tests.http import ask, connection, within
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis
from tests.serving import BREAKS, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

WEB = {"authorization": "Bearer web"}
TEXT = "río arriba, río abajo"
OWNER = Scope(key="web")
ASKED: dict[str, Any] = {"model": "chat/m", "input": "hi"}


def tables(upstream: Upstream) -> str:
    keys = "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("web", "other")])
    chat = upstream_table("chat", upstream.base_url)
    return chat + upstream_table("responses", upstream.base_url, wire="responses") + keys


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(tables(upstream), {**ONE_TRY, **BREAKS}) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as sdk:
        yield sdk


async def ended(client: AsyncOpenAI, response_id: str) -> Response:
    """The response once it has ended, as people poll for it."""

    async def poll() -> Response:
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response

    return await within(poll())


async def kept(served: Served, response_id: str) -> None:
    """Return once the response is among those that are kept beyond the log."""
    store = served.runtime.services.responses

    async def poll() -> None:
        while await store.get(OWNER, response_id) is None:
            await asyncio.sleep(0)

    await within(poll())


async def events_of(served: Served, response_id: str, query: str = "") -> bytes:
    answer = await within(ask(served.port, "GET", f"/v1/responses/{response_id}?stream=true{query}", None, WEB))
    assert answer.status == 200, answer.body
    return answer.body


async def test_background_response_answers_at_once_and_is_polled_to_its_end(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b", gate=gate)]
    first = await within(client.responses.create(model="chat/m", input="hi", background=True))
    assert first.status in ("queued", "in_progress") and first.background is True and first.output == []
    await within(upstream.asked.wait())
    polled = await client.responses.retrieve(first.id)
    assert polled.status in ("queued", "in_progress") and polled.id == first.id
    for _ in range(20):
        gate.release()
    done = await ended(client, first.id)
    assert (done.status, done.output_text, done.created_at) == ("completed", "a b", first.created_at)
    assert done.usage is not None and done.usage.output_tokens == 5


@pytest.mark.parametrize("model", ["chat/m", "responses/m"])
async def test_starting_after_is_honoured_by_the_server_for_every_event(
    served: Served, client: AsyncOpenAI, upstream: Upstream, model: str
) -> None:
    upstream.answers = [Reply(reasoning="hm hm", text=TEXT, tool_calls=(("look", '{"x": 1}'),))]
    asked = await client.responses.create(model=model, input="hi", background=True, stream=True)
    events = [event async for event in asked]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    final = events[-1]
    assert final.type == "response.completed" and final.response.output_text == TEXT
    for number in range(len(events)):
        again = await client.responses.retrieve(final.response.id, stream=True, starting_after=number)
        assert [event.to_dict() async for event in again] == [event.to_dict() for event in events[number + 1 :]]
    async with client.responses.stream(response_id=final.response.id, starting_after=3) as helped:
        assert [event.sequence_number async for event in helped] == list(range(4, len(events)))
    assert (await ended(client, final.response.id)).to_dict() == final.response.to_dict()


async def test_reader_that_is_cut_goes_on_live(client: AsyncOpenAI, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    events: list[Any] = []
    first = await client.responses.create(model="chat/m", input="hi", background=True, stream=True)
    async for event in first:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    await first.close()
    started = events[0]
    assert started.type == "response.created"
    while events[-1].type != "response.completed":
        # The end of a stream comes in several pieces.
        for _ in range(1 if len(events) < 7 else 9):
            gate.release()
        rest = await client.responses.retrieve(
            started.response.id, stream=True, starting_after=events[-1].sequence_number
        )
        events.append(await within(anext(aiter(rest))))
        await rest.close()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join([event.delta for event in events if event.type == "response.output_text.delta"]) == "a b c d"
    assert len(upstream.requests) == 1


async def test_all_readers_see_the_same_bytes_also_when_the_log_is_gone(served: Served, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(reasoning="hm", text="a b c", gate=gate)]
    body = {"model": "chat/m", "input": "hi", "background": True, "stream": True}
    async with connection(served.port) as live:
        await live.send("POST", "/v1/responses", msgspec.json.encode(body), WEB)
        status, headers = await live.head()
        assert status == 200
        begun = await within(live.until(b"response.in_progress"))
        response_id = headers["x-cauce-stream-id"]
        second = asyncio.create_task(events_of(served, response_id))
        for _ in range(20):
            gate.release()
        first = begun + await within(live.until(b"response.completed"))
    assert await second == first
    await kept(served, response_id)
    log = served.runtime.services.streams._log
    numbered = first.split(b"\n\n")[:-1]
    for gone in (False, True):
        if gone:
            log._streams.clear()  # pyright: ignore[reportAttributeAccessIssue]
        assert await events_of(served, response_id) == first
        half = numbered[: len(numbered) // 2]
        cursor = half[-1].split(b"\n")[0].removeprefix(b"id: ").decode()
        rest = b"".join([block + b"\n\n" for block in numbered[len(half) :]])
        assert await events_of(served, response_id, f"&after={cursor}") == rest
        assert await events_of(served, response_id, f"&starting_after={len(half) - 1}") == rest


async def test_background_response_is_cancelled_and_cancelling_again_changes_nothing(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="a b c", stall_after=2)]
    started = await client.responses.create(model="chat/m", input="hi", background=True, stream=True)
    events: list[Any] = []
    async for event in started:
        events.append(event)
        if event.type == "response.output_text.delta" and event.delta == "b ":
            first = await client.responses.cancel(events[0].response.id)
    assert events[-1].type == "response.incomplete" and events[-1].response.status == "cancelled"
    await within(upstream.closed.wait())
    again = await client.responses.cancel(first.id)
    for response in (first, again, await client.responses.retrieve(first.id)):
        assert response.status == "cancelled" and response.output_text == "a b "
        assert response.to_dict() == events[-1].response.to_dict()
    assert [getattr(item, "status", None) for item in first.output] == ["incomplete"]


async def test_cancel_of_a_finished_background_response_gives_it_back(client: AsyncOpenAI, upstream: Upstream) -> None:
    started = await client.responses.create(model="chat/m", input="hi", background=True)
    done = await ended(client, started.id)
    assert (await client.responses.cancel(started.id)).to_dict() == done.to_dict()


async def test_only_what_goes_on_without_its_connection_is_cancelled(client: AsyncOpenAI, upstream: Upstream) -> None:
    response = await client.responses.create(model="chat/m", input="hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_unknown")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="chat/m", input="hi", conversation="conv_1")
    assert caught.value.param == "conversation"


async def test_background_needs_to_be_stored(client: AsyncOpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError, match="store") as caught:
        await client.responses.create(model="chat/m", input="hi", background=True, store=False)
    assert caught.value.param == "background" and not upstream.requests


async def test_background_response_that_fails_says_so_to_whoever_polls(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "oops"})]
    started = await client.responses.create(model="chat/m", input="hi", background=True)
    done = await ended(client, started.id)
    assert done.status == "failed" and done.error is not None and done.error.code == "server_error"
    with pytest.raises(openai.APIError, match="oops"):
        async for event in await client.responses.retrieve(started.id, stream=True):
            assert event.type != "response.completed"


async def test_model_that_there_is_not_is_refused_at_once(client: AsyncOpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="never/heard", input="hi", background=True)


async def test_nobody_else_gets_to_see_what_runs_in_the_background(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(stall_after=1)]
    started = await client.responses.create(model="chat/m", input="secret", background=True)
    other = client.with_options(api_key="other")
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: other.responses.retrieve(started.id),
        lambda: other.responses.retrieve(started.id, stream=True),
        lambda: other.responses.cancel(started.id),
        lambda: other.responses.delete(started.id),
        lambda: other.responses.input_items.list(started.id),
        lambda: other.responses.create(model="chat/m", input="x", previous_response_id=started.id),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            await attempt()
    assert (await client.responses.retrieve(started.id)).status in ("queued", "in_progress")


async def test_conversation_goes_on_from_a_background_response_once_it_has_ended(
    served: Served, client: AsyncOpenAI, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="One.", gate=gate), Reply(text="Two."), Reply(text="Three.")]
    first = await client.responses.create(model="chat/m", input="first", background=True)
    with pytest.raises(openai.BadRequestError, match="has not ended") as caught:
        await client.responses.create(model="chat/m", input="x", previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"
    for _ in range(9):
        gate.release()
    await ended(client, first.id)
    second = await client.responses.create(
        model="chat/m", input="second", previous_response_id=first.id, background=True
    )
    await ended(client, second.id)
    await kept(served, second.id)
    await client.responses.create(model="chat/m", input="third", previous_response_id=second.id)
    said = [message["content"] for message in upstream.requests[-1]["messages"]]
    assert said == ["first", "One.", "second", "Two.", "third"]
    listed = [item async for item in client.responses.input_items.list(second.id, order="asc")]
    assert [item.to_dict().get("role") for item in listed] == ["user", "assistant", "user"]


async def test_call_that_broke_off_is_no_part_of_the_conversation(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="So:", tool_calls=(("look", '{"x": 1}'),), stall_after=3), Reply(text="Well.")]
    events: list[Any] = []
    async for event in await client.responses.create(model="chat/m", input="hi", background=True, stream=True):
        events.append(event)
        if event.type == "response.function_call_arguments.delta":
            await client.responses.cancel(events[0].response.id)
    cut = events[-1].response
    assert cut.status == "cancelled" and cut.output[-1].status == "incomplete"
    await client.responses.create(model="chat/m", input="And?", previous_response_id=cut.id)
    said = upstream.requests[-1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1]["content"].strip() == "So:" and "tool_calls" not in said[1]


@pytest.mark.parametrize("when", ["running", "ended", "kept"])
async def test_deleted_background_response_does_not_come_back(
    served: Served, client: AsyncOpenAI, upstream: Upstream, when: str
) -> None:
    upstream.answers = [Reply(text="a b", stall_after=1) if when == "running" else Reply(text="a b")]
    started = await client.responses.create(model="chat/m", input="hi", background=True)
    if when == "running":
        await within(upstream.asked.wait())
    else:
        await ended(client, started.id)
        if when == "kept":
            await kept(served, started.id)
    await client.responses.delete(started.id)
    if when == "running":
        await within(upstream.closed.wait())
    for gone in (client.responses.retrieve(started.id), client.responses.delete(started.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert await served.runtime.services.responses.promised(9) == []


@pytest.mark.parametrize("when", ["running", "ended", "kept"])
async def test_deleted_response_is_not_found_in_its_log_either(
    served: Served, client: AsyncOpenAI, upstream: Upstream, when: str
) -> None:
    upstream.answers = [Reply(text="a b", stall_after=1) if when == "running" else Reply(text="a b")]
    asked: dict[str, Any] = {
        "model": "chat/m",
        "input": "hi",
        "background": True,
        "extra_headers": {"Idempotency-Key": "k"},
    }
    started = await client.responses.create(**asked)
    if when == "running":
        await within(upstream.asked.wait())
    else:
        await ended(client, started.id)
        if when == "kept":
            await kept(served, started.id)
    await client.responses.delete(started.id)
    for method, path in (
        ("GET", ""),
        ("GET", "/resume?after=0"),
        ("GET", "/resume?wire=openai-responses"),
        ("DELETE", ""),
    ):
        gone = await ask(served.port, method, f"/chat/stream/{started.id}{path}", headers={"x-api-key": "web"})
        assert gone.status == 410, path
    with pytest.raises(openai.APIStatusError) as again:
        await client.responses.create(**asked)
    assert again.value.status_code == 410 and len(upstream.requests) == 1


async def test_call_with_a_key_is_answered_once_plain_and_streamed(
    served: Served, client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="one"), Reply(text="two")]
    key = {"Idempotency-Key": "order-7"}
    asked: dict[str, Any] = {"model": "chat/m", "input": "hi"}
    first = await client.responses.create(**asked, extra_headers=key)
    again = await client.responses.create(**asked, extra_headers=key)
    events = [event async for event in await client.responses.create(**asked, stream=True, extra_headers=key)]
    assert first.output_text == "one" and first.to_dict() == again.to_dict() == events[-1].response.to_dict()
    assert len(upstream.requests) == 1
    assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
    with pytest.raises(openai.ConflictError):
        await client.responses.create(model="chat/m", input="another", extra_headers=key)
    other = await client.with_options(api_key="other").responses.create(**asked, extra_headers=key)
    assert other.output_text == "two"


async def test_failure_of_a_call_with_a_key_is_told_again(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow down"}), Reply(text="fine")]
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError, match="slow down"):
            await client.responses.create(
                model="chat/m", input="hi", stream=stream, extra_headers={"Idempotency-Key": "k"}
            )
    assert len(upstream.requests) == 1


async def test_durable_stream_goes_on_when_its_client_leaves_and_is_found_again(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b c", gate=gate)]
    stream = await client.responses.create(
        model="chat/m", input="hi", stream=True, extra_headers={"X-Cauce-Durable": "true"}
    )
    first = await anext(aiter(stream))
    assert first.type == "response.created" and first.response.status == "in_progress"
    await stream.close()
    for _ in range(9):
        gate.release()
    assert (await ended(client, first.response.id)).output_text == "a b c"


async def test_answer_that_breaks_after_text_is_incomplete_and_says_why(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    events = [
        event async for event in await client.responses.create(model="chat/m", input="hi", background=True, stream=True)
    ]
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.status == "incomplete"
    assert last.response.incomplete_details is not None and last.response.incomplete_details.reason == "interrupted"
    assert last.response.error is not None and last.response.output_text.startswith("a b")
    assert (await ended(client, last.response.id)).to_dict() == last.response.to_dict()


async def test_response_that_is_not_to_be_stored_is_not_found_though_its_log_is_there(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    asked: dict[str, Any] = {"model": "chat/m", "input": "hi", "store": False}
    key = {"Idempotency-Key": "k"}
    first = await client.responses.create(**asked, extra_headers=key)
    for absent in (client.responses.retrieve(first.id), client.responses.cancel(first.id)):
        with pytest.raises(openai.NotFoundError):
            await absent
    assert (await client.responses.create(**asked, extra_headers=key)).to_dict() == first.to_dict()


@pytest.mark.parametrize(("query", "status"), [("starting_after=99", 409), ("after=99", 409), ("after=x", 400)])
async def test_cursor_that_the_log_cannot_know_is_refused(
    served: Served, client: AsyncOpenAI, upstream: Upstream, query: str, status: int
) -> None:
    upstream.answers = [Reply(text="a b", stall_after=1)]
    started = await client.responses.create(model="chat/m", input="hi", background=True)
    path = f"/v1/responses/{started.id}?stream=true&{query}"
    refused = await within(ask(served.port, "GET", path, None, WEB))
    assert refused.status == status and refused.json()["error"]["message"]


async def test_kept_responses_survive_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(text="One."), Reply(text="Two."), Reply(text="Three.")]
    async with (
        serving(tables(upstream), data=tmp_path) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        plain = await client.responses.create(model="chat/m", input="first")
        streamed = await client.responses.create(
            model="chat/m", input="second", previous_response_id=plain.id, stream=True
        )
        events = [event async for event in streamed]
    async with (
        serving(tables(upstream), data=tmp_path) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        last: Any = events[-1]
        assert (await client.responses.retrieve(plain.id)).to_dict() == plain.to_dict()
        again = await client.responses.retrieve(last.response.id, stream=True)
        assert [event.to_dict() async for event in again] == [event.to_dict() for event in events]
        listed = [item async for item in client.responses.input_items.list(last.response.id, order="asc")]
        assert [item.type for item in listed] == ["message", "message", "message"]
        third = await client.responses.create(model="chat/m", input="third", previous_response_id=last.response.id)
        assert third.output_text == "Three."
    said = [message["content"] for message in upstream.requests[-1]["messages"]]
    assert said == ["first", "One.", "second", "Two.", "third"]


async def test_answer_whose_process_died_before_it_was_kept_is_kept_at_the_next_start(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="One.")]
    async with (
        serving(tables(upstream), data=tmp_path) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        started = await client.responses.create(model="chat/m", input="first", background=True)
        done = await ended(client, started.id)
        await kept(served, started.id)
        before = await events_of(served, started.id)
    # What the file is like when the end is in the log and nothing else has been done.
    file = sqlite3.connect(tmp_path / "responses.sqlite")
    file.execute("UPDATE responses SET state = 'promised', body = NULL, context = NULL, tape = NULL")
    file.execute(
        "INSERT INTO responses (principal, id, created, state) SELECT principal, 'resp_gone', created, state FROM responses"
    )
    file.commit()
    file.close()
    async with (
        serving(tables(upstream), data=tmp_path) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        await kept(served, started.id)
        assert (await client.responses.retrieve(started.id)).to_dict() == done.to_dict()
        assert await events_of(served, started.id) == before
        assert await served.runtime.services.responses.promised(9) == []


async def test_stream_of_any_wire_is_read_as_a_response_and_a_response_as_native_frames(
    served: Served, client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text=TEXT)]
    started = await client.responses.create(model="chat/m", input="hi", background=True)
    done = await ended(client, started.id)
    path = f"/chat/stream/{started.id}/resume?after=0"
    same = await ask(served.port, "GET", f"{path}&wire=openai-responses", None, WEB)
    assert same.body == await events_of(served, started.id)
    native = await ask(served.port, "GET", path, None, WEB)
    assert native.frames()[-1]["type"] == "complete" and native.frames()[-1]["data"] == done.output_text
    body = {"model": "chat/m", "messages": [{"role": "user", "content": "hi"}]}
    await ask(served.port, "POST", "/chat/stream/s", body, WEB)
    other = await ask(served.port, "GET", "/chat/stream/s/resume?after=0&wire=openai-responses", None, WEB)
    assert other.frames()[-1]["type"] == "response.completed"
    assert other.frames()[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("s")


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def shared_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The configuration of a log that servers share."""
    match request.param:
        case "redis":
            with running_redis() as server:
                yield f'[redis]\nurl = "{server.url}"\n[streams]\nstore = "redis"\n'
        case "postgres":
            with running_postgres() as url:
                yield f'[postgres]\nurl = "{url}"\n[streams]\nstore = "postgres"\n'
        case _:
            yield f'[streams]\nfolder = "{tmp_path / "streams"}"\n'


async def test_another_node_shows_cancels_and_goes_on_from_a_response_whose_log_it_shares(
    upstream: Upstream, tmp_path: Path, shared_log: str
) -> None:
    upstream.answers = [Reply(text="a b c", stall_after=2), Reply(text="One."), Reply(text="Two.")]
    shared = tables(upstream) + shared_log
    async with (
        serving(shared, data=tmp_path / "one") as one,
        serving(shared, data=tmp_path / "two") as two,
        AsyncOpenAI(base_url=one.v1, api_key="web", max_retries=0) as here,
        AsyncOpenAI(base_url=two.v1, api_key="web", max_retries=0) as there,
    ):
        started = await here.responses.create(model="chat/m", input="hi", background=True)
        events: list[Any] = []
        async for event in await there.responses.retrieve(started.id, stream=True):
            events.append(event)
            if event.type == "response.output_text.delta" and event.delta == "b ":
                assert (await there.responses.retrieve(started.id)).status == "in_progress"
                cancelled = await there.responses.cancel(started.id)
        await within(upstream.closed.wait())
        assert cancelled.status == "cancelled" and cancelled.output_text == "a b "
        assert events[-1].response.to_dict() == cancelled.to_dict()
        assert (await here.responses.cancel(started.id)).to_dict() == cancelled.to_dict()
        assert await events_of(one, started.id) == await events_of(two, started.id)
        first = await here.responses.create(model="chat/m", input="first", background=True)
        assert (await ended(there, first.id)).output_text == "One."
        second = await there.responses.create(model="chat/m", input="second", previous_response_id=first.id)
        assert second.output_text == "Two."
    assert [message["content"] for message in upstream.requests[-1]["messages"]] == ["first", "One.", "second"]


ROUTE = '[models.route]\ncandidates = ["chat/one", "chat/two"]\nmidstream = "{}"\n'


async def streamed_in_background(upstream: Upstream, midstream: str, **asked: Any) -> tuple[Response, list[Any]]:
    """The response at its end, and the events that were shown."""
    route = ROUTE.format(midstream)
    async with (
        serving(tables(upstream) + route, ONE_TRY) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        stream = await client.responses.create(model="route", input="hi", background=True, stream=True, **asked)
        events: list[Any] = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        # The SDK's helper checks what was announced against what it was given in the end.
        async with client.responses.stream(response_id=events[0].response.id) as helped:
            final = await helped.get_final_response()
        assert final.output_text == events[-1].response.output_text
        return await ended(client, events[0].response.id), events


async def test_answer_that_begins_anew_replaces_what_was_shown(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="old words here", cut_after=2), Reply(text="new words")]
    response, events = await streamed_in_background(upstream, "restart")
    assert (response.status, response.output_text) == ("completed", "new words")
    done = [event.item.to_dict() for event in events if event.type == "response.output_item.done"]
    assert [item["status"] for item in done] == ["incomplete", "completed"]
    assert done[0]["content"][0]["text"] == "old words " and done[1]["supersedes"] == [done[0]["id"]]
    assert [item.id for item in response.output] == [done[1]["id"]]


async def test_call_whose_attempt_broke_is_given_up_and_made_again_under_another_id(upstream: Upstream) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    call = (("look", '{"x": 1}'),)
    # The call opens and half of its arguments come.
    upstream.answers = [Reply(text="", tool_calls=call, cut_after=2), Reply(text="", tool_calls=call)]
    response, events = await streamed_in_background(upstream, "continue", tools=[tool])
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [(item.type, item.status) for item in done] == [
        ("function_call", "incomplete"),
        ("function_call", "completed"),
    ]
    assert done[0].call_id != done[1].call_id
    assert [item.to_dict() for item in response.output] == [done[1].to_dict()]


async def test_connection_cut_at_any_byte_loses_and_repeats_nothing(
    served: Served, client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.answers = [Reply(reasoning="hm", text=TEXT)]
    events = [event async for event in await client.responses.create(**ASKED, background=True, stream=True)]
    response_id = events[0].response.id
    size = len(await events_of(served, response_id))
    async with (
        CuttingProxy(served.port) as proxy,
        AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="web", max_retries=0) as cut,
    ):
        for after in range(400, size, 397):
            got: list[Any] = []
            proxy.cut_after(after, "reset")
            while not got or got[-1].type != "response.completed":
                with contextlib.suppress(openai.APIError):
                    seen = {"starting_after": got[-1].sequence_number} if got else {}
                    rest = await cut.responses.retrieve(response_id, stream=True, **seen)
                    async for event in rest:
                        got += [event]
            assert proxy.cut.is_set()
            assert [event.to_dict() for event in got] == [event.to_dict() for event in events]


async def test_answer_that_could_not_be_written_is_kept_once_it_can(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(tables(upstream), data=tmp_path) as served,
        AsyncOpenAI(base_url=served.v1, api_key="web", max_retries=0) as client,
    ):
        services = served.runtime.services
        store = services.responses
        assert isinstance(store, SqliteResponses)
        settling = Settling(services.streams, store, services.clock)
        settling.start()
        store._file.execute("PRAGMA query_only = ON")
        started = await client.responses.create(model="chat/m", input="hi", background=True)
        done = await ended(client, started.id)

        async def refused() -> None:
            while caplog.text.count("is not kept for now") < 2:
                await asyncio.sleep(0)

        await within(refused())
        assert (await client.responses.retrieve(started.id)).to_dict() == done.to_dict()
        store._file.execute("PRAGMA query_only = OFF")
        # Not even the promise could be written.
        assert await store.promised(9) == []
        await settling.sweep()
        kept_now = await store.get(OWNER, started.id)
        assert kept_now is not None and msgspec.json.decode(kept_now.body)["status"] == "completed"
        await settling.stop()


async def test_response_that_no_log_has_is_deleted_while_the_log_takes_nothing(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with serving(tables(upstream), ONE_TRY, tmp_path) as served:
        made = await ask(served.port, "POST", "/v1/responses", ASKED, WEB)
        place = f"/v1/responses/{made.json()['id']}"
        [file] = tmp_path.rglob("streams.db")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            deleted = await ask(served.port, "DELETE", place, headers=WEB)
            gone = await ask(served.port, "GET", place, headers=WEB)
    assert (deleted.status, gone.status) == (200, 404)


async def test_deletion_that_the_log_did_not_take_is_asked_for_again(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(tables(upstream), ONE_TRY, tmp_path) as served:
        made = await ask(served.port, "POST", "/v1/responses", ASKED, {**WEB, "X-Cauce-Durable": "true"})
        place = f"/v1/responses/{made.json()['id']}"
        [file] = tmp_path.rglob("streams.db")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = await ask(served.port, "DELETE", place, headers=WEB)
        deleted, gone = [await ask(served.port, method, place, headers=WEB) for method in ("DELETE", "GET")]
        log = await ask(served.port, "GET", f"/chat/stream/{made.json()['id']}", headers=WEB)
    assert (refused.status, deleted.status, gone.status, log.status) == (503, 200, 404, 410)
