"""The chat of the AI SDK, as `useChat` has it, against a server process: three major versions of it, unchanged."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cauce.domain.citation import Citation
from cauce.domain.delta import (
    Attempt,
    Delta,
    Finish,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage
from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from cauce.wire.ui_messages.render import UIProjector
from tests.clients.node import HERE, RUN_SECONDS, Node, Script, script
from tests.clients.process import ONCE, Cauce, Proxy, cauce, in_front_of
from tests.http import within
from tests.unit.wire.ui_reader import Reader

pytestmark = pytest.mark.anyio

VERSIONS = ("ai-5", "ai-6", "ai")
"""Names that the packages are installed under; the last is version 7."""

CALL = Reply(text="I look. ", tool_calls=(("weather", '{"city": "Sevilla"}'),))
KEYED = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def server(node: Node, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with cauce(tmp_path, in_front_of(upstream.base_url) + ONCE) as running:
        yield running


class Chat:
    """A chat in a script of its own."""

    def __init__(self, running: Script) -> None:
        self._running = running

    async def do(self, name: str, **command: Any) -> Any:
        await self._running.tell({"do": name, **command})
        return await self._running.answer()

    async def said(self, text: str) -> Any:
        """What is seen once the answer to `text` has come to its end."""
        await self.do("send", text=text)
        return await self.do("settled")


@contextlib.asynccontextmanager
async def chatting(node: Node, version: str, url: str, **given: Any) -> AsyncIterator[Chat]:
    options = {"base": url, "id": "chat-1", "body": {"model": "up/m"}, **given}
    async with script(node, "chat.mjs", version, options) as running:
        yield Chat(running)


def kinds(seen: Any) -> list[str]:
    """The parts of the newest message."""
    return [part["type"] for part in seen["messages"][-1]["parts"]]


def opened(gate: asyncio.Semaphore) -> None:
    for _ in range(20):
        gate.release()


async def test_chat_streams_text_and_reasoning(node: Node, version: str, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(reasoning="Let me see.", text="El río 🌊 baja."), Reply(text="Again.")]
    async with chatting(node, version, server.url) as chat:
        seen = await chat.said("hi")
        assert (seen["status"], seen["error"], seen["text"]) == ("ready", None, "El río 🌊 baja.")
        assert kinds(seen) == ["step-start", "reasoning", "text"]
        answer = seen["messages"][-1]
        assert answer["parts"][1]["text"] == "Let me see." and answer["parts"][1]["state"] == "done"
        told = answer["metadata"]
        assert told["stream_id"] == answer["id"] and told["stream_id"].startswith("chat-1~ui_")
        assert told["model"] == "up/m" and told["usage"]["output_tokens"] > 0 and told["level"] == "primary"
        assert [part["data"]["status"] for part in seen["data"]] == ["attempt"]
        second = await chat.said("and now?")
    assert second["text"] == "Again." and len(second["messages"]) == 4
    roles = [message["role"] for message in upstream.requests[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert upstream.requests[1]["messages"][1]["content"] == "El río 🌊 baja."


async def test_tool_of_the_page_is_called_and_its_output_goes_on_in_the_message(
    node: Node, version: str, server: Cauce, upstream: Upstream
) -> None:
    upstream.answers = [CALL, Reply(text="It is clear.")]
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    body = {"model": "up/m", "tools": {"weather": {"description": "d", "parameters": parameters}}}
    async with chatting(node, version, server.url, body=body, output={"sky": "clear"}) as chat:
        seen = await chat.said("hi")
    assert seen["called"] == [{"name": "weather", "input": {"city": "Sevilla"}}]
    assert len(seen["messages"]) == 2, "one question, and one answer that has it all"
    assert kinds(seen) == ["step-start", "text", "tool-weather", "step-start", "text"]
    tool = seen["messages"][-1]["parts"][2]
    assert (tool["state"], tool["output"]) == ("output-available", {"sky": "clear"})
    assert seen["text"] == "I look. It is clear." and seen["status"] == "ready"
    sent = upstream.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[2]["content"] == '{"sky":"clear"}'


async def test_page_that_is_loaded_again_has_the_whole_open_answer_once(
    node: Node, version: str, server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with chatting(node, version, server.url) as chat:
        await chat.do("send", text="hi")
        before = await chat.do("until", text="a b ")
        await chat.do("leave")
        await chat.do("reload")
        await chat.do("resume")
        again = await chat.do("until", text="a b ")
        assert again["status"] == "streaming"
        opened(gate)
        seen = await chat.do("settled")
        assert (seen["text"], seen["status"], seen["error"]) == ("a b c d", "ready", None)
        assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]
        assert seen["messages"][-1]["id"] == before["messages"][-1]["id"]
        await chat.do("reload", messages=seen["messages"])
        await chat.do("resume")
        over = await chat.do("settled")
    assert over["requests"] == [{"method": "GET", "path": "/api/chat/chat-1/stream", "status": 204}]
    assert over["messages"] == seen["messages"] and over["status"] == "ready"
    assert len(upstream.requests) == 1


async def test_page_that_is_loaded_again_while_a_tools_answer_comes_keeps_what_it_had(
    node: Node, version: str, server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [CALL, Reply(text="It is clear.", gate=gate)]
    async with chatting(node, version, server.url, output={"sky": "clear"}) as chat:
        await chat.do("send", text="hi")
        stored = (await chat.do("until", text="It "))["messages"]
        # What a page has stored: the message with its tool, as it was posted.
        stored[-1]["parts"] = stored[-1]["parts"][:3]
        await chat.do("leave")
        await chat.do("reload", messages=stored)
        await chat.do("resume")
        await chat.do("answered", count=3)
        opened(gate)
        seen = await chat.do("settled")
    parts = [part for message in seen["messages"][1:] for part in message["parts"] if part["type"] != "step-start"]
    assert [part["type"] for part in parts] == ["text", "tool-weather", "text"] and parts[1]["output"] == {
        "sky": "clear"
    }
    assert parts[0]["text"] + parts[2]["text"] == "I look. It is clear." and seen["status"] == "ready"
    assert len(upstream.requests) == 2


async def test_connection_that_breaks_is_resumed_in_the_same_chat(
    node: Node, version: str, server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with Proxy(server.port) as proxy, chatting(node, version, proxy.url) as chat:
        await chat.do("send", text="hi")
        await chat.do("until", text="a b ")
        proxy.cut()
        broken = await chat.do("settled")
        assert broken["status"] == "error" and broken["text"] == "a b "
        await chat.do("resume")
        await chat.do("answered", count=2)
        opened(gate)
        seen = await chat.do("settled")
    assert (seen["text"], seen["status"]) == ("a b c d", "ready")
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]


async def test_stop_cancels_the_upstream_and_leaving_does_not(
    node: Node, version: str, server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b c", gate=gate)]
    async with chatting(node, version, server.url) as chat:
        await chat.do("send", text="hi")
        streaming = await chat.do("until", text="a ")
        stopped = await chat.do("stop", body={"stream_id": streaming["messages"][-1]["metadata"]["stream_id"]})
        assert stopped["told"]["state"] == "cancelled"
        await within(upstream.closed.wait())
        seen = await chat.do("settled")
        assert (seen["text"], seen["status"], seen["error"]) == ("a ", "ready", None)
        assert seen["messages"][-1]["metadata"]["outcome"] == "cancelled"
        assert all(part.get("state") != "streaming" for part in seen["messages"][-1]["parts"])
        assert (await chat.do("stop"))["status"] == 204


async def test_errors_arrive_as_errors(node: Node, version: str, server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [
        Reply(status=500, error={"message": "it fell over"}),
        Reply(text="a b c", cut_after=2),
        Reply(text="Better."),
    ]
    async with chatting(node, version, server.url) as chat:
        failed = await chat.said("hi")
        assert failed["status"] == "error" and "it fell over" in failed["error"]
        await chat.do("regenerate")
        broken = await chat.do("settled")
        assert (broken["status"], broken["text"]) == ("error", "a b ") and broken["error"]
        assert broken["messages"][-1]["metadata"]["outcome"] == "incomplete"
        await chat.do("regenerate")
        mended = await chat.do("settled")
    assert (mended["status"], mended["text"], mended["error"]) == ("ready", "Better.", None)
    assert [message["role"] for message in mended["messages"]] == ["user", "assistant"]


async def test_request_that_is_refused_is_an_error_that_says_why(
    node: Node, version: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with cauce(tmp_path, in_front_of(upstream.base_url) + KEYED) as server:
        async with chatting(node, version, server.url) as chat:
            assert "API key is required" in (await chat.said("hi"))["error"]
        key = {"Authorization": "Bearer secret"}
        async with chatting(node, version, server.url, headers=key, body={"model": "no/such"}) as chat:
            assert "no/such" in (await chat.said("hi"))["error"]
        async with chatting(node, version, server.url, headers=key) as chat:
            assert (await chat.said("hi"))["text"] == "Hello from upstream."


async def test_answer_that_begins_anew_takes_the_place_of_what_was_shown(
    node: Node, version: str, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="all wrong here", cut_after=2), Reply(text="Right.")]
    toml = in_front_of(upstream.base_url) + '[models.careful]\ncandidates = ["up/m"]\nmidstream = "restart"\n'
    # Versions 5 and 6 cannot take back what they have shown.
    headers = {} if version == "ai" else {"X-Cauce-Restart": "refuse"}
    async with cauce(tmp_path, toml + "[retry]\nattempts = 1\n") as server:
        async with chatting(node, version, server.url, headers=headers, body={"model": "careful"}) as chat:
            seen = await chat.said("hi")
    if version == "ai":
        assert (seen["text"], seen["status"]) == ("Right.", "ready") and seen["messages"][-1]["metadata"]["restarted"]
        assert kinds(seen) == ["step-start", "text"]
    else:
        assert (seen["text"], seen["status"]) == ("all wrong ", "error")


async def test_answer_goes_on_in_the_chat_when_the_server_is_killed(
    node: Node, version: str, upstream: Upstream, tmp_path: Path
) -> None:
    first, second = asyncio.Semaphore(2), asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b gone", gate=first), Reply(text="c d", gate=second)]
    toml = in_front_of(upstream.base_url)
    async with Proxy(0) as proxy, chatting(node, version, proxy.url) as chat:
        async with cauce(tmp_path, toml) as server:
            proxy.aim(server.port)
            await chat.do("send", text="hi")
            await chat.do("until", text="a b ")
            os.kill(server.pid, signal.SIGKILL)
            broken = await chat.do("settled")
            assert broken["status"] == "error"
        async with cauce(tmp_path, toml) as server:
            proxy.aim(server.port)
            await chat.do("resume")
            await chat.do("answered", count=2)
            opened(second)
            seen = await chat.do("settled")
    assert (seen["status"], seen["error"]) == ("ready", None)
    assert seen["text"].startswith("a b ") and seen["text"].endswith("c d") and "gone" not in seen["text"]
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]


@contextlib.asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[str]:
    """A server that answers whatever it is asked with `body`; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        length = b"content-length: %d\r\n" % len(body)
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n" + length + b"\r\n" + body
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def told(part: dict[str, Any]) -> dict[str, Any]:
    """What a reader of either kind makes of a part."""
    names = ("type", "text", "state", "output", "errorText", "url", "title", "providerMetadata", "callProviderMetadata")
    # Versions 5 and 6 put what was wrong with a call elsewhere.
    made = {"input": part.get("input", part.get("rawInput")), **{name: part.get(name) for name in names}}
    return {name: value for name, value in made.items() if value is not None}


