"""Recorded answers of the chat wire, replayed through a local server into the adapter.

`make test-recordings DATA=DIR` takes any folder with a `manifest.json` that lists recordings with the text, tool calls,
finish reason and usage a correct decoder finds.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cauce.domain.completion import Completion
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.providers.transport import HTTPTransport

DATA = Path(os.environ.get("CAUCE_RECORDINGS", "../shared/recordings"))

pytestmark = pytest.mark.anyio


def recordings() -> list[Any]:
    manifest = DATA / "manifest.json"
    if not manifest.is_file():
        return [
            pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {DATA}: make test-recordings DATA=DIR"))
        ]
    listed: list[dict[str, Any]] = json.loads(manifest.read_text("utf-8"))["recordings"]
    return [pytest.param(one, id=one["id"]) for one in listed if one["api"] == "chat"]


async def replayed(recording: dict[str, Any], split: int) -> Completion:
    """What the adapter makes of the recording, sent in pieces of `split` bytes."""
    body = (DATA / recording["file"]).read_bytes()
    head = f"HTTP/1.1 {recording['status']} Recorded\r\ncontent-length: {len(body)}\r\n"
    head += "".join([f"{name}: {value}\r\n" for name, value in (recording.get("headers") or {}).items()])
    head += f"content-type: {recording['content_type'] or 'application/json'}\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in request.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        writer.write(head.encode())
        for place in range(0, len(body), split):
            writer.write(body[place : place + split])
            await writer.drain()
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    provider = OpenAICompatible("up", f"http://127.0.0.1:{port}/v1", "", HTTPTransport("up"), DIALECTS["compatible"])
    request = Request("m", (Message("user", (TextPart("?"),)),))
    call = Call(request, Scope(), (Candidate(provider, "m"),), streamed=recording["stream"])
    try:
        return await collect(await provider.open(call))
    finally:
        await provider.aclose()
        server.close()


@pytest.mark.parametrize("split", [1_000_000, 7])
@pytest.mark.parametrize("recording", recordings())
async def test_recorded_answer_is_read_as_it_was_meant(recording: dict[str, Any], split: int) -> None:
    expected = recording["expected"]
    if recording["status"] != 200 or expected.get("midstream_error"):
        with pytest.raises(ProviderFailure) as caught:
            await replayed(recording, split)
        if error := expected.get("error"):
            assert str(error["message"])[:40] in caught.value.message
        return
    completion = await replayed(recording, split)
    choice = completion.choices[0]
    assert choice.text == (expected["text"] or "")
    assert choice.reasoning == (expected["reasoning"] or "")
    calls = [(call.call_id, call.name, call.arguments) for call in choice.tool_calls]
    assert calls == [(call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"] or ()]
    assert len(completion.choices) == (expected.get("n_choices") or 1)
    own = completion.extra.data.get("finish_reasons", {}) if completion.extra is not None else {}
    assert own.get("0", choice.finish_reason) == expected["finish_reason"]
    usage = expected["usage"]
    if usage is None:
        assert completion.usage.estimated
        return
    details = usage.get("prompt_tokens_details") or {}
    assert completion.usage.input_tokens == usage["prompt_tokens"]
    assert completion.usage.output_tokens == usage["completion_tokens"]
    assert completion.usage.cached_tokens == (details.get("cached_tokens") or 0)
