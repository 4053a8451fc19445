"""`DELETE /users/{user}`, `DELETE /users?all=true` and `DELETE /chat/stream/{id}?erase=true`: gone for good, and nothing else is."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from cauce.domain.errors import Gone
from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey
from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import Connection, ask, connection, within
from tests.integration.test_keyed_calls import CALLS, full
from tests.integration.test_logged_calls import KEY
from tests.serving import MESSAGES, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

KEYS = "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("web", "other")])
WEB = {"Authorization": "Bearer web"}
OTHER = {"Authorization": "Bearer other"}
BODY = {"model": "up/m", "messages": MESSAGES, "user": "ana"}
RAW = b'{"model":"up/m","messages":[{"role":"user","content":"Say hello."}],"user":"ana"}'

Kept = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["in memory", "on disk"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kept(place: str, tmp_path: Path) -> Kept:
    """Serves with its streams kept there."""
    return partial(serving, data=tmp_path / "data") if place == "on disk" else serving


def config(upstream: Upstream) -> str:
    return upstream_table("up", upstream.base_url, default_model="m") + KEYS


async def status(served: Served, path: str, headers: dict[str, str] = WEB) -> int:
    return (await ask(served.port, "GET", path, headers=headers)).status


def receipt_of(**counts: int) -> dict[str, int]:
    """A receipt in which all but `counts` is nothing."""
    nothing = {"deleted": 0, "cancelled": 0, "pending": 0, "responses": 0, "conversations": 0, "comments": 0}
    return {**nothing, **counts}


async def begun(client: Connection, stream_id: str, sent: bytes = RAW) -> None:
    """Start a stream and read its first word."""
    head = {**WEB, "Content-Type": "application/json"}
    await client.send("POST", f"/chat/stream/{stream_id}", sent, head)
    await client.head()
    await within(client.until(b'"data":"a "'))


async def left_of(client: Connection) -> bytes:
    """What comes until the body or the connection ends."""
    told = b""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while chunk := await client.chunk():
            told += chunk
    return told


async def test_erased_user_leaves_nothing_and_others_keep_theirs(kept: Kept, place: str, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        for stream_id, user, headers in (
            ("hers", "ana", WEB),
            ("bea", "bea", WEB),
            ("nobody", None, WEB),
            ("hers-too", "ana", OTHER),
        ):
            await ask(served.port, "POST", f"/chat/stream/{stream_id}", {**BODY, "user": user}, headers)
        responses = [
            (
                await ask(served.port, "POST", "/v1/responses", {"model": "up/m", "input": "hi", "user": user}, WEB)
            ).json()
            for user in ("ana", "bea")
        ]
        opinion = {"stream_id": "hers", "thumb": "up", "comment": "It is about my illness."}
        assert (await ask(served.port, "POST", "/feedback", opinion, WEB)).status == 200
        receipt = await ask(served.port, "DELETE", "/users/ana", headers=WEB)
        again = await ask(served.port, "DELETE", "/users/ana", headers=WEB)
        streams = [await status(served, f"/chat/stream/{stream_id}") for stream_id in ("hers", "bea", "nobody")]
        theirs = await status(served, "/chat/stream/hers-too", OTHER)
        shown = [await status(served, f"/v1/responses/{one['id']}") for one in responses]
        resumed = await ask(served.port, "GET", "/chat/stream/hers/resume?after=0", headers=WEB)
        reused = await ask(served.port, "POST", "/chat/stream/hers", BODY, WEB)
        usage = (await ask(served.port, "GET", "/usage?user=ana&key=web", headers=WEB)).json()
    # A ledger in memory keeps no comments.
    comments = 1 if place == "on disk" else 0
    assert receipt.json() == receipt_of(deleted=1, responses=1, comments=comments)
    assert again.json() == receipt_of()
    assert streams == [410, 200, 200] and theirs == 200 and shown == [404, 200]
    assert (resumed.status, reused.status) == (410, 410)
    # What it cost is still known.
    assert usage["total"]["requests"] == 2 and usage["total"]["input_tokens"] > 0


async def test_open_streams_of_an_erased_user_are_cancelled_and_their_upstreams_closed(
    kept: Kept, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=1)]
    async with kept(config(upstream)) as served:
        async with connection(served.port) as client:
            await begun(client, "s")
            receipt = await within(ask(served.port, "DELETE", "/users/ana", headers=WEB))
            await within(upstream.closed.wait())
            told = await within(left_of(client))
        assert await status(served, "/chat/stream/s") == 410
        upstream.answers = [Reply(text="again")]
        after = await ask(served.port, "POST", "/chat/stream/t", BODY, WEB)
    assert receipt.json() == receipt_of(deleted=1, cancelled=1)
    # Whoever was reading is told of the end, or sent away: nobody takes it for an answer.
    assert b'"type":"complete"' not in told
    assert after.frames()[-1]["data"] == "again"


async def test_conversations_of_an_erased_user_are_gone_and_an_answer_it_cut_does_not_bring_one_back(
    kept: Kept, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="Hello."), Reply(text="Hello."), Reply(text="a b c d", stall_after=1)]
    async with kept(config(upstream)) as served:
        for stream_id, user in (("one", "ana"), ("two", "bea")):
            said = {**BODY, "user": user, "conversation_id": f"of-{user}"}
            await ask(served.port, "POST", f"/chat/stream/{stream_id}", said, WEB)
        assert await status(served, "/conversations/of-ana") == 200
        async with connection(served.port) as client:
            await begun(client, "three", RAW[:-1] + b',"conversation_id":"new"}')
            receipt = await within(ask(served.port, "DELETE", "/users/ana", headers=WEB))
            await within(upstream.closed.wait())
        left = [await status(served, f"/conversations/{id}") for id in ("of-ana", "new", "of-bea")]
    assert (receipt.json()["deleted"], receipt.json()["conversations"]) == (2, 1)
    assert left == [404, 404, 200]


async def test_everything_of_a_key_is_erased_only_if_that_is_said(kept: Kept, upstream: Upstream) -> None:
    async with kept(config(upstream)) as served:
        for stream_id, user, headers in (("a", "ana", WEB), ("b", None, WEB), ("c", "ana", OTHER)):
            await ask(served.port, "POST", f"/chat/stream/{stream_id}", {**BODY, "user": user}, headers)
        await ask(served.port, "POST", "/v1/responses", {"model": "up/m", "input": "hi"}, WEB)
        refused = [
            await ask(served.port, "DELETE", path, headers=WEB) for path in ("/users", "/users/", "/users?all=1")
        ]
        assert [await status(served, f"/chat/stream/{id}") for id in "ab"] == [200, 200]
        receipt = await ask(served.port, "DELETE", "/users?all=true", headers=WEB)
        left = [await status(served, f"/chat/stream/{id}") for id in "ab"]
        theirs = await status(served, "/chat/stream/c", OTHER)
        others = [
            await ask(served.port, "GET", "/users/ana", headers=WEB),
            await ask(served.port, "DELETE", "/usersall", headers=WEB),
            await ask(served.port, "DELETE", "/users/ana"),
        ]
    assert [(one.status, one.json()["error_code"]) for one in refused] == [(400, "invalid_request")] * 3
    assert receipt.json() == receipt_of(deleted=2, responses=1)
    assert left == [410, 410] and theirs == 200
    assert [one.status for one in others] == [405, 404, 401] and others[0].headers["allow"] == "DELETE, OPTIONS"


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("ana@example.com", "ana%40example.com"),
        ("a/b c", "a%2Fb%20c"),
        ("ñandú", "%C3%B1and%C3%BA"),
        ("x" * 300, "x" * 300),
        ("nul\0l", "nul%00l"),
    ],
)
async def test_user_is_found_under_any_name(kept: Kept, upstream: Upstream, user: str, path: str) -> None:
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/s", {**BODY, "user": user, "conversation_id": "c"}, WEB)
        receipt = await ask(served.port, "DELETE", f"/users/{path}", headers=WEB)
        assert await status(served, "/chat/stream/s") == 410
    assert (receipt.json()["deleted"], receipt.json()["conversations"]) == (1, 1)


async def test_one_stream_is_erased_open_or_ended(kept: Kept, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="Hello."), Reply(text="a b c d", stall_after=1)]
    async with kept(config(upstream)) as served:
        await ask(served.port, "POST", "/chat/stream/ended", BODY, WEB)
        ended = await ask(served.port, "DELETE", "/chat/stream/ended?erase=true", headers=WEB)
        again = await ask(served.port, "DELETE", "/chat/stream/ended?erase=true", headers=WEB)
        async with connection(served.port) as client:
            await begun(client, "open")
            foreign = await ask(served.port, "DELETE", "/chat/stream/open?erase=true", headers=OTHER)
            still_open = await within(ask(served.port, "DELETE", "/chat/stream/open?erase=true", headers=WEB))
            await within(upstream.closed.wait())
        gone = [await status(served, f"/chat/stream/{id}") for id in ("ended", "open")]
        unknown = await ask(served.port, "DELETE", "/chat/stream/unknown?erase=true", headers=WEB)
        wrong = await ask(served.port, "DELETE", "/chat/stream/unknown?erase=maybe", headers=WEB)
    assert (ended.status, ended.json()["state"], ended.json()["id"]) == (200, "expired", "ended")
    assert (still_open.status, still_open.json()["state"]) == (200, "expired")
    assert still_open.json()["cancel_requested"] is True
    assert (again.status, foreign.status, unknown.status, wrong.status) == (410, 404, 404, 400)
    assert gone == [410, 410]


async def test_call_with_a_key_is_erased_with_all_its_tries(upstream: Upstream) -> None:
    path, body = CALLS["chat, plain"]
    async with full(upstream) as busy:
        port, streams = busy.served.port, busy.served.runtime.services.streams
        assert (await ask(port, "POST", path, body, KEY)).status == 429
        await busy.make_room()
        answered = await ask(port, "POST", path, body, KEY)
        erased = await ask(port, "DELETE", "/chat/stream/openai-chat:k?erase=true")
        again = await ask(port, "POST", path, body, KEY)
        for name in ("openai-chat:k", "openai-chat.2:k"):
            with pytest.raises(Gone):
                await streams.head(StreamKey("default/anonymous", name))
    assert answered.headers["x-cauce-stream-id"] == "openai-chat.2:k"
    assert (erased.status, again.status) == (200, 410)


async def test_background_response_of_an_erased_user_does_not_come_back(kept: Kept, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    asked = {"model": "up/m", "input": "hi", "background": True, "user": "ana"}
    async with kept(config(upstream)) as served:
        made = (await ask(served.port, "POST", "/v1/responses", asked, WEB)).json()
        receipt = await within(ask(served.port, "DELETE", "/users/ana", headers=WEB))
        place = f"/v1/responses/{made['id']}"
        assert await status(served, place) == 404
        for _ in range(9):
            gate.release()
        services = served.runtime.services
        assert await services.responses.promised(9) == []
        left = [await status(served, place), await status(served, f"/chat/stream/{made['id']}")]
    assert (receipt.json()["deleted"], receipt.json()["cancelled"]) == (1, 1) and left == [404, 410]


@pytest.mark.parametrize("path", ["/users/ana", "/users?all=true"])
async def test_ended_background_response_of_an_erased_user_is_counted_and_no_byte_of_it_is_left(
    kept: Kept, upstream: Upstream, tmp_path: Path, path: str
) -> None:
    upstream.answers = [Reply(text="canary canary")]
    asked = {"model": "up/m", "input": "hi", "background": True, "user": "ana"}
    async with kept(config(upstream)) as served:
        made = (await ask(served.port, "POST", "/v1/responses", asked, WEB)).json()
        responses = served.runtime.services.responses
        scope = Scope("default", "web")

        async with asyncio.timeout(10):
            while await responses.get(scope, made["id"]) is None:
                await asyncio.sleep(0)
        receipt = (await within(ask(served.port, "DELETE", path, headers=WEB))).json()
        left = [file.name for file in (tmp_path / "data").glob("responses*") if b"canary" in file.read_bytes()]
        assert await status(served, f"/v1/responses/{made['id']}") == 404
    assert (receipt["deleted"], receipt["responses"], left) == (1, 1, [])


async def test_answer_without_a_log_that_is_given_while_its_user_is_erased_is_in_no_conversation(
    kept: Kept, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b", gate=gate)]
    async with kept(config(upstream)) as served:
        said = {**BODY, "conversation_id": "new"}
        answering = asyncio.create_task(ask(served.port, "POST", "/llm/message", said, WEB))
        await within(upstream.asked.wait())
        await within(ask(served.port, "DELETE", "/users/ana", headers=WEB))
        for _ in range(9):
            gate.release()
        assert (await within(answering)).status == 200
        assert await status(served, "/conversations/new") == 404


async def test_deleted_response_leaves_no_log(kept: Kept, upstream: Upstream) -> None:
    asked = {"model": "up/m", "input": "hi", "background": True}
    async with kept(config(upstream)) as served:
        made = (await ask(served.port, "POST", "/v1/responses", asked, WEB)).json()
        deleted = await within(ask(served.port, "DELETE", f"/v1/responses/{made['id']}", headers=WEB))
        left = await status(served, f"/chat/stream/{made['id']}")
    assert (deleted.status, left) == (200, 410)