SAMPLES: dict[str, tuple[Delta, ...]] = {
    "everything": (
        Reasoning("hm"),
        Reasoning("", Signature("anthropic_messages", "sig==")),
        Text("río\u2028 🌊"),
        Citation("https://a.example/x", "A"),
        Citation(None, "A book"),
        ToolCall(0, "c1", "look", '{"a"'),
        ToolCall(0, "c1", "look", '{"a"', "abandoned"),
        Attempt(2, "other", "m", "fallback", reason="it broke", reason_code="provider_error"),
        ToolCall(0, "c2", "look", '{"a": [1]}', signature=Signature("gemini", "thought")),
        ToolCall(0, "c2", "look", '{"a": [1]}', "ready", signature=Signature("gemini", "thought")),
        ToolCall(1, "c3", "look", "no JSON"),
        ToolCall(1, "c3", "look", "no JSON", "ready"),
        ToolCall(2, "c4", "look", ""),
        ToolCall(2, "c4", "look", "", "ready"),
        ToolResult("c2", "look", '{"seen": true}'),
        ToolResult("c4", "look", "", error="it is down"),
        Attempt(3, "other", "m", "fallback", step=2),
        Status("waiting", "third", {"place": 3}),
        Text("So."),
        Refusal("No."),
        Finish("stop", Usage(3, 4)),
    ),
    "cut inside a call": (
        Text("a"),
        ToolCall(0, "c1", "look", '{"a"'),
        Finish("cancelled", outcome="cancelled"),
    ),
    "restarted": (
        Text("kept "),
        Text("wrong"),
        ToolCall(0, "c1", "look", '{"a"'),
        Citation("https://a.example", "A"),
        Restart(4, "it broke"),
        Text("right"),
        Finish("stop"),
    ),
}


