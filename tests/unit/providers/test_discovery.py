"""Discovery of local model servers, against real fakes of each kind."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.chat import ChatCompletionMessageParam

from cauce.ports.clock import Clock
from cauce.ports.provider import ModelInfo
from cauce.providers.discovery import Discovery, Found, Settings
from cauce.providers.discovery.addresses import LOOPBACK, Address, addresses, is_own
from cauce.providers.discovery.kinds import KINDS
from cauce.testing.clock import FakeClock
from cauce.testing.local_servers import LocalServer, local_server
from cauce.transport import HTTPTransport

pytestmark = pytest.mark.anyio

MODELS = ("llama3.2:3b", "qwen3:8b")
LOADED = ("qwen3:8b",)


@pytest.fixture
async def transport() -> AsyncGenerator[HTTPTransport, None]:
    transport = HTTPTransport("discovery")
    yield transport
    await transport.aclose()


def looking(
    ports: Mapping[str, Sequence[int]],
    *,
    environment: Mapping[str, str | None] | None = None,
    own: Sequence[tuple[str, int]] = (),
    foundry: str | None = None,
    patience: float = 20,
    probe: float = 2,
) -> Settings:
    """Settings that look nowhere but at `ports` and where `environment` and the command `foundry` say, with time for a busy machine."""
    return Settings(environment or {}, {**{kind.id: () for kind in KINDS}, **ports}, own, foundry, patience, probe)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6_loopback(), reason="there is no ::1 here")
needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="the fake command is a shell script")


@contextlib.asynccontextmanager
async def silent_server() -> AsyncGenerator[tuple[int, asyncio.Event], None]:
    """A server that accepts and never answers: its port, and an event set once somebody has asked it."""
    asked = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


@contextlib.asynccontextmanager
async def answering(head: str) -> AsyncGenerator[int, None]:
    """A server that answers everything with `head` and a list of vLLM's models: its port."""
    body = b'{"object":"list","data":[{"id":"a","owned_by":"vllm"}]}'

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("fake", "kind", "name", "label", "models"),
    [
        ("foundry", "foundry", "foundry", "Foundry Local", [(None, False), (None, True)]),
        ("foundry-v1", "foundry-v1", "foundry", "Foundry Local", [(None, False), (None, True)]),
        ("ollama", "ollama", "ollama", "Ollama", [(None, False), (8192, True)]),
        ("lmstudio", "lmstudio", "lmstudio", "LM Studio", [(8192, False), (4096, True)]),
        ("lmstudio-v0", "lmstudio", "lmstudio", "LM Studio", [(8192, False), (8192, True)]),
        ("llamacpp", "llamacpp", "llamacpp", "llama.cpp", [(8192, True), (8192, True)]),
        ("vllm", "vllm", "vllm", "vLLM", [(8192, True), (8192, True)]),
    ],
)
async def test_each_kind_is_found_with_its_models_and_which_of_them_are_loaded(
    transport: HTTPTransport, fake: str, kind: str, name: str, label: str, models: list[tuple[int | None, bool]]
) -> None:
    async with local_server(fake, MODELS, LOADED) as server:
        found = await Discovery(transport, looking({kind: [server.port]})).scan()
    expected = tuple([ModelInfo(id, window, loaded) for id, (window, loaded) in zip(MODELS, models, strict=True)])
    assert found == (Found(name, label, server.base_url, expected),)


async def test_server_of_no_known_kind_is_named_after_its_port(transport: HTTPTransport) -> None:
    async with local_server("openai-compatible", MODELS) as server:
        (found,) = await Discovery(transport, looking({"llamacpp": [server.port]})).scan()
    assert (found.name, found.label) == (f"local-{server.port}", "OpenAI-compatible server")
    assert found.models == (ModelInfo("llama3.2:3b"), ModelInfo("qwen3:8b"))


@pytest.mark.parametrize(("fake", "port_of"), [("vllm", "llamacpp"), ("llamacpp", "vllm")])
async def test_server_on_the_usual_port_of_another_kind_is_known_by_what_it_answers(
    transport: HTTPTransport, fake: str, port_of: str
) -> None:
    async with local_server(fake, MODELS[:1]) as server:
        (found,) = await Discovery(transport, looking({port_of: [server.port]})).scan()
    assert found.name == fake
    assert found.models == (ModelInfo(MODELS[0], 8192, loaded=True),)


