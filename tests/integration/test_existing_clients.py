"""Clients that people already have for such a service, unmodified, against a server process: what they do must go on working.

The two classes below are re-creations of what a service's quick-start guide has people write, with their habits: a session
with retries and a timeout of 30 s, and a reader that looks at `data: ` lines and keeps no cursor.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from cauce.testing.upstream import Reply, Upstream
from tests.clients.process import Cauce, Proxy, cauce, in_front_of
from tests.http import within

pytestmark = pytest.mark.anyio

DIRECT = '[aliases]\ntu-modelo = "up/m"\n'
"""`tu-modelo` without anything behind it: an upstream that fails is seen to fail."""

BUSY = {"message": "The model is busy.", "type": "service_unavailable_error"}


class Chatbot:
    """A chatbot that keeps its conversation and posts all of it on every turn."""

    def __init__(self, base_url: str, pool: int = 20) -> None:
        self.base_url = base_url
        self.conversation: list[dict[str, str]] = []
        self.tokens = 0
        self.session = requests.Session()
        retry = Retry(
            total=3,
            backoff_factor=0.1,
            status_forcelist=[429, 500, 502, 503, 504],
            allowed_methods=["POST"],
        )
        self.session.mount("http://", HTTPAdapter(max_retries=retry, pool_connections=pool, pool_maxsize=pool))
        self.session.headers.update({"Content-Type": "application/json"})

    def is_healthy(self) -> bool:
        response = self.session.get(f"{self.base_url}/health", timeout=5)
        return response.status_code == 200 and response.json()["status"] == "healthy"

    def post(self, messages: list[dict[str, str]]) -> requests.Response:
        return self.session.post(
            f"{self.base_url}/llm/message",
            json={"model": "tu-modelo", "messages": messages, "temperature": 0.7, "max_tokens": 1000},
            timeout=30,
        )

    def say(self, text: str) -> dict[str, Any]:
        self.conversation.append({"role": "user", "content": text})
        response = self.post(self.conversation)
        response.raise_for_status()
        answer = response.json()
        self.conversation.append({"role": "assistant", "content": answer["response"]})
        self.tokens += answer["tokens_used"]
        return {
            "text": answer["response"],
            "seconds": answer["processing_time"],
            "level": response.headers["x-cauce-level"],
        }


class Lost(Exception):
    """The connection ended before the answer did."""


class StreamingChat:
    """A reader of `/chat/stream/{id}`: it looks at `data: ` lines of four types, and reconnects without saying what it has."""

    def __init__(self, base_url: str, stream_id: str) -> None:
        self.url = f"{base_url}/chat/stream/{stream_id}"
        self.session = requests.Session()
        self.pieces: list[str] = []
        self.full: str | None = None
        self.starts = 0
        self.retries: list[int] = []
        self.error: str | None = None

    def start(self, text: str, until: int | None = None) -> None:
        """Ask; leaves after `until` pieces."""
        body = {"messages": [{"role": "user", "content": text}], "model": "tu-modelo"}
        with self.session.post(self.url, json=body, stream=True, timeout=30) as response:
            response.raise_for_status()
            self._read(response, until)

    def resume(self, until: int | None = None, on_start: Callable[[], object] = int) -> None:
        with self.session.post(f"{self.url}/resume", stream=True, timeout=30) as response:
            response.raise_for_status()
            self._read(response, until, on_start)

    def cancel(self) -> dict[str, Any]:
        response = requests.delete(self.url, timeout=30)
        response.raise_for_status()
        return response.json()

    def _read(self, response: requests.Response, until: int | None, on_start: Callable[[], object] = int) -> None:
        try:
            for message in _messages(response):
                match message["type"]:
                    case "start":
                        self.starts += 1
                        on_start()
                    case "content":
                        self.pieces.append(message["data"])
                        if len(self.pieces) == until:
                            return
                    case "complete":
                        self.full = message["data"]
                        return
                    case "error" if message.get("retrying"):
                        self.retries.append(message["retry_count"])
                    case "error":
                        self.error = message["data"]
                        return
        except requests.exceptions.ChunkedEncodingError as error:
            raise Lost from error


def _messages(response: requests.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines(decode_unicode=True):
        if line and line.startswith("data: "):
            yield json.loads(line[6:])


@pytest.fixture
async def server(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with cauce(tmp_path, in_front_of(upstream.base_url)) as running:
        yield running


@pytest.fixture
async def direct(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with cauce(tmp_path, in_front_of(upstream.base_url) + DIRECT) as running:
        yield running


async def asked(upstream: Upstream, times: int) -> None:
    while len(upstream.requests) < times:
        upstream.asked.clear()
        await upstream.asked.wait()


def ask_once(server: Cauce) -> requests.Response:
    """What a client without retries is answered."""
    body = {"model": "tu-modelo", "messages": [{"role": "user", "content": "Hello?"}]}
    return requests.post(f"{server.url}/llm/message", json=body, timeout=30)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await within(asyncio.to_thread(function, *arguments), 30)


async def test_chatbot_holds_a_conversation_over_several_turns(server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="Hola, soy un río."), Reply(text="Sigo aquí."), Reply(text="Adiós.")]
    bot = Chatbot(server.url)
    assert await in_thread(bot.is_healthy)
    answers = [await in_thread(bot.say, text) for text in ("¿Quién eres?", "¿Sigues?", "Adiós")]
    assert [answer["text"] for answer in answers] == ["Hola, soy un río.", "Sigo aquí.", "Adiós."]
    assert bot.tokens == 36
    assert all(isinstance(answer["seconds"], float) and answer["seconds"] > 0 for answer in answers)
    last = upstream.requests[-1]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert last["messages"][1]["content"] == "Hola, soy un río."
    assert (last["model"], last["temperature"], last["max_tokens"]) == ("m", 0.7, 1000)
    bot.session.close()


async def test_chatbot_that_retries_gets_its_answer_from_an_upstream_that_failed_once(
    direct: Cauce, upstream: Upstream
) -> None:
    upstream.answers = [Reply(status=503, error=BUSY, headers={"retry-after": "1"}), Reply(text="Now it works.")]
    bot = Chatbot(direct.url)
    answer = await in_thread(bot.say, "Hello?")
    assert answer["text"] == "Now it works." and len(upstream.requests) == 2
    bot.session.close()


async def test_chatbot_without_retries_sees_503_with_the_seconds_to_wait(direct: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=503, error=BUSY, headers={"retry-after": "2"})]
    response = await in_thread(ask_once, direct)
    told = response.json()
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert (told["error_code"], told["retry_after"]) == ("overloaded", 2)
    assert "busy" in told["error"] and told["request_id"] == response.headers["x-cauce-request-id"]


async def test_chatbot_that_sleeps_the_whole_retry_after_is_not_sent_to_sleep_for_an_hour(
    upstream: Upstream, tmp_path: Path
) -> None:
    slow = Reply(status=429, error={"message": "slow"}, headers={"retry-after": "3600"})
    upstream.answers = [slow, slow, Reply(text="Here.")]
    # Nobody leaves the upstream alone for what it says.
    toml = in_front_of(upstream.base_url) + DIRECT + "[limits]\nadaptive = false\n"
    async with cauce(tmp_path, toml) as direct:
        response = await in_thread(ask_once, direct)
        # Looked at first: the chatbot would sleep through the test.
        assert "retry-after" not in response.headers and response.json()["retry_after"] == 3600
        bot = Chatbot(direct.url)
        answer = await in_thread(bot.say, "Hello?")
        assert answer["text"] == "Here." and len(upstream.requests) == 3
        bot.session.close()


async def test_chatbot_whose_upstream_stays_down_gives_up_with_its_own_error(direct: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "broken"})]
    bot = Chatbot(direct.url)
    with pytest.raises(requests.exceptions.RetryError):
        await in_thread(bot.say, "Hello?")
    # Its own four, and the three retries that a fresh server allows itself.
    assert len(upstream.requests) == 7
    bot.session.close()


async def test_chatbot_is_answered_by_the_offline_answerer_when_the_upstream_fails(
    server: Cauce, upstream: Upstream
) -> None:
    upstream.answers = [Reply(status=503, error=BUSY)]
    bot = Chatbot(server.url)
    answer = await in_thread(bot.say, "How do I configure a provider?")
    assert answer["level"] == "offline" and answer["text"] and len(upstream.requests) == 3
    bot.session.close()


async def test_twenty_threads_share_one_session(server: Cauce, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="For you.", gate=gate)]
    bot = Chatbot(server.url)

    def burst() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(20) as threads:
            answers = threads.map(lambda number: bot.post([{"role": "user", "content": f"I am {number}"}]), range(20))
            return [answer.json() for answer in answers]

    bursting = asyncio.create_task(asyncio.to_thread(burst))
    # All twenty are with the upstream at once before the first is answered.
    await within(asked(upstream, 20))
    for _ in range(20):
        gate.release()
    answers = await within(bursting)
    assert [answer["response"] for answer in answers] == ["For you."] * 20
    assert len({answer["stream_id"] for answer in answers}) == 20
    said = {request["messages"][0]["content"] for request in upstream.requests}
    assert said == {f"I am {number}" for number in range(20)}
    # Connections of the pool go on being good.
    upstream.answers = [Reply(text="For you.")]
    assert [answer["response"] for answer in await in_thread(burst)] == ["For you."] * 20
    bot.session.close()


async def test_streaming_client_reads_the_whole_answer(server: Cauce, upstream: Upstream) -> None:
    text = "El río — 河 — baja 🌊 despacio.\nSegunda línea.\r\nTercera: data: no."
    upstream.answers = [Reply(text=text)]
    chat = StreamingChat(server.url, "whole-1")
    await in_thread(chat.start, "¿Qué hace el río?")
    assert "".join(chat.pieces) == text == chat.full
    assert chat.starts == 1 and chat.error is None
    chat.session.close()


async def test_client_that_splits_lines_as_unicode_does_reads_every_character(
    server: Cauce, upstream: Upstream
) -> None:
    for separator in "\x85\u2028\u2029":
        # What `iter_lines(decode_unicode=True)` does, and other clients' line readers too.
        text = f"before{separator}after"
        upstream.answers = [Reply(text=text)]
        chat = StreamingChat(server.url, f"lines-{ord(separator)}")
        with contextlib.closing(chat.session):
            await in_thread(chat.start, "?")
        assert "".join(chat.pieces) == text == chat.full


async def test_streaming_client_that_drops_its_connection_and_resumes_has_the_exact_text(
    server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(3)
    upstream.answers = [Reply(text="one two three four five six", gate=gate)]
    chat = StreamingChat(server.url, "drop-1")
    await in_thread(chat.start, "Count.", 3)
    assert "".join(chat.pieces) == "one two three "
    for _ in range(10):
        gate.release()
    await in_thread(chat.resume)
    assert "".join(chat.pieces) == "one two three four five six" == chat.full
    assert chat.starts == 2 and len(upstream.requests) == 1 and not upstream.closed.is_set()
    chat.session.close()


async def test_streaming_client_that_drops_again_and_again_misses_and_repeats_nothing(
    server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(0)
    words = [f"{number} " for number in range(12)]
    upstream.answers = [Reply(text="".join(words).rstrip(), gate=gate)]
    chat = StreamingChat(server.url, "drop-2")
    gate.release()
    await in_thread(chat.start, "Count.", 1)
    for reached in range(2, 12):
        there = threading.Event()
        resuming = asyncio.create_task(asyncio.to_thread(chat.resume, reached, there.set))
        # The next word leaves the upstream once this reader is there.
        await in_thread(there.wait)
        gate.release()
        await within(resuming)
        assert chat.pieces == words[:reached]
    for _ in range(5):
        gate.release()
    await in_thread(chat.resume)
    assert "".join(chat.pieces) == "".join(words).rstrip() == chat.full
    chat.session.close()


async def test_streaming_client_whose_connection_is_cut_knows_it_and_resumes(server: Cauce, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with Proxy(server.port) as proxy:
        chat = StreamingChat(proxy.url, "cut-1")
        reading = asyncio.create_task(asyncio.to_thread(chat.start, "Go."))
        await within(proxy.carried(b'"data":"b "'))
        proxy.cut()
        with pytest.raises((Lost, requests.exceptions.ConnectionError)):
            await within(reading)
        for _ in range(10):
            gate.release()
        await in_thread(chat.resume)
    assert chat.full == "a b c d"
    chat.session.close()


async def test_streaming_client_whose_network_swallowed_frames_still_gets_the_whole_text_in_the_end(
    server: Cauce, upstream: Upstream
) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(text="a b c d e", gate=gate)]
    async with Proxy(server.port) as proxy:
        chat = StreamingChat(proxy.url, "swallow-1")
        reading = asyncio.create_task(asyncio.to_thread(chat.start, "Go."))
        await within(proxy.carried(b'"data":"a "'))
        proxy.swallow()
        gate.release()
        await within(proxy.carried(b'"data":"b "'))
        # Nobody told the server that its reader has gone: a client that comes back elsewhere sends no cursor.
        proxy.flow()
        again = StreamingChat(proxy.url, "swallow-1")
        for _ in range(10):
            gate.release()
        await in_thread(again.resume)
        proxy.cut()
        with pytest.raises((Lost, requests.exceptions.ConnectionError)):
            await within(reading)
    assert again.full == "a b c d e"
    # What was written to the dead connection is not sent again without a cursor: the pieces are some end of the text.
    assert "a b c d e".endswith("".join(again.pieces))
    chat.session.close()
    again.session.close()


async def test_client_that_comes_back_after_the_end_gets_the_full_text(server: Cauce, upstream: Upstream) -> None:
    chat = StreamingChat(server.url, "late-1")
    await in_thread(chat.start, "Hi.")
    late = StreamingChat(server.url, "late-1")
    await in_thread(late.resume)
    assert late.full == chat.full == "Hello from upstream." and len(upstream.requests) == 1
    chat.session.close()
    late.session.close()


async def test_streaming_client_cancels_with_delete_and_its_reader_ends(server: Cauce, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="a b c d", stall_after=2)]
    async with Proxy(server.port) as proxy:
        chat = StreamingChat(proxy.url, "cancel-1")
        reading = asyncio.create_task(asyncio.to_thread(chat.start, "Go."))
        await within(proxy.carried(b'"data":"b "'))
        state = await in_thread(chat.cancel)
        await within(upstream.closed.wait(), 1)
        await within(reading)
    assert state["state"] == "cancelled"
    assert chat.pieces == ["a ", "b "] and chat.full is None and chat.error is None
    chat.session.close()


async def test_streaming_client_hears_of_a_fallback_and_then_reads_the_answer(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(status=503, error=BUSY), Reply(text="from the second")]
    toml = in_front_of(upstream.base_url) + in_front_of(upstream.base_url, name="two")
    async with cauce(tmp_path, toml) as server:
        chat = StreamingChat(server.url, "fallback-1")
        await in_thread(chat.start, "Go.")
    assert chat.retries == [1] and chat.full == "from the second" == "".join(chat.pieces)
    chat.session.close()


async def test_streaming_client_is_told_the_final_error(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(text="a b c d", cut_after=2)]
    toml = in_front_of(upstream.base_url) + DIRECT + "[recovery]\nattempts = 2\n"
    async with cauce(tmp_path, toml) as direct:
        chat = StreamingChat(direct.url, "final-1")
        await in_thread(chat.start, "Go.")
    assert chat.error is not None and chat.full is None and "".join(chat.pieces) == "a b "
    chat.session.close()
