"""Who may call from where, and what is refused before anything happens."""

import asyncio
from typing import Any

import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import ask, connection, within
from tests.serving import MESSAGES, serving, upstream_table

pytestmark = pytest.mark.anyio

KEYED = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
QUESTION = {"messages": MESSAGES}
SURFACES = ["/llm/message", "/v1/chat/completions", "/chat/stream/x"]


def code_of(path: str, body: Any) -> str:
    """The error code, read the way each surface's clients do."""
    return body["error"]["code"] if path.startswith("/v1") else body["error_code"]


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:5173", "https://localhost", "http://[::1]:8080"]
)
async def test_pages_of_loopback_origins_may_call(origin: str) -> None:
    async with serving() as served:
        response = await ask(served.port, "POST", "/llm/message", QUESTION, {"Origin": origin})
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "x-cauce-stream-id" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:3000.evil"]
)
@pytest.mark.parametrize("path", SURFACES)
async def test_pages_of_other_origins_are_refused_before_their_body_is_read(origin: str, path: str) -> None:
    async with serving() as served:
        async with connection(served.port) as client:
            # The body that was announced never comes.
            await client.send("POST", path, b"", {"Origin": origin, "Content-Length": "1000"})
            response = await within(client.response())
    assert (response.status, code_of(path, response.json())) == (403, "forbidden")
    assert response.headers["access-control-allow-origin"] == origin


async def test_further_origins_are_opt_in() -> None:
    async with serving('[server]\ncors_origins = ["null", "https://app.example"]') as served:
        for origin in ("null", "https://app.example"):
            response = await ask(served.port, "POST", "/llm/message", QUESTION, {"Origin": origin})
            assert (response.status, response.headers["access-control-allow-origin"]) == (200, origin)


async def test_preflight_needs_no_key_and_echoes_the_headers_it_asks_for() -> None:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "x-anything, content-type"}
    async with serving(KEYED) as served:
        for path in [*SURFACES, "/health"]:
            response = await ask(served.port, "OPTIONS", path, headers=asked)
            assert response.status == 204
            assert response.headers["access-control-allow-headers"] == "x-anything, content-type"
            assert "DELETE" in response.headers["access-control-allow-methods"]


async def test_errors_carry_cors_headers_too() -> None:
    async with serving(KEYED) as served:
        response = await ask(served.port, "POST", "/llm/message", QUESTION, {"Origin": "http://localhost:3000"})
    assert response.status == 401
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "host.docker.internal:8000", "LOCALHOST"]
)
async def test_names_of_this_machine_are_served(host: str) -> None:
    async with serving() as served:
        assert (await ask(served.port, "GET", "/health", headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "10.0.0.1"])
async def test_other_host_names_are_refused_without_keys(host: str) -> None:
    async with serving() as served:
        for path in SURFACES:
            response = await ask(served.port, "POST", path, QUESTION, {"Host": host})
            assert (response.status, code_of(path, response.json())) == (403, "forbidden")


async def test_host_names_can_be_added() -> None:
    async with serving('[server]\nhosts = ["cauce.example"]') as served:
        assert (await ask(served.port, "GET", "/health", headers={"Host": "cauce.example"})).status == 200


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer secret"}, {"authorization": "bearer secret"}, {"X-Api-Key": "secret"}]
)
async def test_known_key_opens_every_surface(headers: dict[str, str]) -> None:
    async with serving(KEYED) as served:
        for path in ["/llm/message", "/v1/chat/completions"]:
            assert (await ask(served.port, "POST", path, QUESTION, headers)).status == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VjcmV0"}, {"X-Api-Key": ""}]
)
@pytest.mark.parametrize(
    "path",
    [
        *SURFACES,
        "/v1/models",
        "/metrics",
        "/health?probe=auto",
        "/health?%70robe=auto",
        "/health?pro%62e=auto",
        "/health?a=b&prob%65=auto",
    ],
)
async def test_no_key_or_a_wrong_one_is_401(headers: dict[str, str], path: str) -> None:
    method = "POST" if path in SURFACES else "GET"
    async with serving(KEYED) as served:
        response = await ask(served.port, method, path, QUESTION if method == "POST" else None, headers)
    assert response.status == 401
    assert response.headers["www-authenticate"] == "Bearer"


COOKIE = {"Cookie": "theme=dark; cauce_key=secret"}


async def test_page_reads_a_stream_with_its_key_in_a_cookie_and_does_nothing_else_with_it() -> None:
    async with serving(KEYED) as served:
        await ask(served.port, "POST", "/chat/stream/x", QUESTION, {"Authorization": "Bearer secret"})
        place = "/chat/stream/x/resume?after=0"
        assert (await ask(served.port, "GET", place, headers=COOKIE)).status == 200
        assert (await ask(served.port, "GET", place, headers={"Cookie": "cauce_key=wrong"})).status == 401
        for method, path in [
            ("POST", "/chat/stream/x/resume"),
            ("POST", "/chat/stream/x"),
            ("DELETE", "/chat/stream/x"),
            ("GET", "/chat/stream/x"),
            ("POST", "/llm/message"),
            ("GET", "/v1/models"),
        ]:
            body = QUESTION if method == "POST" else None
            assert (await ask(served.port, method, path, body, COOKIE)).status == 401, (method, path)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Origin": "http://localhost:3000"}, 401),
        ({"Origin": "https://app.example"}, 401),
    ],
)
async def test_cookie_counts_for_our_own_pages_only(headers: dict[str, str], status: int) -> None:
    async with serving(KEYED + '[server]\ncors_origins = ["https://app.example"]') as served:
        await ask(served.port, "POST", "/chat/stream/x", QUESTION, {"Authorization": "Bearer secret"})
        read = await ask(served.port, "GET", "/chat/stream/x/resume?after=0", headers={**COOKIE, **headers})
    assert read.status == status and "access-control-allow-credentials" not in read.headers


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs", "/openapi.json"])
async def test_health_and_documentation_need_no_key(path: str) -> None:
    async with serving(KEYED) as served:
        assert (await ask(served.port, "GET", path)).status == 200