async def test_servers_of_one_kind_on_two_ports_have_two_names(transport: HTTPTransport) -> None:
    async with local_server("ollama") as first, local_server("ollama") as second:
        found = await Discovery(transport, looking({"ollama": [first.port, second.port]})).scan()
    assert [server.name for server in found] == ["ollama", f"ollama-{second.port}"]


async def test_server_keeps_its_name_when_the_one_before_it_goes(transport: HTTPTransport) -> None:
    async with local_server("ollama") as second:
        async with local_server("ollama") as first:
            discovery = Discovery(transport, looking({"ollama": [first.port, second.port]}))
            await discovery.scan()
        found = await discovery.scan()
    assert [server.name for server in found] == [f"ollama-{second.port}"]


@needs_ipv6
async def test_server_seen_at_both_loopback_addresses_counts_once(transport: HTTPTransport) -> None:
    async with (
        local_server("ollama") as server,
        local_server("ollama", at=("::1", server.port)) as other,
    ):
        found = await Discovery(transport, looking({"ollama": [server.port]})).scan()
        assert other.requests, "both addresses were asked"
    assert [(server.name, server.base_url) for server in found] == [("ollama", server.base_url)]


@needs_ipv6
async def test_port_that_shows_two_kinds_is_the_more_telling_one(transport: HTTPTransport) -> None:
    async with (
        local_server("openai-compatible") as server,
        local_server("ollama", at=("::1", server.port)),
    ):
        found = await Discovery(transport, looking({"ollama": [server.port]})).scan()
    assert [server.name for server in found] == ["ollama"]


@needs_ipv6
async def test_server_that_listens_on_the_ipv6_loopback_alone_is_found_there(transport: HTTPTransport) -> None:
    async with local_server("lmstudio", at=("::1", 0)) as server:
        (found,) = await Discovery(transport, looking({"lmstudio": [server.port]})).scan()
    assert found.base_url == f"http://[::1]:{server.port}/v1"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:{}", ":{}", "http://localhost:{}/", "0.0.0.0:{}", " 'LOCALHOST:{}' "])
async def test_ollama_is_found_where_its_variable_says(transport: HTTPTransport, endpoint: str) -> None:
    async with local_server("ollama") as server:
        settings = looking({}, environment={"OLLAMA_HOST": endpoint.format(server.port)})
        (found,) = await Discovery(transport, settings).scan()
    assert (found.name, found.base_url) == ("ollama", server.base_url)


@pytest.mark.parametrize("generation", ["foundry", "foundry-v1"])
async def test_foundry_is_found_where_its_variable_says(transport: HTTPTransport, generation: str) -> None:
    async with local_server(generation) as server:
        settings = looking({}, environment={"FOUNDRY_LOCAL_ENDPOINT": server.base_url, "OLLAMA_HOST": None})
        (found,) = await Discovery(transport, settings).scan()
    assert (found.name, found.base_url) == ("foundry", server.base_url)


@needs_shell
@pytest.mark.parametrize("generation", ["foundry", "foundry-v1"])
async def test_foundry_is_found_where_its_command_says(
    transport: HTTPTransport, tmp_path: Path, generation: str
) -> None:
    async with local_server(generation) as server:
        log = tmp_path / "asked"
        said = f"Model management service is running on http://127.0.0.1:{server.port}/openai/status"
        command = executable(tmp_path / "foundry", f'echo "$@" >> {log}\necho "{said}"')
        (found,) = await Discovery(transport, looking({}, foundry=command)).scan()
    assert (found.name, found.base_url) == ("foundry", server.base_url)
    assert log.read_text() == "service status\n"


@needs_shell
@pytest.mark.parametrize(
    "script",
    ["echo 'Model management service is not running!'", "exit 3", "printf '\\377\\376'"],
)
async def test_command_that_tells_no_local_address_does_not_hinder_the_rest(
    transport: HTTPTransport, tmp_path: Path, script: str
) -> None:
    command = executable(tmp_path / "foundry", script)
    async with local_server("ollama") as server:
        found = await Discovery(transport, looking({"ollama": [server.port]}, foundry=command)).scan()
    assert [server.name for server in found] == ["ollama"]


