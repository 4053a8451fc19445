"""Recorded answers of the chat wire, replayed through a local server into the adapter, and through our own server to the SDK.

`make test-recordings DATA=DIR` takes any folder with a `manifest.json` that lists recordings with the text, tool calls,
finish reason and usage a correct decoder finds.
"""

from collections.abc import AsyncIterator
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
from cauce.transport import HTTPTransport
from cauce.wire.openai_chat.custom import input_of, is_custom
from tests.recordings.replay import parameters, replaying
from tests.serving import serving, upstream_table

pytestmark = pytest.mark.anyio


async def replayed(recording: dict[str, Any], split: int) -> Completion:
    """What the adapter makes of the recording, sent in pieces of `split` bytes."""
    async with replaying(split) as port:
        dialect = DIALECTS["compatible"]
        provider = OpenAICompatible("up", f"http://127.0.0.1:{port}/v1", "", HTTPTransport("up"), dialect)
        call = Call(
            request=Request("m", (Message("user", (TextPart("?"),)),)),
            scope=Scope(),
            candidates=(Candidate(provider, recording["id"]),),
            streamed=recording["stream"],
        )
        try:
            return await collect(await provider.open(call))
        finally:
            await provider.aclose()


@pytest.mark.parametrize("split", [1_000_000, 7])
@pytest.mark.parametrize("recording", parameters("chat"))
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
        for one in parameters("chat")
        if one.values[0] is None
        or (one.values[0]["status"] == 200 and not one.values[0]["expected"].get("midstream_error"))
    ]


@pytest.fixture(scope="module")
async def addresses() -> AsyncIterator[tuple[str, str]]:
    """The base URLs of our server in front of the recordings, and of the recordings themselves."""
    async with replaying(4096) as port:
        theirs = f"http://127.0.0.1:{port}/v1"
        async with serving(upstream_table("up", theirs)) as running:
            yield running.v1, theirs


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
async def test_the_sdk_assembles_the_same_from_us_as_from_the_upstream(
    addresses: tuple[str, str], recording: dict[str, Any]
) -> None:
    ours_at, theirs_at = addresses
    ours = await assembled(ours_at, f"up/{recording['id']}", recording)
    if recording["id"] in UNREADABLE:
        expected, message = recording["expected"], ours["choices"][0]["message"]
        assert message.get("content", "") == (expected["text"] or "")
        assert message.get("reasoning_content", "") == (expected["reasoning"] or "")
        assert [call["id"] for call in message.get("tool_calls", [])] == [call["id"] for call in expected["tool_calls"]]
        return
    theirs = await assembled(theirs_at, recording["id"], recording)
    if "usage" not in theirs:
        # We estimate what nobody counted, and show what was counted where the SDK looks for it.
        del ours["usage"]
    ours.pop(KEPT.get(recording["id"], ""), None)
    assert ours == theirs
