"""Health, metrics, discovery, and what protects the server from slow clients."""

import asyncio
import contextlib
import socket
from math import inf
from pathlib import Path

import msgspec
import pytest
import uvicorn

from cauce.server.app import Application
from cauce.server.door import Connections
from cauce.server.protocol import BoundedProtocol
from cauce.server.run import listen
from cauce.testing.local_servers import local_server
from cauce.testing.upstream import Reply, Upstream
from tests.disk import files_no_larger_than
from tests.files import no_more_files
from tests.http import Connection, Response, ask, connection, within
from tests.serving import BREAKS, MESSAGES, ONE_TRY, Served, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio


async def test_health_tells_each_provider_without_calling_it(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url, default_model="m")) as served:
        health = await ask(served.port, "GET", "/health")
    assert (health.status, health.json()["status"]) == (200, "healthy")
    assert health.json()["providers"]["up"]["status"] == "unknown"
    assert {"version", "uptime"} <= health.json().keys()
    assert upstream.requests == []


async def test_health_is_degraded_while_a_provider_is_down_and_recovers_with_it(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "oops"}), Reply()]
    async with serving(upstream_table("up", upstream.base_url), ONE_TRY) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        await ask(served.port, "POST", "/llm/message", body)
        down = (await ask(served.port, "GET", "/health")).json()
        await ask(served.port, "POST", "/llm/message", body)
        up = (await ask(served.port, "GET", "/health")).json()
    assert (down["status"], down["providers"]["up"]["last_error"]) == ("degraded", "provider_error")
    assert (up["status"], up["providers"]["up"]["status"]) == ("healthy", "up")


async def test_health_takes_no_clients_tiny_timeout_for_a_provider_that_is_down(upstream: Upstream) -> None:
    upstream.answers = [Reply(), Reply(silent=True)]
    async with serving(upstream_table("up", upstream.base_url), ONE_TRY) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        await ask(served.port, "POST", "/llm/message", body)
        hurried = await within(ask(served.port, "POST", "/llm/message", {**body, "timeout": 0.1}))
        health = (await ask(served.port, "GET", "/health")).json()
    assert hurried.status == 504
    assert (health["status"], health["providers"]["up"]["status"]) == ("healthy", "up")