async def test_loaded_models_of_foundry_may_come_as_objects_and_unlisted(transport: HTTPTransport) -> None:
    pages = {
        "/openai/models": [{"name": "phi-4"}, {"modelId": "qwen"}, "mistral"],
        "/openai/loadedmodels": [{"id": "qwen"}, {"name": "extra"}],
    }
    async with local_server("foundry-v1", pages=pages) as server:
        (found,) = await Discovery(transport, looking({"foundry-v1": [server.port]})).scan()
    flags = {model.id: model.loaded for model in found.models}
    assert flags == {"phi-4": False, "qwen": True, "mistral": False, "extra": True}


async def test_llama_cpp_that_serves_several_models_tells_which_are_loaded(transport: HTTPTransport) -> None:
    entries = [
        {"id": "a", "owned_by": "llamacpp", "status": {"value": "loaded"}},
        {"id": "b", "owned_by": "llamacpp", "status": {"value": "unloaded"}},
    ]
    pages = {"/v1/models": {"data": entries}, "/props": {"default_generation_settings": {"n_ctx": 0}}}
    async with local_server("llamacpp", pages=pages) as server:
        (found,) = await Discovery(transport, looking({"llamacpp": [server.port]})).scan()
    assert found.models == (ModelInfo("a", None, loaded=True), ModelInfo("b", None, loaded=False))


async def test_server_that_does_not_tell_what_is_loaded_is_found_without_flags(transport: HTTPTransport) -> None:
    async with local_server("ollama", pages={"/api/ps": b"busy"}) as server:
        (found,) = await Discovery(transport, looking({"ollama": [server.port]})).scan()
    assert found.models == (ModelInfo("llama3.2:3b"),)


async def test_server_that_never_answers_does_not_keep_the_others_waiting(transport: HTTPTransport) -> None:
    async with silent_server() as (port, asked), local_server("ollama") as server:
        settings = looking({"vllm": [port], "lmstudio": [port], "ollama": [server.port]})
        async with asyncio.timeout(30):
            found = await Discovery(transport, settings).scan()
        assert asked.is_set()
    assert [server.name for server in found] == ["ollama"]


async def test_page_that_is_never_answered_does_not_hide_a_server_that_shows_another_sign(
    transport: HTTPTransport,
) -> None:
    async with local_server("ollama", pages={"/": None, "/api/ps": None}) as server:
        async with asyncio.timeout(30):
            (found,) = await Discovery(transport, looking({"ollama": [server.port]})).scan()
    assert (found.name, found.models) == ("ollama", (ModelInfo("llama3.2:3b"),))


DEEP = b'{"x":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        ("ollama", {"/api/tags": b"{"}),
        ("ollama", {"/api/tags": {"models": [{"size": 3}]}}),
        ("ollama", {"/api/tags": {"models": [{"name": ""}]}}),
        ("ollama", {"/api/tags": None}),
        ("foundry", {"/v1/models": {"data": {}}}),
        ("foundry", {"/status": {"modelCachePath": 3, "endpoints": []}, "/v1/models": b"<html>"}),
        ("foundry-v1", {"/openai/models": [{"alias": "phi"}]}),
        ("lmstudio", {"/api/v1/models": DEEP, "/v1/models": DEEP}),
        ("llamacpp", {"/props": b"\xff\xfe", "/v1/models": b'{"data": "\xff"}'}),
        ("llamacpp", {"/v1/models": {"data": [{"id": "a", "owned_by": "somebody"}]}}),
        ("vllm", {"/v1/models": [{"id": "a"}]}),
        ("openai-compatible", {"/v1/models": {"data": [], "padding": "x" * 4 * 1024 * 1024}}),
    ],
)
async def test_server_whose_answers_are_malformed_is_skipped(
    transport: HTTPTransport, caplog: pytest.LogCaptureFixture, kind: str, pages: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG, "cauce")
    async with local_server(kind, pages=pages) as broken, local_server("vllm") as whole:
        found = await Discovery(transport, looking({kind: [broken.port], "vllm": [broken.port, whole.port]})).scan()
    assert [server.base_url for server in found] == [whole.base_url]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert f":{broken.port}" in caplog.text


