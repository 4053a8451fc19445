"""The `EventSource` of the guide, as Node has it: it comes back with the address it was given, and says beside it what it has had."""

import asyncio
import re
from pathlib import Path

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.clients.node import RUN_SECONDS, Node
from tests.clients.process import ONCE, Proxy, cauce, in_front_of
from tests.clients.test_ui_chat import BASE
from tests.http import connection, within
from tests.serving import MESSAGES

pytestmark = pytest.mark.anyio

GUIDES = [Path("src/cauce/guide") / language / "streaming.md" for language in ("en", "es")]
ALIVE = """
const alive = setInterval(() => source.readyState === 2 && clearInterval(alive), 50);
process.on("exit", () => console.log(`[${text}]`));
"""
"""Node waits for nothing while its `EventSource` waits to come back."""

ASK = b'{"model": "up/m", "messages": [{"role": "user", "content": "Say hello."}]}'


@pytest.mark.parametrize("guide", GUIDES, ids=["en", "es"])
async def test_event_source_of_the_guide_shows_an_answer_once_though_its_connection_breaks(
    node: Node, guide: Path, upstream: Upstream, tmp_path: Path
) -> None:
    assert MESSAGES[0]["content"] in ASK.decode()
    (block,) = [
        code for code in re.findall(r"^```js\n(.*?)^```$", guide.read_text(), re.M | re.S) if "EventSource" in code
    ]
    gate = asyncio.Semaphore(2)
    upstream.answers = [Reply(text="a b c d", gate=gate)]
    async with cauce(tmp_path, in_front_of(upstream.base_url) + ONCE) as server, Proxy(server.port) as proxy:
        assert BASE in block
        file = tmp_path / "shown.mjs"
        file.write_text(block.replace(BASE, proxy.url) + ALIVE)
        async with connection(server.port) as starting:
            await starting.send("POST", "/chat/stream/demo-1", ASK)
            await starting.head()
            await within(starting.until(b"b "))
        process = await asyncio.create_subprocess_exec(
            *(node.node, "--no-warnings", "--experimental-eventsource", str(file)),
            env=node.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        await within(proxy.carried(b'"b "'))
        proxy.cut()
        for _ in range(9):
            gate.release()
        told, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert told.decode().strip() == "[a b c d]"
