"""Recorded answers of the chat wire, replayed through a local server into the adapter, and through our own server to the SDK.

`make test-recordings DATA=DIR` takes any folder with a `manifest.json` that lists recordings with the text, tool calls,
finish reason and usage a correct decoder finds.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, LengthFinishReasonError

from cauce.domain.completion import Completion
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.providers.transport import HTTPTransport
from cauce.wire.openai_chat.custom import input_of, is_custom
from tests.serving import serving, upstream_table

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


@contextlib.asynccontextmanager
async def served(recording: dict[str, Any], split: int) -> AsyncIterator[str]:
    """The base URL of a server that answers with the recording, sent in pieces of `split` bytes."""
    body = (DATA / recording["file"]).read_bytes()
    head = f"HTTP/1.1 {recording['status']} Recorded\r\ncontent-length: {len(body)}\r\n"
    head += "".join([f"{name}: {value}\r\n" for name, value in (recording.get("headers") or {}).items()])
    head += f"content-type: {recording['content_type'] or 'application/json'}\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if not request.startswith(b"POST"):
            writer.write(b"HTTP/1.1 404 Not Here\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
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
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def replayed(recording: dict[str, Any], split: int) -> Completion:
    """What the adapter makes of the recording."""
    async with served(recording, split) as base_url:
        provider = OpenAICompatible("up", base_url, "", HTTPTransport("up"), DIALECTS["compatible"])
        request = Request("m", (Message("user", (TextPart("?"),)),))
        call = Call(
            request=request, scope=Scope(), candidates=(Candidate(provider, "m"),), streamed=recording["stream"]
        )
        try:
            return await collect(await provider.open(call))
        finally:
            await provider.aclose()


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
    assert choice.refusal == (expected["refusal"] or "")
    calls = [
        (call.call_id, call.name, input_of(call.arguments) if is_custom(call.extra) else call.arguments)
        for call in choice.tool_calls
    ]
    if "resp:legacy_function_call" in recording["features"]:
        # Calls of the old form have no id, and are not among those expected.
        assert [name for _, name, _ in calls] == ["get_current_weather"]
    else:
        assert calls == [(call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"] or ()]
    assert len(completion.choices) == (expected.get("n_choices") or 1)
    own = completion.extra.data.get("finish_reasons", {}) if completion.extra is not None else {}
    reason = {"function_call": "tool_calls"}.get(expected["finish_reason"], expected["finish_reason"])
    assert own.get("0", choice.finish_reason) == reason
    usage = expected["usage"]
    if usage is None:
        assert completion.usage.estimated
        return
    details = usage.get("prompt_tokens_details") or {}
    assert completion.usage.input_tokens == usage["prompt_tokens"]
    assert completion.usage.output_tokens == usage["completion_tokens"]
    assert completion.usage.cached_tokens == (details.get("cached_tokens") or 0)


def answered() -> list[Any]:
    """The recordings that hold an answer."""
    return [
        one
        for one in recordings()
        if one.values[0] is None
        or (one.values[0]["status"] == 200 and not one.values[0]["expected"].get("midstream_error"))
    ]


async def assembled(base_url: str, model: str, recording: dict[str, Any]) -> dict[str, Any]:
    """What the SDK makes of the answer of `base_url`: the completion at the end of its stream, or the plain one."""
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    if "resp:legacy_function_call" in recording["features"]:
        asked["functions"] = [{"name": "get_current_weather", "parameters": {"type": "object", "properties": {}}}]
    async with AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        if not recording["stream"]:
            completion = await client.chat.completions.create(**asked)
            return significant(completion.model_dump())
        try:
            async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
                return significant((await stream.get_final_completion()).model_dump())
        except LengthFinishReasonError as error:
            return significant(error.completion.model_dump())


def significant(value: Any) -> Any:
    """`value` without what may be ours (id, model, created) and without members that say nothing."""
    if isinstance(value, list):
        return [significant(item) for item in value]
    if not isinstance(value, dict):
        return value
    own = {"id", "model", "created"} if "choices" in value else set()
    kept = {name: significant(item) for name, item in value.items() if name not in own}
    if "role" in kept:
        # Servers that repeat it in every chunk make the SDK repeat it too.
        kept["role"] = "assistant"
    return {name: item for name, item in kept.items() if item not in (None, [], {}, "")}


UNREADABLE = {
    "cmp-chat-s-75fb6ab": "content that comes in lists, which the SDK cannot join: we show text and reasoning",
    "cmp-chat-s-45f97cb": "annotations that come one by one without an index, at which the SDK breaks: we show one list",
    "cmp-chat-s-2dd26a8": "a first tool call with the index 1, at which the SDK breaks: we count from 0",
}
"""Streams the SDK itself cannot read, and why ours is read all the same."""

KEPT = {"oai-chat-s-2dd8396": "prompt_filter_results"}
"""What stands in a chunk that the SDK leaves out of what it assembles, and we show where it keeps it."""


@pytest.mark.parametrize("recording", answered())
async def test_the_sdk_assembles_the_same_from_us_as_from_the_upstream(recording: dict[str, Any]) -> None:
    async with served(recording, 4096) as base_url, serving(upstream_table("up", base_url)) as running:
        ours = await assembled(running.v1, "up/m", recording)
    if recording["id"] in UNREADABLE:
        expected, message = recording["expected"], ours["choices"][0]["message"]
        assert message.get("content", "") == (expected["text"] or "")
        assert message.get("reasoning_content", "") == (expected["reasoning"] or "")
        assert [call["id"] for call in message.get("tool_calls", [])] == [call["id"] for call in expected["tool_calls"]]
        return
    async with served(recording, 4096) as base_url:
        theirs = await assembled(base_url, "m", recording)
    if "usage" not in theirs:
        # We estimate what nobody counted, and show what was counted where the SDK looks for it.
        del ours["usage"]
    ours.pop(KEPT.get(recording["id"], ""), None)
    assert ours == theirs
