"""Recorded answers of Anthropic's wire: what the adapter reads of them, and what a client of the same wire sees of them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Completion
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.anthropic.provider import Anthropic
from cauce.transport import HTTPTransport
from cauce.wire.sse import SSEDecoder
from tests.http import ask
from tests.recordings.replay import answer, parameters, replaying
from tests.serving import serving

_FAILURES = {400: "bad_request", 401: "auth", 404: "bad_request"}

pytestmark = pytest.mark.anyio


class Recorded(msgspec.Struct):
    """The ports of a server that replays, and of a Cauce in front of it."""

    upstream: int
    cauce: int


@pytest.fixture(scope="module", params=[1_000_000, 7], ids=["whole", "in pieces"])
async def recorded(request: pytest.FixtureRequest) -> AsyncIterator[Recorded]:
    async with replaying(request.param) as port:
        table = f'[providers.up]\nkind = "anthropic"\nbase_url = "http://127.0.0.1:{port}"\n'
        async with serving(table) as served:
            yield Recorded(port, served.port)


async def replayed(port: int, recording: dict[str, Any]) -> Completion:
    """What the adapter makes of the recording."""
    provider = Anthropic("up", f"http://127.0.0.1:{port}", "", HTTPTransport("up"))
    request = Request("m", (Message("user", (TextPart("?"),)),))
    candidates = (Candidate(provider, recording["id"]),)
    call = Call(request=request, scope=Scope(), candidates=candidates, streamed=recording["stream"])
    try:
        return await collect(await provider.open(call))
    finally:
        await provider.aclose()


def events(body: bytes) -> list[dict[str, Any]]:
    decoder = SSEDecoder()
    return [json.loads(event.data) for event in (*decoder.feed(body), *decoder.finish())]


def assembled(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that events make, put together by hand as the official SDK does it."""
    message: dict[str, Any] = {}
    joined: dict[int, str] = {}
    for event in found:
        match event:
            case {"type": "message_start"}:
                message = event["message"]
            case {"type": "content_block_start"}:
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                block = message["content"][index]
                match delta:
                    case {"type": "text_delta"}:
                        block["text"] += delta["text"]
                    case {"type": "thinking_delta"}:
                        block["thinking"] += delta["thinking"]
                    case {"type": "signature_delta"}:
                        block["signature"] = delta["signature"]
                    case {"type": "citations_delta"}:
                        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
                    case {"type": "compaction_delta"}:
                        block["content"] = delta["content"]
                    case {"type": "input_json_delta"}:
                        joined[index] = joined.get(index, "") + delta["partial_json"]
            case {"type": "message_delta"}:
                message.update(event["delta"])
                message.update({name: event[name] for name in event if name not in ("type", "delta", "usage")})
                message["usage"].update({name: value for name, value in event["usage"].items() if value is not None})
            case _:
                continue
    assert found[-1]["type"] == "message_stop"
    for index, text in joined.items():
        message["content"][index]["input"] = json.loads(text or "{}")
    return message


@pytest.mark.parametrize("recording", parameters("messages"))
async def test_recorded_answer_is_read_as_it_was_meant(recorded: Recorded, recording: dict[str, Any]) -> None:
    expected = recording["expected"]
    if recording["status"] != 200:
        with pytest.raises(ProviderFailure) as caught:
            await replayed(recorded.upstream, recording)
        assert caught.value.failure == _FAILURES[recording["status"]]
        assert expected["error"]["message"] in caught.value.message
        assert caught.value.should_retry is (False if "x-should-retry" in (recording["headers"] or {}) else None)
        return
    completion = await replayed(recorded.upstream, recording)
    choice = completion.choices[0]
    assert choice.text == (expected["text"] or "")
    assert choice.reasoning == (expected["reasoning"] or "")
    calls = [(call.call_id, call.name, json.loads(call.arguments)) for call in choice.tool_calls]
    assert calls == [(call["id"], call["name"], call["input"]) for call in expected["tool_calls"] or ()]
    assert completion.extra is not None and completion.usage.extra is not None
    assert completion.extra.data["delta"]["stop_reason"] == expected["finish_reason"]
    usage = expected["usage"]
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    assert completion.usage.input_tokens == usage["input_tokens"] + cached + written
    assert completion.usage.output_tokens == usage["output_tokens"]
    assert (completion.usage.cached_tokens, completion.usage.cache_write_tokens) == (cached, written)
    assert {name: value for name, value in completion.usage.extra.data.items() if value is not None} == {
        name: value for name, value in usage.items() if value is not None
    }


@pytest.mark.parametrize("recording", parameters("messages"))
async def test_client_of_the_same_wire_sees_the_recorded_answer(recorded: Recorded, recording: dict[str, Any]) -> None:
    asked = {
        "model": f"up/{recording['id']}",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "?"}],
        "stream": recording["stream"],
    }
    response = await ask(recorded.cauce, "POST", "/v1/messages", asked)
    _, body = answer(recording)
    if recording["status"] != 200:
        assert response.status == {401: 502}.get(recording["status"], recording["status"])
        assert recording["expected"]["error"]["message"] in response.json()["error"]["message"]
        return
    direct = assembled(events(body)) if recording["stream"] else json.loads(body)
    ours = assembled(events(response.body)) if recording["stream"] else response.json()
    assert {**ours, "id": direct["id"], "model": direct["model"]} == direct


@pytest.mark.parametrize("recording", parameters("count_tokens"))
async def test_recorded_count_is_what_a_client_is_told(recorded: Recorded, recording: dict[str, Any]) -> None:
    asked = {"model": f"up/{recording['id']}", "messages": [{"role": "user", "content": "?"}]}
    response = await ask(recorded.cauce, "POST", "/v1/messages/count_tokens", asked)
    assert response.json() == {"input_tokens": recording["expected"]["input_tokens"]}
    assert "x-cauce-estimated" not in response.headers
