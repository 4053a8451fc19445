"""Recorded answers of the Responses wire: what the adapter reads of them, and what the official SDK sees of them through us."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from cauce.domain.completion import Completion
from cauce.domain.delta import Reasoning, Text
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart, ToolCallPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_responses.provider import OpenAIResponses
from cauce.transport import HTTPTransport
from cauce.wire.openai_responses.decode import ResponsesDecoder
from tests.recordings.replay import answer, parameters, replaying
from tests.serving import serving, upstream_table

pytestmark = pytest.mark.anyio

SEVERAL = {"oai-respon-s-fe8c697": 2, "oai-respon-s-5c7dee9": 4}
"""Recordings that hold several responses one after the other; the manifest tells the last, a client reads the first."""

NO_RESPONSE = "cmp-respon-j-6b75c88"
"""The body of a chat completion, recorded under the path of Responses."""

RAW_REASONING = "cmp-respon-j-4b25c77"
"""Its reasoning is in `content`; the manifest counts summaries only."""

OURS = {"id", "created_at", "model", "metadata", "store", "previous_response_id", "background", "instructions"}
"""Fields of a response that Cauce answers itself: it was asked, not the upstream."""


class Recorded(msgspec.Struct):
    """The ports of a server that replays, and of a Cauce in front of it."""

    upstream: int
    cauce: int


@pytest.fixture(scope="module", params=[1_000_000, 7], ids=["whole", "in pieces"])
async def recorded(request: pytest.FixtureRequest) -> AsyncIterator[Recorded]:
    async with replaying(request.param) as port:
        async with serving(upstream_table("up", f"http://127.0.0.1:{port}/v1", wire="responses")) as served:
            yield Recorded(port, served.port)


async def replayed(port: int, recording: dict[str, Any]) -> Completion:
    """What the adapter makes of the recording."""
    url = f"http://127.0.0.1:{port}/v1"
    provider = OpenAIResponses("up", url, "", HTTPTransport("up"), DIALECTS["compatible"])
    request = Request("m", (Message("user", (TextPart("?"),)),))
    candidates = (Candidate(provider, recording["id"]),)
    call = Call(request=request, scope=Scope(), candidates=candidates, streamed=recording["stream"])
    try:
        return await collect(await provider.open(call))
    finally:
        await provider.aclose()


def fails(recording: dict[str, Any]) -> bool:
    expected = recording["expected"]
    return recording["status"] != 200 or bool(expected.get("midstream_error")) or recording["id"] == NO_RESPONSE


def functions(calls: tuple[ToolCallPart, ...]) -> list[tuple[str, str, str]]:
    """The calls of functions: the manifest does not list those of custom tools."""
    return [
        (call.call_id, call.name, call.arguments)
        for call in calls
        if call.extra is None or call.extra.data["item"].get("type") != "custom_tool_call"
    ]


@pytest.mark.parametrize("recording", parameters("responses"))
async def test_recorded_answer_is_read_as_it_was_meant(recorded: Recorded, recording: dict[str, Any]) -> None:
    expected = recording["expected"]
    if fails(recording):
        with pytest.raises(ProviderFailure) as caught:
            await replayed(recorded.upstream, recording)
        told = expected.get("error") or expected.get("midstream_error")
        if told:
            assert told["message"] in caught.value.message
        failures = {"model_not_found": "bad_request", "invalid_api_key": "auth", "insufficient_quota": "quota"}
        assert caught.value.failure == failures.get((told or {}).get("code"), "transient")
        return
    completion = await replayed(recorded.upstream, recording)
    (choice,) = completion.choices
    assert completion.extra is not None
    status = completion.extra.data["response"]["status"]
    if recording["id"] in SEVERAL:
        assert status == "completed" and choice.parts != () and choice.text != expected["text"]
        return
    assert choice.text + choice.refusal == (expected["text"] or "") + (expected["refusal"] or "")
    reasoning = "" if recording["id"] == RAW_REASONING else choice.reasoning
    assert reasoning == (expected["reasoning"] or "")
    assert functions(choice.tool_calls) == [
        (call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"] or ()
    ]
    assert status == expected["finish_reason"]
    word = {"incomplete": "length"}.get(status, "tool_calls" if choice.tool_calls else "stop")
    assert choice.finish_reason == ("content_filter" if choice.refusal else word)
    usage = expected["usage"]
    if usage is None:
        assert completion.usage.estimated
        return
    assert completion.usage.extra is not None and completion.usage.extra.data == usage
    assert completion.usage.input_tokens == usage["input_tokens"]
    assert completion.usage.output_tokens == usage["output_tokens"]
    assert completion.usage.cached_tokens == usage["input_tokens_details"].get("cached_tokens", 0)
    assert completion.usage.reasoning_tokens == usage["output_tokens_details"].get("reasoning_tokens", 0)


STREAMS = [one for one in parameters("responses") if one.id is None or ("-s-" in one.id and not fails(one.values[0]))]


@pytest.mark.parametrize("recording", STREAMS)
async def test_recorded_stream_decodes_alike_however_it_is_cut(recording: dict[str, Any]) -> None:
    _, body = answer(recording)

    def read(size: int) -> list[Any]:
        decoder = ResponsesDecoder("up")
        deltas = [one for place in range(0, len(body), size) for one in decoder.feed(body[place : place + size])]
        return deltas + decoder.finish()

    whole = read(len(body))
    assert read(1) == whole
    words = [one.text for one in whole if isinstance(one, Text | Reasoning)]
    assert words or [one for one in whole if not isinstance(one, Text | Reasoning)]


async def final(client: AsyncOpenAI, model: str, *, stream: bool) -> dict[str, Any]:
    """The response as the SDK has it in the end."""
    if not stream:
        return (await client.responses.create(model=model, input="?")).to_dict(warnings=False)
    async for event in await client.responses.create(model=model, input="?", stream=True):
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            return event.response.to_dict(warnings=False)
    raise AssertionError("the stream ended without a final response")


def known(value: Any) -> Any:
    """`value` without what says nothing: nulls, and lists and counts that older answers leave out instead of sending them empty."""
    if isinstance(value, list):
        return [known(one) for one in value]
    if not isinstance(value, dict):
        return value
    empty = {"logprobs": [], "cache_write_tokens": 0}
    return {
        name: known(one) for name, one in value.items() if one is not None and (name not in empty or one != empty[name])
    }


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("recording", parameters("responses"))
async def test_sdk_sees_through_cauce_what_it_sees_directly(recorded: Recorded, recording: dict[str, Any]) -> None:
    direct = AsyncOpenAI(base_url=f"http://127.0.0.1:{recorded.upstream}/v1", api_key="x", max_retries=0)
    through = AsyncOpenAI(base_url=f"http://127.0.0.1:{recorded.cauce}/v1", api_key="x", max_retries=0)
    async with direct, through:
        if fails(recording):
            with pytest.raises(openai.APIStatusError) as caught:
                await final(through, f"up/{recording['id']}", stream=recording["stream"])
            assert caught.value.status_code in (400, 404, 429, 502)
            return
        theirs = await final(direct, recording["id"], stream=recording["stream"])
        ours = await final(through, f"up/{recording['id']}", stream=recording["stream"])
        assert known(ours["output"]) == known(theirs["output"])
        assert known(ours["usage"]) == known(theirs["usage"]) or theirs["usage"] is None
        assert {name: value for name, value in known(ours).items() if name in known(theirs) and name not in OURS} == {
            name: value for name, value in known(theirs).items() if name not in OURS
        } or theirs["usage"] is None
        if recording["stream"]:
            # The SDK's own assembly checks that events fit together, and raises where they do not.
            async with through.responses.stream(model=f"up/{recording['id']}", input="?") as stream:
                numbers = [event.sequence_number async for event in stream]
            assert numbers == list(range(len(numbers)))