@pytest.mark.parametrize("surface", SURFACES, ids=[surface.name for surface in SURFACES])
async def test_refused_provider_key_is_told_as_what_it_is_and_shown_to_nobody(
    upstream: Upstream, surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-a-secret-of-ours-123"
    echo = {"message": f"Incorrect API key provided: {key}.", "type": "authentication_error"}
    upstream.answers = [Reply(status=401, error=echo)]
    provider = surface.provider.format(root=upstream.root)
    async with serving(f'[providers.acme]\n{provider}api_key = "{key}"\n') as served:
        got = [await within(surface.asked(served.port, "acme/m", stream=stream)) for stream in (False, True)]
        health = await ask(served.port, "GET", "/health")
    advice = "acme refused the key that Cauce has for it: check api_key of [providers.acme]"
    for outcome in got:
        assert advice in outcome.message
    assert health.json()["providers"]["acme"]["last_error"] == "auth"
    assert [one.levelname for one in caplog.records if one.getMessage().startswith(advice)] == ["WARNING"]
    assert key not in caplog.text + str(got) + health.body.decode()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_key_that_a_provider_repeats_inside_of_an_answer_is_shown_to_nobody(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    upstream.answers = [Reply(error={"message": "Authorization: Bearer upstream-key", "code": "boom"}, error_after=2)]
    async with serving(upstream_table("up", upstream.base_url), {**ONE_TRY, **BREAKS}) as served:
        got = await within(SURFACES[0].asked(served.port, "up/m", stream=stream))
    if stream:
        assert "Bearer …" in got.message
    assert "upstream-key" not in caplog.text + str(got)


async def test_health_tells_when_the_disk_takes_no_entries_of_the_ledger(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream_table("up", upstream.base_url), data=tmp_path) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        with files_no_larger_than(0):
            assert (await ask(served.port, "POST", "/llm/message", body)).status == 200
            full = (await ask(served.port, "GET", "/health")).json()
            figures = (await ask(served.port, "GET", "/metrics")).body
        assert (await ask(served.port, "POST", "/llm/message", body)).status == 200
        room = (await ask(served.port, "GET", "/health")).json()
    assert full["status"] == "degraded" and "the disk takes none: 1;" in full["ledger"]
    assert b"cauce_ledger_waiting 1.0" in figures and b"cauce_ledger_lost_total 0.0" in figures
    assert "in memory only" not in room.get("ledger", "")


async def test_figures_tell_of_streams_and_their_log(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(), Reply(text="a b", cut_after=1), Reply(silent=True)]
    toml = upstream_table("up", upstream.base_url) + '[models.m]\ncandidates = ["up/m"]\nmidstream = "fail"\n'
    async with serving(toml, ONE_TRY, data=tmp_path) as served:
        body = {"model": "m", "messages": MESSAGES}
        for name in ("whole", "cut"):
            await within(ask(served.port, "POST", f"/chat/stream/{name}", body))
        async with connection(served.port) as client:
            await client.send("POST", "/chat/stream/open", msgspec.json.encode(body))
            await client.head()
            figures = (await ask(served.port, "GET", "/metrics")).body.decode()
        await ask(served.port, "DELETE", "/chat/stream/open")
        later = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert "cauce_stream_log_up 1.0" in figures and "cauce_streams_open 1.0" in figures
    for outcome, count in (("completed", 1), ("incomplete", 1), ("failed", 0), ("cancelled", 0)):
        assert f'cauce_streams_ended_total{{outcome="{outcome}"}} {count}.0' in figures
    assert "cauce_streams_taken_over_total 0.0" in figures
    assert "cauce_streams_open 0.0" in later and 'cauce_streams_ended_total{outcome="cancelled"} 1.0' in later


@pytest.mark.parametrize("stream", [False, True])
async def test_error_tells_how_often_a_provider_was_asked(upstream: Upstream, stream: bool) -> None:
    upstream.answers = [Reply(status=500, error={"message": "oops"}), Reply(status=500, error={"message": "oops"})]
    twice = {"CAUCE_RETRY__ATTEMPTS": "2", "CAUCE_RETRY__BASE": "0"}
    async with serving(upstream_table("up", upstream.base_url), twice) as served:
        body = {"model": "up/m", "messages": MESSAGES, "stream": stream}
        failed = await ask(served.port, "POST", "/v1/chat/completions", body)
    assert (failed.status, failed.headers["x-cauce-attempts"]) == (502, "2")


async def test_probe_asks_for_one_token(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        probe = (await ask(served.port, "GET", "/health?probe=up/m")).json()["probe"]
        unknown = (await ask(served.port, "GET", "/health?probe=nope")).json()["probe"]
    assert probe["ok"] and upstream.requests[0]["max_tokens"] == 1
    assert not unknown["ok"] and "does not exist here" in unknown["error"]


async def test_each_probe_asks_the_provider_where_its_answers_are_kept(upstream: Upstream) -> None:
    kept = {"DEFAULT_TEMPERATURE": "0"}
    async with serving(upstream_table("up", upstream.base_url), kept) as served:
        for number in (1, 2):
            probe = (await ask(served.port, "GET", "/health?probe=up/m")).json()["probe"]
            assert probe["ok"] and len(upstream.requests) == number


async def test_live_and_ready_answer(upstream: Upstream) -> None:
    async with serving() as served:
        assert (await ask(served.port, "GET", "/health/live")).json() == {"status": "alive"}
        assert (await ask(served.port, "GET", "/health/ready")).json() == {"status": "ready"}


async def test_metrics_count_attempts_tokens_and_times(upstream: Upstream) -> None:
    upstream.answers = [Reply(), Reply(status=500, error={"message": "oops"})]
    async with serving(upstream_table("up", upstream.base_url), ONE_TRY) as served:
        for _ in range(2):
            await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES})
        text = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert 'cauce_attempts_total{model="m",outcome="completed",provider="up"} 1.0' in text
    assert 'cauce_attempts_total{model="m",outcome="failed",provider="up"} 1.0' in text
    assert 'cauce_tokens_total{kind="input",model="m",provider="up"} 7.0' in text
    assert 'cauce_first_delta_seconds_count{model="m",provider="up"} 1.0' in text


async def listed(served: Served, name: str, there: bool) -> None:
    """Return once `name` is (or is no longer) among the models."""
    while True:
        models = (await ask(served.port, "GET", "/v1/models")).json()["data"]
        if (name in [model["id"] for model in models]) == there:
            return
        await asyncio.sleep(0)


async def test_models_of_a_local_server_come_answer_in_auto_and_go_with_it() -> None:
    elsewhere = ("foundry", "foundry-v1", "lmstudio", "llamacpp", "vllm", "openai-compatible")
    async with contextlib.AsyncExitStack() as running:
        local = await running.enter_async_context(local_server("ollama", models=("llama3.2:3b",)))
        ports = ", ".join([f"ollama = [{local.port}]", *[f"{kind} = []" for kind in elsewhere]])
        toml = f"[discovery]\ninterval = 0.05\nports = {{ {ports} }}"
        async with serving(toml, {"CAUCE_DISCOVERY__ENABLED": "true"}) as served:
            await within(listed(served, "ollama/llama3.2:3b", there=True))
            answer = (await ask(served.port, "POST", "/llm/message", {"messages": MESSAGES})).json()
            assert answer["model"] == "ollama/llama3.2:3b"
            await running.aclose()
            await within(listed(served, "ollama/llama3.2:3b", there=False))
            answer = (await ask(served.port, "POST", "/llm/message", {"messages": MESSAGES})).json()
            assert answer["model"] == "offline"


async def test_llama_cpp_server_that_was_found_is_asked_whether_it_keeps_streams() -> None:
    elsewhere = ("foundry", "foundry-v1", "lmstudio", "ollama", "vllm", "openai-compatible")
    async with local_server("llamacpp", models=("m.gguf",)) as local:
        ports = ", ".join([f"llamacpp = [{local.port}]", *[f"{kind} = []" for kind in elsewhere]])
        toml = f"[discovery]\ninterval = 0.05\nports = {{ {ports} }}"
        async with serving(toml, {"CAUCE_DISCOVERY__ENABLED": "true"}) as served:
            await within(listed(served, "llamacpp/m.gguf", there=True))
            body = {"model": "llamacpp/m.gguf", "messages": MESSAGES, "stream": True}
            told = (await ask(served.port, "POST", "/llm/message", body)).frames()[-1]
    # One of an older version, which does not know the question.
    assert (told["type"], told["data"]) == ("complete", "This is m.gguf on llamacpp.")
    asked = [line for line in local.requests if line.startswith(("DELETE", "POST"))]
    assert asked[0].startswith("DELETE /v1/stream?conv_id=cauce_") and asked[1:] == ["POST /v1/chat/completions"]


def test_localhost_listens_on_both_loopback_addresses_where_there_are_two() -> None:
    sockets = listen("localhost", 0)
    try:
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert [one.family for one in sockets][1:] in ([], [socket.AF_INET6])
    finally:
        for one in sockets:
            one.close()


class Impatient(BoundedProtocol):
    head_deadline = 0.05
    body_deadline = 0.05


HALF_A_BODY = b"POST /llm/message HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"POST /llm/message HTTP/1.1\r\nHost: localh", 408), (HALF_A_BODY, 408), (b"", None)],
)
async def test_client_that_is_slow_to_send_is_let_go(sent: bytes, status: int | None) -> None:
    async with serving() as served:
        server = uvicorn.Server(
            uvicorn.Config(
                Application(served.runtime.services), http=Impatient, lifespan="off", log_config=None, ws="none"
            )
        )
        server.server_state.connections = Connections(inf)
        sockets = listen("127.0.0.1", 0)
        task = asyncio.create_task(server._serve(sockets))
        async with connection(sockets[0].getsockname()[1]) as client:
            client.writer.write(sent)
            answer = await within(client.reader.read())
        assert (int(answer.split(b" ")[1]) if answer else None) == status
        server.should_exit = True
        await task


