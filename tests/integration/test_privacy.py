"""Private requests in front of stores that several servers share: nothing of them, or of their answers, is found there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import redis
from psycopg import sql

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.http import Connection, Response, ask, connection, within
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis
from tests.serving import Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HEADER = {"x-cauce-privacy": "local"}

Ways = tuple[str, dict[str, Any], dict[str, str]]
"""How privacy is asked for: the model that is named, fields of the body, headers."""

WAYS: dict[str, Ways] = {
    "route": ("private", {}, {}),
    "alias of the route": ("secret", {}, {}),
    "header": ("open", {}, HEADER),
    "metadata": ("open", {"metadata": {"privacy": "local"}}, {}),
}


class Shared(msgspec.Struct):
    """Stores that servers share. `toml` is how a server is told of them."""

    toml: str
    rows: Callable[[], list[bytes]]
    """All that is in them."""

    def finds(self, text: str) -> bool:
        return any([text.encode() in row for row in self.rows()])

    async def gets(self, text: str) -> None:
        """Return once it is there: an answer is kept a moment after it was given."""

        async def look() -> None:
            while not await asyncio.to_thread(self.finds, text):
                pass

        await within(look(), 20)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as server:
        yield server.url


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["postgres", "redis"])
def shared(request: pytest.FixtureRequest, redis_url: str) -> Shared:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    toml = f'[streams]\nstore = "{request.param}"\nlease = 1\n[redis]\nurl = "{redis_url}"\n'
    if request.param == "redis":
        return Shared(toml, lambda: in_redis(redis_url))
    url: str = request.getfixturevalue("postgres_url")
    return Shared(f'{toml}[postgres]\nurl = "{url}"\n', lambda: in_redis(redis_url) + in_postgres(url))


def in_redis(url: str) -> list[bytes]:
    """Every key with what it holds."""
    found: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": client.xrange,
            # It has gone since.
            b"none": client.exists,
        }
        for key in client.scan_iter(count=1000):
            found += [key, *_flat(read[client.type(key)](key))]
    return found


def in_postgres(url: str) -> list[bytes]:
    """Every row of every table."""
    found: list[bytes] = []
    with psycopg.connect(url) as connected:
        listed = (
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for name in connected.execute(listed).fetchall():
            every = sql.SQL("SELECT * FROM {}").format(sql.Identifier(*name))
            found += [part for row in connected.execute(every).fetchall() for part in _flat(row)]
    return found


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield from _flat(tuple(value.items()))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    elif isinstance(value, list | tuple | set):
        for one in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _flat(one)
    else:
        yield value if isinstance(value, bytes) else str(value).encode()


def echo(asked: Ask) -> Reply:
    """Say again what was asked."""
    return Reply(text=f"You said: {asked.body['messages'][-1]['content']}" if "messages" in asked.body else "")


def table(base_url: str) -> str:
    return (
        upstream_table("near", base_url)
        + upstream_table("far", base_url, local=False)
        + '[models.private]\ncandidates = ["near/m"]\nprivacy = "local"\n'
        + '[models.vectors]\ncandidates = ["near/embed-de-ruta"]\nprivacy = "local"\n'
        + '[models.open]\ncandidates = ["near/m"]\n[aliases]\nsecret = "private"\n'
    )


@pytest.fixture
async def served(upstream: Upstream, shared: Shared, tmp_path: Path) -> AsyncIterator[Served]:
    upstream.answers = [echo]
    async with serving(table(upstream.base_url) + shared.toml, data=tmp_path / "own") as running:
        yield running


@pytest.fixture
async def other(upstream: Upstream, shared: Shared, tmp_path: Path) -> AsyncIterator[Served]:
    """Another server that has the same stores."""
    async with serving(table(upstream.base_url) + shared.toml, data=tmp_path / "other") as running:
        yield running


async def cached_call(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    body = {"model": model, "messages": [{"role": "user", "content": word}], "temperature": 0, "user": word, **fields}
    uses: list[str] = []
    for _ in range(2):
        response = await ask(served.port, "POST", "/v1/chat/completions", body, headers)
        assert word in response.body.decode()
        uses.append(response.headers["x-cauce-cache"])
    assert uses == ["miss", "hit"]


async def durable_stream(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    body = {"model": model, "messages": [{"role": "user", "content": word}], **fields}
    path = f"/chat/stream/{word}"
    begun = await within(ask(served.port, "POST", path, body, headers))
    again = await within(ask(served.port, "GET", f"{path}/resume?after=0"))
    assert begun.frames()[-1]["data"] == f"You said: {word}"
    assert begun.frames() == again.frames()


async def keyed_call(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    body = {"model": model, "messages": [{"role": "user", "content": word}], **fields}
    answers = [
        await within(
            ask(served.port, "POST", "/v1/chat/completions", body, {**headers, "idempotency-key": f"key-of-{word}"})
        )
        for _ in range(2)
    ]
    assert answers[0].json()["choices"][0]["message"]["content"] == f"You said: {word}"
    assert answers[0].body == answers[1].body


async def durable_call(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": word}], **fields}
    answer = await within(ask(served.port, "POST", "/v1/messages", body, {**headers, "x-cauce-durable": "true"}))
    assert answer.json()["content"][0]["text"] == f"You said: {word}"


async def background_response(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    body = {"model": model, "input": word, "background": True, **fields}
    begun = (await within(ask(served.port, "POST", "/v1/responses", body, headers))).json()

    async def done() -> Response:
        while True:
            polled = await ask(served.port, "GET", f"/v1/responses/{begun['id']}")
            if polled.json()["status"] not in ("queued", "in_progress"):
                return polled

    assert f"You said: {word}" in (await within(done())).body.decode()


async def chat(served: Served, way: Ways, word: str) -> None:
    model, fields, headers = way
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": word}]}
    body = {"id": f"chat-{word}", "model": model, "messages": [message], **fields}
    answer = await within(ask(served.port, "POST", "/api/chat", body, headers))
    assert answer.status == 200 and b"finish" in answer.body


Doing = Callable[[Served, Ways, str], Awaitable[None]]

DOINGS: tuple[Doing, ...] = (
    cached_call,
    durable_stream,
    keyed_call,
    durable_call,
    background_response,
    chat,
)


@pytest.mark.parametrize("doing", DOINGS, ids=lambda doing: doing.__name__)
async def test_nothing_of_a_private_request_is_in_what_servers_share(
    served: Served, shared: Shared, doing: Doing
) -> None:
    for name, way in WAYS.items():
        # The wire of chats has no metadata.
        if doing is not chat or not way[1]:
            await doing(served, way, f"secreto-{name.replace(' ', '-')}")
    # What is said later, and not private, is found: what was private would be by then.
    await doing(served, ("open", {}, {}), f"abierto-{doing.__name__}")
    await shared.gets(f"abierto-{doing.__name__}")
    assert not shared.finds("secreto")


async def test_private_embeddings_are_kept_in_the_memory_of_their_server_alone(
    served: Served, upstream: Upstream, shared: Shared
) -> None:
    """Of vectors that are kept, the model that made them is written beside them."""
    upstream.answers = [Reply()]
    for model, headers in (("near/embed-secreto", HEADER), ("vectors", {}), ("near/embed-abierto", {})):
        body = {"model": model, "input": "text"}
        uses = [
            (await ask(served.port, "POST", "/v1/embeddings", body, headers)).headers["x-cauce-cache"] for _ in range(2)
        ]
        assert uses == ["miss", "hit"]
    await shared.gets("embed-abierto")
    assert not shared.finds("embed-secreto") and not shared.finds("embed-de-ruta")


async def test_private_answer_does_not_come_out_of_what_servers_share(
    served: Served, other: Served, upstream: Upstream, shared: Shared
) -> None:
    upstream.answers = [Reply(text="of the other server")]
    body = {"model": "open", "messages": [{"role": "user", "content": f"common {shared.toml}"}], "temperature": 0}
    await ask(other.port, "POST", "/v1/chat/completions", body)
    upstream.answers = [Reply(text="of its own server")]
    await shared.gets("of the other server")
    kept = await ask(served.port, "POST", "/v1/chat/completions", body)
    private = await ask(served.port, "POST", "/v1/chat/completions", body, HEADER)
    again = await ask(served.port, "POST", "/v1/chat/completions", body, HEADER)
    assert (kept.headers["x-cauce-cache"], b"of the other server" in kept.body) == ("hit", True)
    assert (private.headers["x-cauce-cache"], b"of its own server" in private.body) == ("miss", True)
    assert (again.headers["x-cauce-cache"], b"of its own server" in again.body) == ("hit", True)


async def test_private_stream_is_resumed_and_cancelled_at_its_own_server_and_unknown_to_another(
    served: Served, other: Served, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(3)
    upstream.answers = [Reply(text="one two three four", gate=gate)]
    body = msgspec.json.encode({"model": "private", "messages": [{"role": "user", "content": "Count."}]})
    async with connection(served.port) as client:
        await client.send("POST", "/chat/stream/counted", body)
        await client.head()
        await within(client.until(b"two"))
        for method, path in (("GET", ""), ("GET", "/resume"), ("DELETE", "")):
            there = await ask(other.port, method, f"/chat/stream/counted{path}")
            assert there.status == 404, (method, path, there.body)
        async with connection(served.port) as second:
            await second.send("GET", "/chat/stream/counted/resume?after=0")
            await second.head()
            await within(second.until(b"two"))
            cancelled = (await ask(served.port, "DELETE", "/chat/stream/counted")).json()
            assert cancelled["state"] == "cancelled"
            await within(second.until(b'"type":"cancelled"'))
        await within(client.until(b'"type":"cancelled"'))
        await within(upstream.closed.wait())


async def test_answer_to_a_private_key_is_given_again_at_its_own_server_and_made_anew_at_another(
    served: Served, other: Served, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="first"), Reply(text="second")]
    body = {"model": "private", "messages": [{"role": "user", "content": "Which?"}]}
    key = {"idempotency-key": "which"}
    said = [
        (await within(ask(port, "POST", "/llm/message", body, key))).json()["response"]
        for port in (served.port, other.port, served.port, other.port)
    ]
    assert said == ["first", "second", "first", "second"]


async def test_id_of_a_private_stream_is_that_of_no_other_request_at_its_server(
    served: Served, upstream: Upstream
) -> None:
    upstream.answers = [Reply(text="an answer")]
    body = {"model": "open", "messages": [{"role": "user", "content": "Hi."}]}
    for first, second in ((HEADER, {}), ({}, HEADER)):
        path = f"/chat/stream/twice-{len(first)}"
        one = await within(ask(served.port, "POST", path, body, first))
        other = await within(ask(served.port, "POST", path, body, second))
        assert (one.status, other.status) == (200, 409), other.body
        assert (await within(ask(served.port, "POST", path, body, first))).frames() == one.frames()


async def test_private_and_other_streams_are_listed_for_their_chat(served: Served, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="one two", gate=gate)]
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi."}]}
    for chat_id, model in (("of-private", "private"), ("of-open", "open")):
        body = msgspec.json.encode({"id": chat_id, "model": model, "messages": [message]})
        async with connection(served.port) as client:
            await client.send("POST", "/api/chat", body)
            await client.head()
            await within(client.until(b'"start"'))
            stopped = await within(ask(served.port, "POST", f"/api/chat/{chat_id}/stop"))
            assert stopped.json()["state"] == "cancelled"


async def rest(client: Connection) -> Response:
    """What is left of a chunked body."""
    body = b""
    try:
        while chunk := await client.chunk():
            body += chunk
    except (asyncio.IncompleteReadError, ConnectionError):
        return Response(200, {}, body, complete=False)
    return Response(200, {}, body, complete=True)


async def test_server_that_ends_tells_readers_of_private_streams_so(
    upstream: Upstream, shared: Shared, tmp_path: Path
) -> None:
    """Others are handed over, and their readers are cut off without an ending."""
    upstream.answers = [Reply(text="one two three four", stall_after=2)]
    readings: dict[str, asyncio.Future[Response]] = {}
    async with contextlib.AsyncExitStack() as stack:
        async with serving(table(upstream.base_url) + shared.toml, data=tmp_path) as served:
            for model in ("private", "open"):
                client = await stack.enter_async_context(connection(served.port))
                body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Count."}]})
                await client.send("POST", f"/chat/stream/ending-{model}", body)
                await within(client.reader.readuntil(b"two"))
                # The rest of the chunk, then all that follows.
                await client.reader.readuntil(b"\r\n")
                readings[model] = asyncio.ensure_future(rest(client))
        told = {model: await within(reading, 20) for model, reading in readings.items()}
    assert told["private"].complete and b'"error_code":"overloaded"' in told["private"].body
    assert not told["open"].complete and b'"type":"error"' not in told["open"].body
    async with serving(table(upstream.base_url) + shared.toml, data=tmp_path) as served:
        states = [await ask(served.port, "DELETE", f"/chat/stream/ending-{model}") for model in readings]
    assert [one.status for one in states] == [404, 200]


async def test_address_in_a_private_request_is_refused_and_not_fetched(served: Served, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/secret.png"}}
    body = {"model": "private", "messages": [{"role": "user", "content": [image]}]}
    refused = [
        await ask(served.port, "POST", "/v1/chat/completions", body),
        await ask(served.port, "POST", "/v1/chat/completions", {**body, "model": "open"}, HEADER),
        await ask(served.port, "POST", "/v1/chat/completions", body, {"x-cauce-durable": "true"}),
    ]
    assert [(one.status, one.json()["error"]["param"]) for one in refused] == [(400, "messages[0].content")] * 3
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    upstream.answers = [Reply()]
    taken = await ask(
        served.port,
        "POST",
        "/v1/chat/completions",
        {"model": "private", "messages": [{"role": "user", "content": [inline]}]},
    )
    assert taken.status == 200
    assert [asked["messages"][0]["content"] for asked in upstream.requests] == [[inline]]


@pytest.mark.parametrize("how", ["plain", "streamed", "background", "durable"])
async def test_response_that_goes_on_from_a_private_one_is_private_too(
    served: Served, upstream: Upstream, shared: Shared, how: str
) -> None:
    """Whatever it says itself, and the one after it."""
    word = f"secreto-seguido-{how}"

    async def turn(model: str, previous: str | None, headers: dict[str, str]) -> str:
        told = {"previous_response_id": previous} if previous else {}
        body = {"model": model, "input": word, "stream": how == "streamed", "background": how == "background", **told}
        durable = {"x-cauce-durable": "true"} if how == "durable" else {}
        response = await within(ask(served.port, "POST", "/v1/responses", body, {**headers, **durable}))
        assert response.status == 200, response.body
        if how == "streamed":
            return str(response.frames()[-1]["response"]["id"])
        found = response.json()
        while found["status"] in ("queued", "in_progress"):
            found = (await ask(served.port, "GET", f"/v1/responses/{found['id']}")).json()
        return str(found["id"])

    begun = await turn("private", None, {})
    second = await turn("open", begun, {"x-cauce-privacy": "any"})
    asked = {"model": "open", "input": word, "background": True}
    third = {**asked, "previous_response_id": second}
    await within(ask(served.port, "POST", "/v1/responses", {**third, "metadata": {"privacy": "any"}}))
    refused = await ask(served.port, "POST", "/v1/responses", {**third, "model": "far/m"})
    assert refused.status == 404 and b"stays on this machine" in refused.body
    await within(ask(served.port, "POST", "/v1/responses", {**asked, "input": f"abierto-{how}"}))
    await shared.gets(f"abierto-{how}")
    assert not shared.finds(word)
