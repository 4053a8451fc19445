"""`/conversations`: what is said under a `conversation_id` is kept, once, whatever becomes of its stream."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from cauce.bootstrap.conversing import Spoken
from cauce.bootstrap.streaming import Standing, Streaming
from cauce.config import Config
from cauce.domain.conversation import Turn
from cauce.domain.request import Scope
from cauce.engine.streams.conversing import Conversing
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Turn as Model
from cauce.ports.clock import Clock
from cauce.server.gate import hash_key
from cauce.stores.inproc.conversations import InprocConversations
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.postgres_server import running_postgres
from tests.serving import BREAKS, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

Kept = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["in memory", "on disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Serves with its conversations kept there."""
    return partial(serving, data=tmp_path / "data") if request.param == "on disk" else serving


def config(upstream: Upstream) -> str:
    return upstream_table("up", upstream.base_url, default_model="m")


def body(*said: str, conversation: str = "c", **more: Any) -> dict[str, Any]:
    """A request whose messages are the user's and the model's in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
    return {"model": "up/m", "messages": messages, "conversation_id": conversation, **more}


async def turns(served: Served, count: int, conversation: str = "c", **headers: str) -> list[dict[str, Any]]:
    """The turns, once there are so many."""

    async def look() -> list[dict[str, Any]]:
        while True:
            response = await ask(served.port, "GET", f"/conversations/{conversation}", headers=headers)
            if response.status == 200 and response.json()["count"] >= count:
                return response.json()["turns"]

    return await within(look(), 20)


def spoken(some: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(turn["role"], turn["content"], turn["status"]) for turn in some]


async def settled(served: Served) -> None:
    """Return once nothing that has ended is to be copied any more."""
    conversing = served.runtime.services.conversing
    await conversing.sweep()
    await conversing.caught_up()


async def test_answer_of_a_stream_is_in_its_conversation_after_its_end(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply("One."), Reply("Two.")]
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s1", body("first"))
        await ask(served.port, "POST", "/chat/stream/s2", body("first", "One.", "second"))
        found = await turns(served, 4)
        await settled(served)
        again = await turns(served, 4)
        listed = (await ask(served.port, "GET", "/conversations")).json()
    assert found == again
    assert spoken(found) == [
        ("user", "first", "complete"),
        ("assistant", "One.", "complete"),
        ("user", "second", "complete"),
        ("assistant", "Two.", "complete"),
    ]
    assert [turn["seq"] for turn in found] == [1, 2, 3, 4]
    assert [turn["stream_id"] for turn in found] == ["s1", "s1", "s2", "s2"]
    assert [turn.get("model") for turn in found] == [None, "up/m", None, "up/m"]
    assert len({turn["id"] for turn in found}) == 4
    assert [(one["id"], one["count"]) for one in listed["conversations"]] == [("c", 4)]


async def test_plain_and_streamed_messages_are_kept_too(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply("One."), Reply("Two."), Reply("Three.")]
    async with kept(config(upstream)) as served:
        plain = await ask(served.port, "POST", "/llm/message", body("first"))
        at_once = (await ask(served.port, "GET", "/conversations/c")).json()["turns"]
        streamed = await ask(served.port, "POST", "/llm/message", body("first", "One.", "second", stream=True))
        found = await turns(served, 4)
        direct = {"X-Cauce-Durable": "false"}
        await ask(served.port, "POST", "/llm/message", body("unkept", stream=True), headers=direct)
        await settled(served)
        after = await turns(served, 4)
    assert spoken(at_once) == [("user", "first", "complete"), ("assistant", "One.", "complete")]
    assert (at_once[1]["model"], at_once[1]["stream_id"]) == ("up/m", plain.json()["stream_id"])
    assert streamed.frames()[-1]["data"] == "Two." and streamed.headers["x-cauce-stream-id"] == found[3]["stream_id"]
    assert [text for _, text, _ in spoken(found)] == ["first", "One.", "second", "Two."] and after == found


async def test_call_without_a_conversation_is_kept_nowhere(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", {**body("hi"), "conversation_id": ""})
        await ask(served.port, "POST", "/llm/message", {**body("hi"), "conversation_id": None})
        await settled(served)
        assert (await ask(served.port, "GET", "/conversations")).json() == {"conversations": [], "next": None}


async def test_conversation_gets_no_partial_turn(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply("a b c d", gate=gate)]
    async with kept(config(upstream)) as served:
        reading = asyncio.create_task(ask(served.port, "POST", "/chat/stream/s", body("hi")))
        async with connection(served.port) as client:
            await upstream.asked.wait()
            await client.send("GET", "/chat/stream/s/resume?after=0")
            await client.head()
            await within(client.until(b'"data":"b "'))
            await served.runtime.services.conversing.sweep()
            assert (await ask(served.port, "GET", "/conversations/c")).status == 404
            for _ in range(10):
                gate.release()
            await within(reading)
        assert spoken(await turns(served, 2)) == [("user", "hi", "complete"), ("assistant", "a b c d", "complete")]


async def test_cancelled_answer_is_kept_as_far_as_it_came_and_says_so(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply("a b c d", stall_after=2), Reply("e", stall_after=0)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/s", msgspec.json.encode(body("hi")))
            await client.head()
            await within(client.until(b'"data":"b "'))
        await ask(served.port, "DELETE", "/chat/stream/s")
        assert spoken(await turns(served, 2)) == [("user", "hi", "complete"), ("assistant", "a b ", "cancelled")]
        # Of one that nothing came of there is nothing to keep: who asks again says it again.
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/none", msgspec.json.encode(body("hi", "a b ", "again")))
            await client.head()
            await within(client.until(b'"status":"attempt"'))
        await ask(served.port, "DELETE", "/chat/stream/none")
        await settled(served)
        assert len(await turns(served, 2)) == 2


async def test_answer_that_broke_off_is_kept_and_says_so(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply("a b c d", cut_after=2)]
    toml = config(upstream) + '[models.fragile]\ncandidates = ["up/m"]\nmidstream = "fail"\n'
    async with kept(toml, BREAKS) as served:
        await ask(served.port, "POST", "/chat/stream/s", {**body("hi"), "model": "fragile"})
        assert spoken(await turns(served, 2)) == [("user", "hi", "complete"), ("assistant", "a b ", "incomplete")]


async def test_failed_answer_leaves_nothing(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=400)]
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", body("hi"))
        assert (
            await ask(served.port, "POST", "/llm/message", {**body("hi"), "model": "up/n", "messages": []})
        ).status == 400
        await settled(served)
        assert (await ask(served.port, "GET", "/conversations/c")).status == 404


async def test_calls_of_tools_and_their_results_are_kept_and_abandoned_calls_are_not(
    kept: Kept, upstream: Upstream
) -> None:
    upstream.answers = [
        Reply("", tool_calls=(("look", '{"at":"sky"}'),), cut_after=2),
        Reply("", tool_calls=(("look", '{"at":"sky"}'),)),
        Reply("Blue."),
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    async with kept(config(upstream)) as served:
        first = await ask(served.port, "POST", "/chat/stream/s1", body("What colour?", tools=tools))
        (called,) = [turn for turn in await turns(served, 2) if turn["role"] == "assistant"]
        result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "blue"}
        messages = [
            {"role": "user", "content": "What colour?"},
            {name: called[name] for name in ("role", "content", "tool_calls")},
        ]
        await ask(served.port, "POST", "/chat/stream/s2", {**body(tools=tools), "messages": [*messages, result]})
        found = await turns(served, 4)
    marks = [frame.get("mark") for frame in first.frames() if frame["type"] == "tool_call"]
    assert "abandoned" in marks
    assert [call["function"] for call in called["tool_calls"]] == [{"name": "look", "arguments": '{"at":"sky"}'}]
    assert [turn["role"] for turn in found] == ["user", "assistant", "tool", "assistant"]
    assert (found[2]["content"], found[2]["tool_call_id"]) == ("blue", result["tool_call_id"])
    assert found[3]["content"] == "Blue."


async def test_page_can_be_read_after_page(upstream: Upstream) -> None:
    async with serving(config(upstream)) as served:
        for number in range(3):
            await ask(served.port, "POST", "/llm/message", body(f"q{number}", conversation=f"c{number}"))
            await ask(served.port, "POST", "/llm/message", body(f"q{number}", conversation="c"))
        seen: list[int] = []
        after = 0
        while after is not None:
            page = (await ask(served.port, "GET", f"/conversations/c?limit=4&after={after}")).json()
            seen += [turn["seq"] for turn in page["turns"]]
            after = page["next"]
        names: list[str] = []
        place: str | None = ""
        while place is not None:
            page = (await ask(served.port, "GET", f"/conversations?limit=3&after={place}")).json()
            names += [one["id"] for one in page["conversations"]]
            place = page["next"]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert names == ["c", "c2", "c1", "c0"]


async def test_conversation_can_be_made_named_and_deleted(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:

        async def call(method: str, path: str, sent: Any = None) -> Response:
            return await ask(served.port, method, path, sent)

        made = await call("POST", "/conversations", {"id": "c", "title": "Claves"})
        assert (made.status, made.json()["title"], made.json()["count"]) == (201, "Claves", 0)
        taken = await call("POST", "/conversations", {"id": "c"})
        assert (taken.status, taken.json()["error_code"]) == (409, "conflict")
        given = (await call("POST", "/conversations")).json()["id"]
        assert given.startswith("conv_")
        await call("POST", "/chat/stream/s", body("hi"))
        await turns(served, 2)
        named = await call("PATCH", "/conversations/c", {"title": "Llaves"})
        assert (named.status, named.json()["title"], named.json()["count"]) == (200, "Llaves", 2)
        gone = await call("DELETE", "/conversations/c")
        assert (gone.status, gone.json()) == (200, {"id": "c", "deleted": True})
        assert (await call("GET", "/conversations/c")).status == 404
        assert (await call("DELETE", "/conversations/c")).status == 404
        # Its log would show the same to whoever knows the stream's id.
        assert (await call("GET", "/chat/stream/s")).status == 410
        assert [one["id"] for one in (await call("GET", "/conversations")).json()["conversations"]] == [given]


async def test_answer_that_was_being_given_when_its_conversation_was_deleted_does_not_bring_it_back(
    kept: Kept, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply("One."), Reply("a b", gate=gate)]
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/llm/message", body("first"))
        reading = asyncio.create_task(ask(served.port, "POST", "/chat/stream/s", body("first", "One.", "second")))
        async with connection(served.port) as client:
            while (await ask(served.port, "GET", "/chat/stream/s")).status == 404:
                pass
            await client.send("GET", "/chat/stream/s/resume?after=0")
            await client.head()
            await within(client.until(b'"data":"a "'))
        assert (await ask(served.port, "DELETE", "/conversations/c")).status == 200
        for _ in range(10):
            gate.release()
        assert (await within(reading)).frames()[-1]["type"] == "complete"
        await settled(served)
        assert (await ask(served.port, "GET", "/conversations/c")).status == 404


class Slow(InprocConversations):
    """Keeps what is said once it is let."""

    def __init__(self, clock: Clock, gate: asyncio.Semaphore) -> None:
        super().__init__(clock)
        self.gate = gate

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        await self.gate.acquire()
        await super().keep(scope, id, turns, begun)


async def test_conversation_whose_first_answer_has_just_ended_can_be_named_and_deleted(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)

    def slowly(_: Config, model: Model, clock: Clock, **_more: Any) -> Streaming:
        log, store = InprocStreamLog(clock), Slow(clock, gate)
        streams, conversing = Streams(log, model, clock), Conversing(log, store, clock)
        streams.on_said(conversing.hear)

        async def start() -> None:
            conversing.start()

        spoken = Spoken(store, conversing, start, conversing.stop)
        return Streaming(streams, start, conversing.stop, lambda: Standing("memory", up=True), spoken)

    async with serving(config(upstream), streams=slowly) as served:
        for stream_id, method, sent in (("s1", "PATCH", {"title": "Claves"}), ("s2", "DELETE", None)):
            await ask(served.port, "POST", f"/chat/stream/{stream_id}", body("hi", conversation=stream_id))
            asking = asyncio.create_task(ask(served.port, method, f"/conversations/{stream_id}", sent))
            # Answered on the same loop: by now that one waits, or has its answer.
            assert (await ask(served.port, "GET", "/health")).status == 200
            gate.release()
            assert (await within(asking)).status == 200
        assert (await ask(served.port, "GET", "/chat/stream/s2")).status == 410


async def test_conversation_is_shown_to_its_own_key_alone(upstream: Upstream) -> None:
    keys = "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("ana", "ben")])
    ana, ben = {"Authorization": "Bearer ana"}, {"Authorization": "Bearer ben"}
    async with serving(config(upstream) + keys) as served:
        await ask(served.port, "POST", "/llm/message", body("hi"), headers=ana)
        assert (await ask(served.port, "GET", "/conversations/c")).status == 401
        for method, sent in (("GET", None), ("PATCH", {"title": "mine"}), ("DELETE", None)):
            assert (await ask(served.port, method, "/conversations/c", sent, ben)).status == 404
        assert (await ask(served.port, "GET", "/conversations", headers=ben)).json()["conversations"] == []
        await ask(served.port, "POST", "/llm/message", body("hola"), headers=ben)
        assert (await turns(served, 2, **ana))[0]["content"] == "hi"
        assert (await turns(served, 2, **ben))[0]["content"] == "hola"


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "field"),
    [
        ("GET", "/conversations?limit=0", None, 400, "limit"),
        ("GET", "/conversations?after=never", None, 400, "after"),
        ("GET", "/conversations/c?after=-1", None, 400, "after"),
        ("GET", "/conversations?after=nan:c", None, 400, "after"),
        ("GET", "/conversations?after=1", None, 400, "after"),
        ("POST", "/conversations", {"id": "a b"}, 400, "id"),
        ("POST", "/conversations", {"title": "x" * 201}, 400, "title"),
        ("PATCH", "/conversations/c", {}, 400, "title"),
        ("PATCH", "/conversations/c", {"title": "x"}, 404, None),
        ("PUT", "/conversations", None, 405, None),
        ("POST", "/conversations/c", None, 405, None),
        ("GET", "/conversationsandmore", None, 404, None),
        ("POST", "/llm/message", body("hi", conversation="a/b"), 400, "conversation_id"),
    ],
)
async def test_bad_requests_say_what_is_wrong(
    upstream: Upstream, method: str, path: str, sent: Any, status: int, field: str | None
) -> None:
    async with serving(config(upstream)) as served:
        response = await ask(served.port, method, path, sent)
    assert response.status == status
    assert field is None or response.json()["error"].startswith(field)


async def test_conversations_are_there_after_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(config(upstream), data=tmp_path) as served:
        await ask(served.port, "POST", "/chat/stream/s", body("hi"))
    async with serving(config(upstream), data=tmp_path) as served:
        response = await ask(served.port, "GET", "/conversations/c")
    assert [turn["content"] for turn in response.json()["turns"]] == ["hi", "Hello from upstream."]


async def test_what_must_not_leave_this_machine_is_not_kept_in_postgres(upstream: Upstream, tmp_path: Path) -> None:
    with running_postgres() as url:
        toml = config(upstream) + f'[streams]\nstore = "postgres"\n[postgres]\nurl = "{url}"\n'
        toml += '[models.secret]\ncandidates = ["up/m"]\nprivacy = "local"\n'
        async with serving(toml, data=tmp_path) as served:
            await ask(served.port, "POST", "/llm/message", body("public"))
            for private in ({"metadata": {"privacy": "local"}}, {"model": "secret"}):
                for stream in (False, True):
                    said = {**body("canary", stream=stream), **private}
                    assert (await ask(served.port, "POST", "/llm/message", said)).status == 200
            await settled(served)
            assert [turn["content"] for turn in await turns(served, 2)] == ["public", "Hello from upstream."]
        with psycopg.connect(url) as database:
            texts = [text for (text,) in database.execute("SELECT text FROM cauce.turns ORDER BY seq").fetchall()]
    assert texts == ["public", "Hello from upstream."]