async def test_any_key_is_accepted_when_none_is_configured() -> None:
    async with serving() as served:
        assert (
            await ask(served.port, "POST", "/llm/message", QUESTION, {"Authorization": "Bearer sk-any"})
        ).status == 200


@pytest.mark.parametrize("path", SURFACES)
async def test_body_over_the_limit_is_413_and_its_sender_sees_it(path: str) -> None:
    async with serving() as served:
        response = await within(ask(served.port, "POST", path, b"x" * (21 * 1024 * 1024)), 20)
    assert (response.status, code_of(path, response.json())) == (413, "payload_too_large")


async def test_body_over_the_limit_in_chunks_is_413_too() -> None:
    async with serving("[server]\nmax_body = 2048") as served:
        async with connection(served.port) as client:
            await client.send("POST", "/llm/message", b"", {"Transfer-Encoding": "chunked", "Content-Length": ""})
            client.writer.close()
        async with connection(served.port) as client:
            head = b"POST /llm/message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.writer.write(head + b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n")
            assert (await within(client.response())).status == 413


async def test_waiting_for_100_continue_hears_the_413_at_once() -> None:
    async with serving("[server]\nmax_body = 2048") as served:
        async with connection(served.port) as client:
            await client.send("POST", "/llm/message", b"", {"Expect": "100-continue", "Content-Length": "5000"})
            assert (await within(client.response())).status == 413


@pytest.mark.parametrize(
    "flood",
    [
        {f"x-{number}": "y" for number in range(250)},
        {"x-long": "y" * 70_000},
        {f"x-{number}": "y" * 1000 for number in range(80)},
    ],
)
@pytest.mark.parametrize("path", SURFACES)
async def test_header_flood_is_431(flood: dict[str, str], path: str) -> None:
    async with serving() as served:
        response = await within(ask(served.port, "POST", path, QUESTION, flood))
    assert (response.status, code_of(path, response.json())) == (431, "headers_too_large")


async def test_endless_header_is_431_before_it_ends() -> None:
    async with serving() as served:
        async with connection(served.port) as client:
            client.writer.write(b"POST /llm/message HTTP/1.1\r\nHost: localhost\r\nx-endless: ")
            status = None
            for _ in range(100):
                client.writer.write(b"y" * 4096)
                await asyncio.sleep(0)
            status, _ = await within(client.head())
    assert status == 431


async def test_bytes_that_are_no_http_get_a_json_400() -> None:
    async with serving() as served:
        async with connection(served.port) as client:
            client.writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            response = await within(client.response())
    assert (response.status, response.json()["error_code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/llm/message", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("PATCH", "/chat/stream/x", 405),
        ("DELETE", "/chat/stream/x/resume", 405),
        ("POST", "/health", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1/models/nobody/nothing", 404),
        ("GET", "/chat/stream/x/elsewhere", 404),
        ("GET", "/chat/stream/x", 404),
    ],
)
async def test_wrong_method_and_wrong_path_are_json_in_the_surfaces_shape(method: str, path: str, status: int) -> None:
    async with serving() as served:
        response = await ask(served.port, method, path)
    assert response.status == status
    assert response.headers["content-type"] == "application/json"
    assert ("error_code" in response.json()) != path.startswith("/v1")


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", None),
        (b"\xff\xfe{}", None),
        (b"[]", None),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": "warm"}, "temperature"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "stream"),
        ({"model": 7, "messages": [{"role": "user", "content": "x"}]}, "model"),
    ],
)
async def test_bad_body_is_400_and_names_its_field(path: str, body: Any, field: str | None) -> None:
    async with serving() as served:
        response = await ask(served.port, "POST", path, body)
    told = response.json()
    assert (response.status, code_of(path, told)) == (400, "invalid_request")
    assert (told["error"]["param"] if path.startswith("/v1") else told.get("field")) == field


@pytest.mark.parametrize("path", SURFACES)
async def test_json_nested_without_end_is_400(path: str) -> None:
    async with serving() as served:
        response = await ask(served.port, "POST", path, b"[" * 100_000)
    assert (response.status, code_of(path, response.json())) == (400, "invalid_request")


async def test_offer_to_speak_http2_is_ignored(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
        response = await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES}, offer)
    assert response.status == 200


async def test_rubbish_behind_a_request_does_not_break_into_its_answer(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b", gate=gate)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            body = b'{"model":"up/m","stream":true,"messages":[{"role":"user","content":"x"}]}'
            await client.send("POST", "/llm/message", body)
            await client.head()
            await within(client.until(b'"a "'))
            client.writer.write(b"BAD BAD\r\n\r\n")
            for _ in range(5):
                gate.release()
            assert b"HTTP/1.1 4" not in await within(client.until(b'"type":"complete"'))


async def test_connection_is_kept_for_the_next_request(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            for path, body in [
                ("/llm/message", b"{"),
                ("/llm/message", b'{"model":"up/m","messages":[{"role":"user","content":"x"}]}'),
            ] * 2:
                await client.send("POST", path, body)
                response = await within(client.response())
            assert response.status == 200