async def test_list_of_models_may_be_larger_than_other_answers(transport: HTTPTransport) -> None:
    padding = " " * (2 * 1024 * 1024)
    listed = {"data": [{"id": "a", "owned_by": "someone", "description": padding}]}
    async with local_server("openai-compatible", pages={"/v1/models": listed}) as server:
        (found,) = await Discovery(transport, looking({"openai-compatible": [server.port]})).scan()
    assert found.models == (ModelInfo("a"),)


@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "FOUNDRY_LOCAL_ENDPOINT"])
@pytest.mark.parametrize(
    "endpoint", ["http://192.0.2.7:11434", "example.com", "[2001:db8::1]:11434", "ftp://127.0.0.1", "127.0.0.1:x"]
)
async def test_endpoint_that_is_not_local_is_ignored_with_one_warning(
    transport: HTTPTransport, caplog: pytest.LogCaptureFixture, endpoint: str, variable: str
) -> None:
    caplog.set_level(logging.DEBUG, "cauce")
    discovery = Discovery(transport, looking({}, environment={variable: endpoint}))
    assert await discovery.scan() == ()
    assert await discovery.scan() == ()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert variable in record.getMessage()


@needs_shell
async def test_command_that_names_another_machine_is_warned_about_once(
    transport: HTTPTransport, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    command = executable(tmp_path / "foundry", "echo http://192.0.2.7:5273/")
    discovery = Discovery(transport, looking({}, foundry=command))
    assert await discovery.scan() == ()
    assert await discovery.scan() == ()
    assert len(caplog.records) == 1


async def test_warning_about_an_endpoint_does_not_repeat_its_password(
    transport: HTTPTransport, caplog: pytest.LogCaptureFixture
) -> None:
    for endpoint in ("http://me:secret@example.com", "http://me:secret@[::1", "http://me:secret@localhost:x"):
        Discovery(transport, looking({}, environment={"OLLAMA_HOST": endpoint}))
    assert len(caplog.records) == 3
    assert "secret" not in caplog.text


async def test_nobody_there_is_not_worth_a_word(transport: HTTPTransport, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "cauce")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert await Discovery(transport, looking({"ollama": [port], "vllm": [port]})).scan() == ()
    assert caplog.records == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::", "a-name-for-this-machine"])
async def test_our_own_address_is_never_asked(transport: HTTPTransport, host: str) -> None:
    async with local_server("vllm") as ourselves, local_server("vllm") as other:
        settings = looking(
            {"vllm": [ourselves.port, other.port]},
            own=[(host, ourselves.port)],
            environment={"OLLAMA_HOST": f"http://127.0.0.1:{ourselves.port}"},
        )
        found = await Discovery(transport, settings).scan()
        assert ourselves.requests == []
    assert [server.base_url for server in found] == [other.base_url]


@pytest.mark.parametrize(
    "head",
    [
        "401 Unauthorized",
        "503 Service Unavailable",
        "302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/v1/models",
        # Two Cauces that took each other for model servers would ask in circles.
        "200 OK\r\nX-Cauce-Request-Id: r1",
    ],
)
async def test_refusals_and_redirects_and_another_cauce_are_no_model_servers(
    transport: HTTPTransport, head: str
) -> None:
    async with local_server("vllm") as elsewhere:
        async with answering(head.format(elsewhere=elsewhere.port)) as port:
            assert await Discovery(transport, looking({"vllm": [port]})).scan() == ()
        assert elsewhere.requests == []


class Changes:
    """What `watch` reports, as it comes."""

    def __init__(self) -> None:
        self.reports: list[tuple[tuple[Found, ...], tuple[str, ...]]] = []

    def __call__(self, found: tuple[Found, ...], gone: tuple[str, ...]) -> None:
        self.reports.append((found, gone))


@contextlib.asynccontextmanager
async def watching(discovery: Discovery, changes: Changes, clock: FakeClock) -> AsyncGenerator[None, None]:
    """`discovery.watch` at an interval of 30 s, its first scan done."""
    port: Clock = clock
    task = asyncio.create_task(discovery.watch(30, changes, port))
    try:
        async with asyncio.timeout(30):
            await clock.until_waiting()
            yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_scan(clock: FakeClock) -> None:
    clock.advance(30)
    await clock.until_waiting()


async def test_server_that_goes_away_and_comes_back_is_reported_both_times(transport: HTTPTransport) -> None:
    changes, clock = Changes(), FakeClock()
    async with contextlib.AsyncExitStack() as stack:
        server: LocalServer = await stack.enter_async_context(local_server("ollama"))
        discovery = Discovery(transport, looking({"ollama": [server.port]}))
        async with watching(discovery, changes, clock):
            await next_scan(clock)
            assert [([one.name for one in found], gone) for found, gone in changes.reports] == [(["ollama"], ())]
            await stack.aclose()
            await next_scan(clock)
            assert changes.reports[1:] == [((), ("ollama",))]
            async with local_server("ollama", at=("127.0.0.1", server.port)):
                await next_scan(clock)
            assert changes.reports[2:] == [changes.reports[0]]


async def test_first_scan_is_reported_even_when_nothing_is_there(transport: HTTPTransport) -> None:
    changes, clock = Changes(), FakeClock()
    async with watching(Discovery(transport, looking({})), changes, clock):
        await next_scan(clock)
    assert changes.reports == [((), ())]


async def test_model_that_gets_loaded_is_reported_as_a_change_of_its_server(transport: HTTPTransport) -> None:
    changes, clock = Changes(), FakeClock()
    async with local_server("foundry", MODELS) as server:
        discovery = Discovery(transport, looking({"foundry": [server.port]}))
        async with watching(discovery, changes, clock):
            server.pages["/models/loaded"] = list(LOADED)
            await next_scan(clock)
    ((first,), _), ((second,), gone) = changes.reports
    assert [model.loaded for model in first.models] == [False, False]
    assert [model.loaded for model in second.models] == [False, True]
    assert gone == ()


async def test_watch_scans_only_when_its_interval_has_passed(transport: HTTPTransport) -> None:
    changes, clock = Changes(), FakeClock()
    async with local_server("vllm") as server:
        async with watching(Discovery(transport, looking({"vllm": [server.port]})), changes, clock):
            asked = len(server.requests)
            clock.advance(29)
            assert clock.waiting == 1, "it sleeps on"
            clock.advance(1)
            assert clock.waiting == 0
            await clock.until_waiting()
            assert len(server.requests) == 2 * asked


async def test_model_that_was_found_can_be_asked_plainly_and_streamed(transport: HTTPTransport) -> None:
    async with local_server("llamacpp", MODELS) as server:
        (found,) = await Discovery(transport, looking({"llamacpp": [server.port]})).scan()
        async with AsyncOpenAI(base_url=found.base_url, api_key="any", max_retries=0) as client:
            model = found.models[1].id
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]
            plain = await client.chat.completions.create(model=model, messages=messages)
            stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
            streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            with pytest.raises(NotFoundError, match="not found"):
                await client.chat.completions.create(model="unknown", messages=messages)
    assert plain.choices[0].message.content == streamed == "This is qwen3:8b on llamacpp."


