"""Cauce's own JavaScript client: built with its one tool, its own tests run in Node, and its example in a browser."""

import asyncio
import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

import cauce
from cauce.testing.upstream import Reply, Upstream
from tests.clients.browser import Browser, Page
from tests.clients.node import Node, NodeMissing, find_node
from tests.clients.process import Cauce, Proxy, in_front_of
from tests.clients.process import cauce as serve
from tests.clients.workers import Given, node_worker
from tests.e2e.process import Serve
from tests.http import within
from tests.integration.test_recovery import ORACLE, both_ends

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
OLDEST = 18
"""Version of Node that the client asks for."""

BASE = "http://127.0.0.1:8000"
"""Where the documentation says that the server is."""

BUILD_SECONDS, TEST_SECONDS = 300, 300


def run(command: list[str], node: Node, seconds: float, environment: Mapping[str, str] = {}) -> str:
    """What `command` prints."""
    paths = [str(Path(node.node).parent), os.environ.get("PATH", "")]
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env={**node.environment, **environment, "PATH": os.pathsep.join(paths), "CAUCE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built() -> Node:
    """A Node that has built the client, with the locked compiler."""
    try:
        node = find_node()
    except NodeMissing as missing:
        pytest.skip(str(missing))
    locked = hashlib.sha256((CLIENT / "package-lock.json").read_bytes()).hexdigest()
    mark = CLIENT / "node_modules" / ".installed-from"
    if not mark.is_file() or mark.read_text() != locked:
        # npm needs what the machine says of its network.
        run([*node.npm, "ci"], node, BUILD_SECONDS, os.environ)
        mark.write_text(locked)
    run([node.node, "node_modules/typescript/bin/tsc"], node, BUILD_SECONDS)
    return node


def nodes(brought: Node) -> list[str]:
    """The Node that the tests bring, and the machine's, which is often older."""
    found = shutil.which("node")
    if found is None or Path(found).resolve() == Path(brought.node).resolve():
        return [brought.node]
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return [brought.node, found] if int(version.lstrip("v").partition(".")[0]) >= OLDEST else [brought.node]


def test_package_is_of_our_version_and_depends_on_nothing() -> None:
    package = msgspec.json.decode((CLIENT / "package.json").read_bytes())
    lock = msgspec.json.decode((CLIENT / "package-lock.json").read_bytes())
    assert package["version"] == lock["version"] == cauce.__version__
    assert "dependencies" not in package and list(package["devDependencies"]) == ["typescript"]
    assert [one for one in lock["packages"].values() if "resolved" in one] == []


def test_its_own_tests_pass_in_every_node_there_is(built: Node) -> None:
    files = sorted([str(file.relative_to(CLIENT)) for file in (CLIENT / "test").glob("*.test.mjs")])
    for node in nodes(built):
        told = run([node, "--test", "--test-reporter=tap", *files], built, TEST_SECONDS)
        assert "\n# fail 0\n" in told and "\n# pass 0\n" not in told


async def test_answer_cut_after_any_delta_is_whole_byte_for_byte(built: Node) -> None:
    worker = node_worker(built, "cauce.mjs")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(worker.stop)
        ends = await stack.enter_async_context(both_ends())
        for place in ends.places():
            told = await worker.run("stream", Given(ends.served.url, model="route"))
            assert told == {"text": ORACLE, "outcome": "completed"}, place


def shown() -> list[Any]:
    """Each piece of JavaScript of the guide and the READMEs that uses the client."""
    pages = [*(ROOT / "src/cauce/guide").glob("*/javascript.md"), ROOT / "README.md", ROOT / "README.es.md"]
    found: list[Any] = []
    for page in sorted(pages):
        blocks = re.findall(r"^```js\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        mine = [block for block in blocks if 'from "cauce"' in block]
        assert mine, page
        name = str(page.relative_to(ROOT))
        found += [pytest.param(block, id=f"{name}-{place}") for place, block in enumerate(mine)]
    return found


@pytest.fixture(scope="module")
def configured_nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(tmp_path_factory.mktemp("home")) as running:
        running.start()
        yield running


@pytest.mark.parametrize("block", shown())
def test_what_the_guide_shows_runs(block: str, built: Node, configured_nothing: Serve, tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "cauce").symlink_to(CLIENT)
    script = tmp_path / "shown.mjs"
    assert BASE in block
    script.write_text(block.replace(BASE, configured_nothing.url), "utf-8")
    assert run([built.node, str(script)], built, TEST_SECONDS).strip()


TYPED = """
import { Cauce, CallFailed, type Progress, type Result, type StreamEvent } from "cauce";

const client = new Cauce({ baseUrl: "http://127.0.0.1:8000", reconnect: { attempts: 2 } });
export async function ask(id: string | null, show: (progress: Progress) => void): Promise<Result> {
  const stream = id === null ? client.stream("Hi", { onProgress: show }) : client.resume(id, { after: 0, onProgress: show });
  for await (const event of stream) told(event);
  return await stream.result;
}
function told(event: StreamEvent): string | number {
  switch (event.type) {
    case "text":
    case "thinking":
      return event.text;
    case "tool_call":
      return event.mark === "ready" ? event.arguments : event.call_id;
    case "complete":
      return event.usage.output_tokens + event.cost;
    case "error":
      return event.error_code;
    case "restart":
      return event.from_seq;
    default:
      return event.seq;
  }
}
// @ts-expect-error: there is no such event
export const never = (event: StreamEvent): boolean => event.type === "nonsense";
export const staying = client.stream("Hi", { onDisconnect: "grace:120" });
// @ts-expect-error: there is no such policy
export const nonsense = client.stream("Hi", { onDisconnect: "stay" });
export const isOurs = (error: unknown): error is CallFailed => error instanceof CallFailed && error.status !== undefined;
"""


def test_types_that_are_shipped_fit_a_strict_project(built: Node, tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "cauce").symlink_to(CLIENT)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "ask.ts").write_text(TYPED)
    strict = ["--strict", "--exactOptionalPropertyTypes", "--noEmit", "--target", "es2022", "--module", "nodenext"]
    compiler = "node_modules/typescript/bin/tsc"
    run(
        [built.node, compiler, *strict, "--lib", "es2022,dom", str(tmp_path / "ask.ts")],
        built,
        BUILD_SECONDS,
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def origin(built: Node) -> Iterator[str]:
    """Where the example is served from: another port of this machine, so another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=CLIENT)) as pages:
        thread = threading.Thread(target=pages.serve_forever, name="pages")
        thread.start()
        yield f"http://localhost:{pages.server_port}"
        pages.shutdown()
        thread.join()


@pytest.fixture
async def server(browser: Browser, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Cauce]:
    async with serve(tmp_path, in_front_of(upstream.base_url)) as running:
        yield running


def example(origin: str, server: str) -> str:
    return f"{origin}/examples/chat.html?{urlencode({'server': server})}"


def showing(text: str) -> str:
    return f"document.getElementById('answer').textContent === {text!r}"


async def until_loaded_again(page: Page) -> None:
    """What is asked of a page that is just going away fails."""
    while True:
        with contextlib.suppress(AssertionError):
            await page.until("window.before === undefined && document.getElementById('answer') !== null")
            return


DONE = "document.getElementById('progress').textContent === 'completed'"


async def test_example_shows_an_answer_whose_connection_breaks_and_whose_page_is_loaded_again(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="one two three four five", gate=gate)]
    async with Proxy(server.port) as proxy:
        async with browser.page(example(origin, proxy.url)) as page:
            await page.click("#send")
            await page.until(showing("one two "))
            proxy.cut()
            gate.release()
            await page.until(showing("one two three "))
            await page.evaluate("window.before = true; setTimeout(() => location.reload())")
            await until_loaded_again(page)
            await page.until(showing("one two three "))
            for _ in range(10):
                gate.release()
            await page.until(DONE)
            assert await page.text("#answer") == "one two three four five"
            assert await page.evaluate("sessionStorage.length") == 0
    assert len(upstream.requests) == 1 and not upstream.closed.is_set()


async def test_example_stops_an_answer_and_tells_an_error(
    browser: Browser, server: Cauce, upstream: Upstream, origin: str
) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=2), Reply(status=400, error={"message": "no rivers"})]
    async with browser.page(example(origin, server.url)) as page:
        await page.click("#send")
        await page.until(showing("one two "))
        await page.click("#stop")
        await within(upstream.closed.wait(), 2)
        await page.until("document.getElementById('progress').textContent === 'cancelled'")
        await page.click("#send")
        await page.until("document.getElementById('progress').textContent.includes('no rivers')")
        assert [told for told in await page.complaints() if "/favicon.ico" not in told] == []