@pytest.mark.parametrize("sample", SAMPLES)
async def test_sdk_makes_of_the_chunks_what_our_own_reader_does(node: Node, version: str, sample: str) -> None:
    begun = (Status("accepted", facts={"model": "auto"}), Attempt(1, "up", "m", "primary"))
    raw = UIProjector("chat-1:x", "chat-1:x").feed([*begun, *SAMPLES[sample]])
    ours = Reader().read(raw)
    async with answering(raw) as url, chatting(node, version, url) as chat:
        seen = await chat.said("hi")
    if sample == "restarted" and version != "ai":
        # Only version 7 can take back what it has shown: the others say that they cannot go on.
        assert seen["status"] == "error" and "kept wrong" in seen["text"]
        return
    message = seen["messages"][-1]
    assert (seen["status"], seen["error"], message["id"]) == ("ready", None, "chat-1:x")
    assert [told(part) for part in message["parts"]] == [told(part) for part in ours.parts]
    assert message["metadata"] == ours.metadata
    assert [part["data"] for part in seen["data"]] == ours.transient


async def test_heartbeats_do_not_disturb_a_chat(node: Node, version: str, upstream: Upstream, tmp_path: Path) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="a b", gate=gate)]
    toml = in_front_of(upstream.base_url) + "[streams]\nheartbeat = 0.05\n"
    async with cauce(tmp_path, toml) as server, Proxy(server.port) as proxy:
        async with chatting(node, version, proxy.url) as chat:
            await chat.do("send", text="hi")
            await within(proxy.carried(b": hb 2\n"))
            gate.release()
            await chat.do("until", text="a ")
            await within(proxy.carried(b": hb 4\n"))
            opened(gate)
            seen = await chat.do("settled")
    assert (seen["text"], seen["status"]) == ("a b", "ready")


