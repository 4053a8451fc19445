"""Streams that break once their client has read something, and are not repaired: the text stays, and the end is an error on every surface,
never a clean one."""

from typing import Any

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Answer, Ask
from tests.http import Response, ask, within
from tests.serving import serving
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

SHAPELESS = {
    "chat": b'{"choices": [{"index": 0, "delta": {"content": {"text": "up"}}}]}',
    "responses": b'{"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": ["up"]}',
    "anthropic": b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ["up"]}}',
    "gemini": b'{"candidates": [{"content": {"role": "model", "parts": [{"text": ["up"]}]}, "index": 0}]}',
}


def shapeless(asked: Ask) -> Reply:
    """In place of a delta, one whose text is none, in the words of the wire."""
    return Reply(garbled_after=2, garbage=b"data: " + SHAPELESS[asked.wire] + b"\n\n")


GARBAGE: dict[str, Answer] = {
    "half an object": Reply(garbled_after=2),
    "no object": Reply(garbled_after=2, garbage=b"data: null\n\n"),
    "bytes that are no text": Reply(garbled_after=2, garbage=b'data: {"a": "\xff\xfe"}\n\n'),
    "a page of a proxy": Reply(garbled_after=2, garbage=b"data: <html><body>502</body></html>\n\n"),
    "a delta of another shape": shapeless,
}
"""What stands in place of the third delta. What follows it is as if nothing had been, its end included."""

BREAKS: dict[str, Answer] = {
    **GARBAGE,
    "cut": Reply(cut_after=2),
    "reset": Reply(cut_after=2, reset=True),
    "stalled": Reply(stall_after=2),
    "error in the stream": Reply(error={"message": "it broke"}, error_after=2),
    "cut before its marker": Reply(cut_after=3),
    "clean end in the middle": Reply(ends_after=2),
    "clean end without its marker": Reply(ends_after=3),
}
SAID = dict.fromkeys(("cut before its marker", "clean end without its marker"), "Hello from upstream.")


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("name", BREAKS)
async def test_break_after_the_first_words_is_an_error_and_nobody_is_asked_again(
    upstream: Upstream, surface: Surface, name: str
) -> None:
    upstream.scripts = {"ill": [BREAKS[name]], "well": [Reply()]}
    provider = surface.provider.format(root=upstream.root)
    toml = f'[providers.up]\n{provider}api_key = "k"\ntimeouts = {{ idle = 0.3 }}\n'
    toml += '[models.both]\ncandidates = ["up/ill", "up/well"]\n[recovery]\nattempts = 0\n'
    async with serving(toml) as served:
        got = await within(surface.asked(served.port, "both", stream=True))
        await within(upstream.record.idle.wait())
        usage = served.runtime.services.last_entry("up")
    assert got.kind == "broken off" and got.code
    assert surface.name == "native" or got.text == SAID.get(name, "Hello from ")
    assert upstream.record.requests == {"ill": 1}
    assert usage is not None and (usage.outcome, usage.usage.estimated) == ("failed", True)


def gemini(response: Response) -> tuple[str, list[Any]]:
    events = [msgspec.json.decode(line[6:]) for line in response.body.split(b"\r\n") if line.startswith(b"data: ")]
    parts = [
        part for event in events for one in event.get("candidates", ()) for part in one.get("content", {})["parts"]
    ]
    ends = [event.get("error", {}).get("status") for event in events if "error" in event]
    ends += [one["finishReason"] for event in events for one in event.get("candidates", ()) if "finishReason" in one]
    return "".join([part["text"] for part in parts]), ends


def native(response: Response) -> tuple[str, list[Any]]:
    frames = response.frames()
    ends = [
        (frame["type"], frame.get("final_error"), frame.get("partial"))
        for frame in frames
        if frame["type"] in ("complete", "cancelled", "error")
    ]
    assert frames[-1]["type"] == "error"
    return "".join([frame["data"] for frame in frames if frame["type"] == "content"]), ends


def page(response: Response) -> tuple[str, list[Any]]:
    lines = [line[6:] for line in response.body.split(b"\n") if line.startswith(b"data: {")]
    chunks = [msgspec.json.decode(line) for line in lines]
    ends = [chunk["type"] for chunk in chunks if chunk["type"] in ("finish", "abort", "error")]
    return "".join([chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta"]), ends


SAYING = {"model": "both", "messages": [{"role": "user", "content": "Say hello."}]}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
PAGE = {
    "id": "c",
    "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "Say hello."}]}],
    "trigger": "submit-message",
    "model": "both",
}
UNFINISHED = [("error", True, "Hello from ")]
OTHERS: dict[str, tuple[str, dict[str, Any], Any, list[Any]]] = {
    "gemini": ("/v1beta/models/both:streamGenerateContent?alt=sse", CONTENTS, gemini, ["UNAVAILABLE"]),
    "native": ("/llm/message", {**SAYING, "stream": True}, native, UNFINISHED),
    "stream with an id": ("/chat/stream/one", SAYING, native, UNFINISHED),
    "page": ("/api/chat", PAGE, page, ["error"]),
}


@pytest.mark.parametrize("wire", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("surface", OTHERS)
@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_amid_a_stream_is_one_error_whatever_the_provider_speaks(
    upstream: Upstream, surface: str, wire: Surface, name: str
) -> None:
    upstream.scripts = {"ill": [GARBAGE[name]], "well": [Reply()]}
    toml = f'[providers.up]\n{wire.provider.format(root=upstream.root)}api_key = "k"\n'
    toml += '[models.both]\ncandidates = ["up/ill", "up/well"]\n[recovery]\nattempts = 0\n'
    path, body, told, expected = OTHERS[surface]
    async with serving(toml) as served:
        text, ends = told(await within(ask(served.port, "POST", path, body)))
        await within(upstream.record.idle.wait())
        entry = served.runtime.services.last_entry("up")
        used = (await ask(served.port, "GET", "/usage")).json()["total"]
    assert text == "Hello from "
    assert ends == expected
    assert upstream.record.requests == {"ill": 1}
    assert entry is not None and (entry.outcome, entry.error_code) == ("failed", "provider_error")
    assert used["requests"] == 1 and used["output_tokens"] > 0
