"""Every recorded answer, seen through every surface: what it says must be what the recording says, whatever the wire."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.recordings.normal import Meaning, meant
from tests.recordings.replay import parameters, replaying
from tests.recordings.surfaces import SURFACES, Surface
from tests.serving import Served, serving

pytestmark = pytest.mark.anyio

ANSWERS = ("chat", "responses", "messages", "generateContent", "streamGenerateContent")

_PROVIDERS = {
    "chat": "chat",
    "responses": "responses",
    "messages": "messages",
    "generateContent": "gemini",
    "streamGenerateContent": "gemini",
}

_TOML = """
[providers.chat]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
[providers.responses]
kind = "openai"
wire = "responses"
base_url = "http://127.0.0.1:{port}/v1"
[providers.messages]
kind = "anthropic"
base_url = "http://127.0.0.1:{port}"
[providers.gemini]
kind = "gemini"
base_url = "http://127.0.0.1:{port}"
"""


@pytest.fixture(scope="module")
async def cauce() -> AsyncIterator[Served]:
    async with replaying() as port, serving(_TOML.format(port=port)) as served:
        yield served


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("recording", parameters(*ANSWERS))
async def test_recording_means_the_same_on_every_surface(
    cauce: Served, recording: dict[str, Any], surface: Surface
) -> None:
    stream = recording["stream"] or recording["api"] == "streamGenerateContent"
    seen = await surface.ask(cauce.port, f"{_PROVIDERS[recording['api']]}/{recording['id']}", stream)
    expected = meant(recording)
    if expected.failed:
        assert seen.failed
        return
    if expected.usage is None:
        seen.usage = None
    assert seen == expected
    assert seen != Meaning(failed=True)
