"""Recorded answers read by official SDKs, from the recording and through Cauce: on the provider's own wire both are the same.

What OpenAI's SDK makes of its wires is compared in `tests/recordings`, where that SDK is at hand.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.clients.process import ONCE
from tests.clients.workers import Given, Workers
from tests.recordings.normal import difference
from tests.recordings.replay import parameters, replaying
from tests.recordings.test_every_wire import _TOML
from tests.serving import serving

pytestmark = pytest.mark.anyio


class Ends(msgspec.Struct, frozen=True):
    """Where the recordings are served, and where Cauce serves them."""

    direct: str
    through: str


@pytest.fixture(scope="module")
async def ends() -> AsyncIterator[Ends]:
    async with replaying() as port, serving(_TOML.format(port=port) + ONCE) as served:
        yield Ends(f"http://127.0.0.1:{port}", served.url)


async def compare(workers: Workers, ends: Ends, recording: dict[str, Any], case: str, provider: str) -> None:
    name, stream = recording["id"], recording["stream"]
    refused = recording["status"] != 200
    worker = workers.of("clients", "recorded.py")
    direct, through = [
        await worker.run(case, Given(base_url, model=model, more={"stream": stream}, refused=refused))
        for base_url, model in ((ends.direct, name), (ends.through, f"{provider}/{name}"))
    ]
    if not refused:
        assert through == direct
        return
    assert direct["error"] is not None and through["error"] is not None
    # A key that the provider refuses is not the client's fault.
    auth = direct["status"] in (401, 403) or "API key not valid" in direct["message"]
    assert through["status"] == (502 if auth else direct["status"])


@pytest.mark.parametrize("recording", parameters("messages"))
async def test_anthropic_s_sdk_reads_the_same_message(workers: Workers, ends: Ends, recording: dict[str, Any]) -> None:
    await compare(workers, ends, recording, "anthropic_message", "messages")


@pytest.mark.parametrize("recording", parameters("generateContent", "streamGenerateContent"))
async def test_google_s_sdk_reads_the_same_answer(workers: Workers, ends: Ends, recording: dict[str, Any]) -> None:
    if difference(recording) == "fragments":
        pytest.skip("fragments of calls are put together by Cauce, and by this SDK not")
    if recording["api"] == "streamGenerateContent" and not recording["stream"]:
        pytest.skip("a list in place of events, which this SDK does not ask for")
    await compare(workers, ends, recording, "gemini_answer", "gemini")
