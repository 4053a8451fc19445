"""A page of another origin, in a real browser, against a server process: the chat page that people already have."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.clients.browser import Browser, Page
from tests.clients.node import HERE
from tests.clients.process import ONCE, Cauce, Proxy, cauce, in_front_of
from tests.http import ask, within

pytestmark = pytest.mark.anyio

PAGE = HERE / "page"
COMPLETE = "document.getElementById('status').textContent === 'complete'"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def origin() -> Iterator[str]:
    """Where the page is served from: another port of this machine, so another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=PAGE)) as pages:
        thread = threading.Thread(target=pages.serve_forever, name="pages")
        thread.start()
        yield f"http://localhost:{pages.server_port}"
        pages.shutdown()
        thread.join()


@pytest.fixture
async def server(browser: Browser, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with cauce(tmp_path, in_front_of(upstream.base_url)) as running:
        yield running


def chat_page(origin: str, server: str, stream_id: str) -> str:
    return f"{origin}/index.html?{urlencode({'server': server, 'id': stream_id})}"


def showing(text: str) -> str:
    return f"document.getElementById('answer').textContent === {text!r}"


async def types(page: Page) -> list[str]:
    """What kinds of message the page has read, repetitions once."""
    read = await page.evaluate("chat.log.map((message) => message.type)")
    return [kind for place, kind in enumerate(read) if place == 0 or read[place - 1] != kind]


async def test_page_of_another_origin_shows_the_whole_answer(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    text = "El río — 河 — baja 🌊.\nSegunda línea,\u2028y tercera."
    upstream.answers = [Reply(text=text)]
    async with browser.page(chat_page(origin, server.url, "whole")) as page:
        await page.click("#send")
        await page.until(COMPLETE)
        assert await page.evaluate("chat.text") == text == await page.evaluate("chat.pieces")
        assert await page.evaluate("document.getElementById('answer').textContent") == text
        assert await page.evaluate("statuses") == ["answering", "complete"]
        assert await page.complaints() == []
        methods = [one["method"] for one in await page.exchanges() if one["url"].startswith(server.url)]
    assert "POST" in methods and upstream.requests[0]["messages"][0]["content"] == "Tell me about rivers."


async def test_connection_that_is_cut_in_the_middle_is_resumed_without_gap_or_repetition(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="one two three four five", gate=gate)]
    async with Proxy(server.port) as proxy:
        async with browser.page(chat_page(origin, proxy.url, "cut")) as page:
            await page.click("#send")
            await page.until(showing("one two "))
            proxy.cut()
            await page.until("chat.log.some((message) => message.resumed)")
            gate.release()
            await page.until(showing("one two three "))
            proxy.cut()
            await page.until("chat.log.filter((message) => message.resumed).length === 2")
            for _ in range(10):
                gate.release()
            await page.until(COMPLETE)
            assert await page.evaluate("chat.pieces") == "one two three four five" == await page.evaluate("chat.text")
            assert await page.evaluate("statuses") == [
                *("answering", "reconnecting", "answering", "reconnecting", "answering", "complete")
            ]
            assert await types(page) == [
                *("start", "status", "content", "(connection)", "start", "content"),
                *("(connection)", "start", "content", "complete"),
            ]
    assert len(upstream.requests) == 1 and not upstream.closed.is_set()


async def test_page_that_drops_its_own_connection_resumes_at_once(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="one two three four five", gate=gate)]
    async with browser.page(chat_page(origin, server.url, "drop")) as page:
        await page.click("#send")
        await page.until(showing("one two "))
        await page.click("#drop")
        for _ in range(10):
            gate.release()
        await page.until(COMPLETE)
        assert await page.evaluate("chat.text") == "one two three four five"
        assert await page.evaluate("chat.reconnects") == 1
    assert len(upstream.requests) == 1