@pytest.mark.parametrize(
    ("endpoint", "hosts", "port", "scheme"),
    [
        ("127.0.0.1", ("127.0.0.1",), 11434, "http"),
        ("127.0.0.2:9", ("127.0.0.2",), 9, "http"),
        ("localhost", LOOPBACK, 11434, "http"),
        (":9", LOOPBACK, 9, "http"),
        ("::1", ("::1",), 11434, "http"),
        ("[::1]", ("::1",), 11434, "http"),
        ("[::1]:9", ("::1",), 9, "http"),
        ("::", LOOPBACK, 11434, "http"),
        ("0.0.0.0", LOOPBACK, 11434, "http"),
        ("http://127.0.0.1", ("127.0.0.1",), 80, "http"),
        ("https://127.0.0.1/v1", ("127.0.0.1",), 443, "https"),
        ("https://[::1]:9/v1?x=1", ("::1",), 9, "https"),
    ],
)
def test_endpoints_are_read_as_people_write_them(endpoint: str, hosts: tuple[str, ...], port: int, scheme: str) -> None:
    assert addresses(endpoint, 11434) == tuple([Address(host, port, scheme) for host in hosts])


def test_address_on_the_other_loopback_is_not_our_own() -> None:
    assert is_own(Address("127.0.0.1", 8000), [("127.0.0.1", 8000)])
    assert not is_own(Address("::1", 8000), [("127.0.0.1", 8000)])
    assert not is_own(Address("127.0.0.1", 8001), [("127.0.0.1", 8000)])


def executable(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