GUIDES = [HERE.parents[1] / "src" / "cauce" / "guide" / language / "ai-sdk.md" for language in ("en", "es")]
BASE = "http://127.0.0.1:8000"
"""Where the guide says that the server is."""


def shown(guide: Path, mark: str, url: str, folder: Path) -> Path:
    """A file with the one block of the guide that has `mark` in it, for the server at `url`, where the packages are found."""
    (block,) = [code for code in re.findall(r"^```js\n(.*?)^```$", guide.read_text(), re.M | re.S) if mark in code]
    assert BASE in block
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    file = folder / "shown.mjs"
    file.write_text(block.replace(BASE, url).replace('model: "auto"', 'model: "up/m"'))
    return file


@pytest.mark.parametrize("guide", GUIDES, ids=["en", "es"])
async def test_hook_of_the_guide_streams_resumes_and_stops(
    node: Node, guide: Path, server: Cauce, upstream: Upstream, tmp_path: Path
) -> None:
    first, second = asyncio.Semaphore(2), asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b c d", gate=first), Reply(text="e f", gate=second)]
    file = shown(guide, "useAnswers", server.url, tmp_path)
    async with script(node, "hook.mjs", str(file), {"id": "chat-1"}) as running:
        page = Chat(running)
        assert (await page.do("load"))["status"] == "ready"
        await page.do("send", text="hi")
        await page.do("until", text="a b ")
        await page.do("close")
        await page.do("load")
        again = await page.do("until", text="a b ")
        opened(first)
        whole = await page.do("settled")
        assert whole["text"] == "a b c d" and whole["metadata"]["stream_id"] == again["metadata"]["stream_id"]
        await page.do("send", text="and now?")
        await page.do("until", text="e ")
        stopped = await page.do("stop")
        await within(upstream.closed.wait())
    assert (stopped["text"], stopped["status"]) == ("e ", "ready")
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("guide", GUIDES, ids=["en", "es"])
async def test_guide_reads_an_answer_without_react(
    node: Node, guide: Path, server: Cauce, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="A cascade falls.")]
    file = shown(guide, "readUIMessageStream", server.url, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(node.node, str(file)), env=node.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, wrong = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert process.returncode == 0, wrong.decode()
    assert "A cascade falls." in told.decode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("guide", GUIDES, ids=["en", "es"])
async def test_failure_ends_what_the_guide_reads_without_react(
    node: Node, guide: Path, version: str, server: Cauce, upstream: Upstream, tmp_path: Path
) -> None:
    # The offline answerer steps in for what is down, not for what is refused.
    upstream.answers = [Reply(status=400, error={"message": "no such thing"})]
    file = shown(guide, "readUIMessageStream", server.url, tmp_path)
    file.write_text(file.read_text().replace('from "ai"', f'from "{version}"'))
    process = await asyncio.create_subprocess_exec(
        *(node.node, str(file)), env=node.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, wrong = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert process.returncode != 0 and "no such thing" in wrong.decode()