async def test_server_that_is_told_to_stop_is_no_end_of_an_answer_for_the_page(
    browser: Browser, upstream: Upstream, origin: str, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=2), Reply(text="three")]
    toml = in_front_of(upstream.base_url)
    async with Proxy(0) as proxy, browser.page(chat_page(origin, proxy.url, "stop")) as page:
        async with cauce(tmp_path, toml) as server:
            proxy.aim(server.port)
            await page.click("#send")
            await page.until(showing("one two "))
        await page.until("statuses.at(-1) === 'reconnecting' && chat.reconnects === 5")
        assert await page.text("#answer") == "one two "
        async with cauce(tmp_path, toml) as server:
            proxy.aim(server.port)
            await page.evaluate("chat.reconnects = 0, void chat.reconnect()")
            await page.until(COMPLETE)
            assert await page.text("#answer") == await page.evaluate("chat.pieces") == "one two three"


async def test_cancel_from_the_page_ends_the_upstream_within_a_second(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    upstream.answers = [Reply(text="one two three four", stall_after=2)]
    async with browser.page(chat_page(origin, server.url, "cancel")) as page:
        await page.click("#send")
        await page.until(showing("one two "))
        await page.click("#cancel")
        await within(upstream.closed.wait(), 1)
        await page.until("statuses.at(-1) === 'cancelled'")
        await page.until("chat.log.at(-1)?.type === 'cancelled'")
        assert await page.evaluate("chat.log.at(-1).data") == "one two "
        assert await page.evaluate("chat.reconnects") == 0
        assert "(connection)" not in await types(page) and await page.complaints() == []
    assert (await ask(server.port, "GET", "/chat/stream/cancel")).json()["state"] == "cancelled"


async def test_page_that_does_not_know_of_cancelling_elsewhere_ends_its_reconnects(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    upstream.answers = [Reply(text="one two three four", stall_after=2)]
    async with browser.page(chat_page(origin, server.url, "elsewhere")) as page:
        await page.click("#send")
        await page.until(showing("one two "))
        await ask(server.port, "DELETE", "/chat/stream/elsewhere")
        await page.until("chat.reconnects === 5 && chat.log.at(-1)?.type === 'cancelled'")
        assert await page.evaluate("chat.text") == "one two "


async def test_fallback_is_shown_as_retrying_and_then_the_answer(
    browser: Browser, upstream: Upstream, origin: str, tmp_path: Path
) -> None:
    busy = {"message": "The model is busy.", "type": "service_unavailable_error"}
    upstream.answers = [Reply(status=503, error=busy), Reply(text="from the second")]
    toml = in_front_of(upstream.base_url) + in_front_of(upstream.base_url, name="up2") + "[retry]\nattempts = 1\n"
    async with cauce(tmp_path, toml) as server:
        async with browser.page(chat_page(origin, server.url, "fallback")) as page:
            await page.click("#send")
            await page.until(COMPLETE)
            assert await page.evaluate("statuses") == ["answering", "retrying 1", "answering", "complete"]
            assert await page.text("#answer") == "from the second"
            last = await page.evaluate("chat.log.at(-1)")
    assert (last["level"], last["model"]) == ("fallback", "up2/m")


async def test_final_error_is_shown_beside_the_text_so_far(
    browser: Browser, upstream: Upstream, origin: str, tmp_path: Path
) -> None:
    upstream.answers = [Reply(text="one two three", cut_after=2)]
    toml = in_front_of(upstream.base_url) + '[aliases]\ntu-modelo = "up/m"\n[recovery]\nattempts = 3\n'
    async with cauce(tmp_path, toml) as server:
        async with browser.page(chat_page(origin, server.url, "final")) as page:
            await page.click("#send")
            await page.until("statuses.at(-1)?.startsWith('error: ')")
            assert await page.text("#answer") == "one two "
            assert await page.evaluate("chat.reconnects") == 0


FETCH = """
async (path, options) => {
  try {
    const response = await fetch(chat.url.replace(/\\/chat\\/stream\\/.*/, path), options);
    return {status: response.status, headers: Object.fromEntries(response.headers), body: await response.json()};
  } catch (error) {
    return {failed: String(error)};
  }
}
"""
QUESTION = (
    "{method: 'POST', headers: {'Content-Type': 'application/json'}, "
    "body: JSON.stringify({messages: [{role: 'user', content: 'Hi.'}]})}"
)


async def test_page_reads_the_headers_that_say_where_the_answer_came_from(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    async with browser.page(chat_page(origin, server.url, "headers")) as page:
        got = await page.evaluate(f"({FETCH})('/llm/message', {QUESTION})")
        assert got["status"] == 200 and got["body"]["response"] == "Hello from upstream."
        told = got["headers"]
        assert (told["x-cauce-model"], told["x-cauce-level"], told["x-cauce-cache"]) == ("up/m", "primary", "none")
        assert {"x-cauce-request-id", "x-cauce-stream-id", "x-cauce-attempts", "x-cauce-overhead-ms"} <= set(told)
        await page.click("#send")
        await page.until(COMPLETE)
        streamed = await page.evaluate("chat.headers")
        assert streamed["x-cauce-stream-id"] == "headers" and streamed["location"] == "/chat/stream/headers/resume"
        assert streamed["x-cauce-request-id"]


async def test_page_reads_why_it_was_refused_and_when_to_come_back(
    browser: Browser, upstream: Upstream, origin: str, tmp_path: Path
) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow"}, headers={"retry-after": "7"})]
    keys = f'[aliases]\ntu-modelo = "up/m"\n[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with cauce(tmp_path, in_front_of(upstream.base_url) + ONCE + keys) as server:
        async with browser.page(chat_page(origin, server.url, "refused")) as page:
            refused = await page.evaluate(f"({FETCH})('/llm/message', {QUESTION})")
            assert (refused["status"], refused["body"]["error_code"]) == (401, "unauthorized")
            keyed = QUESTION.replace(
                "'Content-Type'", "'Authorization': 'Bearer secret', 'X-Of-Mine': '1', 'Content-Type'"
            )
            keyed = keyed.replace("{messages", "{model: 'tu-modelo', messages")
            limited = await page.evaluate(f"({FETCH})('/llm/message', {keyed})")
            assert (limited["status"], limited["headers"]["retry-after"]) == (429, "7")
            assert limited["body"]["error_code"] == "rate_limited"


async def test_page_opened_from_a_file_is_refused_unless_null_is_allowed(
    browser: Browser, upstream: Upstream, tmp_path: Path
) -> None:
    file = (PAGE / "index.html").as_uri().removesuffix("/index.html")
    refusing, allowing = tmp_path / "refusing", tmp_path / "allowing"
    refusing.mkdir()
    allowing.mkdir()
    async with cauce(refusing, in_front_of(upstream.base_url)) as server:
        async with browser.page(chat_page(file, server.url, "file")) as page:
            health = await page.evaluate(f"({FETCH})('/health', {{}})")
            assert health["status"] == 403 and "cors_origins" in health["body"]["error"]
            refused = await page.evaluate(f"({FETCH})('/llm/message', {QUESTION})")
            assert refused.get("status") != 200 and upstream.requests == []
    async with cauce(allowing, in_front_of(upstream.base_url), server='cors_origins = ["null"]') as server:
        async with browser.page(chat_page(file, server.url, "file")) as page:
            await page.click("#send")
            await page.until(COMPLETE)
            assert await page.text("#answer") == "Hello from upstream."


async def test_page_opened_from_a_file_can_read_why_its_question_was_refused(
    browser: Browser, server: Cauce, upstream: Upstream
) -> None:
    file = (PAGE / "index.html").as_uri().removesuffix("/index.html")
    async with browser.page(chat_page(file, server.url, "file")) as page:
        refused = await page.evaluate(f"({FETCH})('/llm/message', {QUESTION})")
    assert refused.get("status") == 403 and "cors_origins" in refused["body"]["error"], refused
    assert upstream.requests == []


async def test_documentation_page_opens_endpoints_and_sends_a_question(
    browser: Browser, server: Cauce, upstream: Upstream
) -> None:
    async with browser.page(f"{server.url}/docs") as page:
        await page.until("document.querySelectorAll('#paths details').length > 5")
        await page.click("#paths details:has-text('/llm/message') summary")
        assert "Body:" in await page.text("#paths details:has-text('/llm/message')")
        assert "Give a conversation a title" in await page.text("#paths details:has-text('PATCH')")
        await page.click("#send")
        await page.until("document.getElementById('answer').textContent.startsWith('HTTP 200')")
        assert "Hello from upstream." in await page.text("#answer")
        # Browsers ask every site for an icon.
        assert [told for told in await page.complaints() if "/favicon.ico" not in told] == []
        assert all(one["url"].startswith((server.url, "data:")) for one in await page.exchanges())
