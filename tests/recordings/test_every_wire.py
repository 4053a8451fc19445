"""Every recorded answer, seen through every surface: what it says must be what the recording says, whatever the wire."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.recordings.normal import Meaning, difference, meant
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

_AT_ONCE = "[retry]\nattempts = 1\n[queue]\nlength = 0\n"
"""A recorded refusal asks for half a minute: nobody waits for a limit of back then."""

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
    async with replaying() as port, serving(_TOML.format(port=port) + _AT_ONCE) as served:
        yield served


@pytest.fixture(scope="module")
async def torn() -> AsyncIterator[Served]:
    """The same, with answers that arrive in pieces of seven bytes."""
    async with replaying(split=7) as port, serving(_TOML.format(port=port) + _AT_ONCE) as served:
        yield served


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("recording", parameters(*ANSWERS))
async def test_recording_means_the_same_on_every_surface(
    cauce: Served, recording: dict[str, Any], surface: Surface
) -> None:
    await _check(cauce, recording, surface)


@pytest.mark.parametrize("recording", parameters(*ANSWERS))
async def test_recording_in_small_pieces_means_the_same(torn: Served, recording: dict[str, Any]) -> None:
    await _check(torn, recording, SURFACES[-1])


async def _check(cauce: Served, recording: dict[str, Any], surface: Surface) -> None:
    if surface.name == "native" and recording["expected"].get("n_choices", 1) > 1:
        pytest.skip("the native wire asks for one answer only")
    stream = recording["stream"] or recording["api"] == "streamGenerateContent"
    seen = await surface.ask(cauce.port, f"{_PROVIDERS[recording['api']]}/{recording['id']}", stream)
    if (why := difference(recording)) is not None:
        if why == "another shape":
            assert seen.failed
        else:
            assert not seen.failed and None not in [name for name, _ in seen.calls]
            check_different(recording["id"], seen)
        return
    expected = meant(recording)
    if expected.failed:
        assert seen.failed
        return
    if expected.usage is None:
        seen.usage = None
    if recording["api"] == "responses" and not expected.reasoning:
        # The manifest counts summaries only; a model that shows its reasoning itself has it in the content.
        expected.reasoning = seen.reasoning
    assert seen == expected


def check_different(name: str, seen: Meaning) -> None:
    """What is right about recordings whose entry in the manifest is not comparable, as far as they are known."""
    match name:
        case "oai-respon-s-fe8c697":
            assert seen.usage is not None and seen.text == "" and seen.finish == "stop"
        case "oai-respon-s-5c7dee9":
            assert seen.calls == [("calculator", {"a": 12, "b": 7, "op": "add"})]
        case "gem-stream-s-6aeab5a":
            assert seen.calls == [("read_theme", {}), *[("read_screen", {"id": screen}) for screen in "ABC"]]
        case "gem-stream-s-6ef534d":
            ((called, arguments),) = seen.calls
            assert called == "cookRecipe" and len(arguments["recipe"]["ingredients"]) > 5
        case "gem-stream-s-f8e06ef":
            ((called, arguments),) = seen.calls
            assert called == "writeItems"
            assert [one["itemid"] for one in arguments["operations"]] == ["apple_001", "banana_001"]
        case _:
            assert seen.text or seen.calls