async def test_slow_reader_does_not_stop_the_stream_nor_other_readers(upstream: Upstream) -> None:
    upstream.answers = [Reply(text=" ".join(["x" * 2000] * 400))]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as slow:
            await slow.send("POST", "/chat/stream/s", msgspec.json.encode({"model": "up/m", "messages": MESSAGES}))
            whole = await within(ask(served.port, "GET", "/chat/stream/s/resume?after=0"), 10)
            assert whole.frames()[-1]["type"] == "complete"
            assert (await within(slow.response(), 10)).body == whole.body


async def test_server_that_may_open_no_more_files_blames_no_provider() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    cold = {"CAUCE_SERVER__WARM": "false", **ONE_TRY}
    async with listening, serving(upstream_table("up", address), cold) as served, connection(served.port) as client:

        async def answer() -> Response:
            await client.send("POST", "/llm/message", msgspec.json.encode({"model": "up/m", "messages": MESSAGES}))
            return await within(client.response())

        with no_more_files():
            refused = [await answer() for _ in range(8)]
            health = (await ask_over(client, "/health")).json()
        after = await answer()
    assert {(one.status, one.json()["error_code"], one.headers["retry-after"]) for one in refused} == {
        (503, "overloaded", "1")
    }
    assert health["status"] == "healthy" and health["providers"]["up"]["status"] != "down"
    assert after.status == 200 and after.headers["x-cauce-model"] == "up/m"


async def ask_over(client: Connection, path: str) -> Response:
    await client.send("GET", path)
    return await within(client.response())


async def test_every_answer_has_a_date(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        for path, asked in (("/v1/chat/completions", body), ("/v1/chat/completions", {**body, "stream": True})):
            response = await ask(served.port, "POST", path, asked)
            assert response.headers["date"].endswith(" GMT")
        assert "date" in (await ask(served.port, "GET", "/health")).headers


async def test_provider_without_a_default_model_that_was_down_at_the_start_is_in_auto_soon_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[int] = []
    listed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(1)
            status, body = (503, b"{}") if len(asked) == 1 else (200, b'{"data": [{"id": "late"}]}')
            head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            if status == 200:
                listed.set()
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with listening, serving(upstream_table("up", address)) as served:
        body = {"model": "auto", "messages": MESSAGES}
        before = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
        await within(listed.wait())
        while served.runtime.router.names()[1] != "up/late":
            await asyncio.sleep(0)
        after = (await ask(served.port, "POST", "/admin/route/explain", body)).json()
    assert [(one["name"], one["reason"]) for one in before["left_out"]] == [("up", "unlisted")]
    assert after["candidates"][0]["name"] == "up/late" and not after.get("left_out")
    [warning] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith("up has no default_model, and its models could not be listed, so auto does not ask it")
