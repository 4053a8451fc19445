"""The official `anthropic` SDKs, further than every client goes: what coding agents rely on."""

from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream, fault
from tests.clients.front import KEY, in_front_of
from tests.clients.page import Proved
from tests.clients.py import given
from tests.clients.table import CLIENTS, KINDS, MESSAGES
from tests.clients.workers import Given, Workers
from tests.serving import serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.parametrize("name", ["anthropic", "anthropic-older"]),
]

TOOL = {"name": given.WEATHER, "description": given.WEATHER_TELLS, "input_schema": given.WEATHER_TAKES}
THINKING = {"type": "enabled", "budget_tokens": 2048}


async def asked(workers: Workers, upstream: Upstream, kind: str, name: str, case: str, **more: Any) -> Any:
    """What the client saw through Cauce."""
    client = next(one for one in CLIENTS if one.name == name)
    assert client.speaks == MESSAGES
    async with serving(in_front_of(upstream, kind)) as served:
        there = Given(served.url, KEY, more=more)
        return await workers.of(client.environment, client.script).run(case, there)


async def test_key_is_taken_from_either_header(
    workers: Workers, upstream: Upstream, kind: str, name: str, proved: Proved
) -> None:
    for header in ("authorization", "x-api-key"):
        seen = await asked(workers, upstream, kind, name, "other_header", header=header)
        assert seen == {"text": "Hello from upstream."}, header
    for sent in upstream.headers:
        # The provider gets its own key, never the client's.
        assert KEY not in str(sent) and "upstream-key" in str(sent)
    proved(name, kind, "headers")


async def test_call_is_given_its_time_in_a_header(workers: Workers, upstream: Upstream, kind: str, name: str) -> None:
    assert await asked(workers, upstream, kind, name, "short_time", seconds="15") == {"text": "Hello from upstream."}
    upstream.script(fault("hang"))
    late = await asked(workers, upstream, kind, name, "short_time", seconds="0.3")
    wrong = await asked(workers, upstream, kind, name, "short_time", seconds="soon")
    assert late["status"] == 504 and late["told"]["type"] == "error"
    assert wrong["status"] == 400 and "X-Cauce-Timeout" in wrong["told"]["error"]["message"]


async def test_events_have_the_order_and_the_fields_that_agents_read(
    workers: Workers, upstream: Upstream, kind: str, name: str, proved: Proved
) -> None:
    upstream.answers = [
        Reply(text="Let me see.", reasoning="Ask the tool.", tool_calls=((given.WEATHER, '{"city": "Sevilla"}'),))
    ]
    seen = await asked(workers, upstream, kind, name, "events", more={"tools": [TOOL], "thinking": THINKING})
    events = [event for event in seen["events"] if event["type"] != "ping"]
    start, ends = events[0], events[-2:]
    message = start["message"]
    assert start["type"] == "message_start" and message["type"] == "message" and message["role"] == "assistant"
    assert message["id"].startswith("msg_") and message["model"] and message["content"] == []
    assert message["stop_reason"] is None and message["stop_sequence"] is None
    assert {"input_tokens", "output_tokens"} <= set(message["usage"])
    _blocks(events[1:-2])
    assert [end["type"] for end in ends] == ["message_delta", "message_stop"]
    assert ends[0]["delta"]["stop_reason"] == "tool_use" and ends[0]["delta"]["stop_sequence"] is None
    assert ends[0]["usage"]["output_tokens"] == 5
    proved(name, kind, "events")


def _blocks(events: list[Any]) -> None:
    """Blocks one after the other, each begun empty, told by deltas of its own kind, and ended."""
    blocks: list[Any] = []
    told: list[dict[str, str]] = []
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(blocks) and all(block["ended"] for block in blocks)
                blocks.append({**event["content_block"], "ended": False})
                told.append({})
            case "content_block_delta":
                assert event["index"] == len(blocks) - 1 and not blocks[-1]["ended"]
                delta = event["delta"]
                (name,) = set(delta) - {"type"}
                told[-1][delta["type"]] = told[-1].get(delta["type"], "") + delta[name]
            case "content_block_stop":
                assert event["index"] == len(blocks) - 1 and not blocks[-1]["ended"]
                blocks[-1]["ended"] = True
            case other:
                raise AssertionError(other)
    # The signature of another maker's call travels in a block of its own, which clients hand back.
    kept = [
        place
        for place, block in enumerate(blocks)
        if block["type"] == "thinking" and "thinking_delta" not in told[place]
    ]
    for place in reversed(kept):
        assert set(told.pop(place)) == {"signature_delta"} and blocks.pop(place)["ended"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"] and blocks[-1]["ended"]
    thinking, text, call = blocks
    assert thinking["thinking"] == "" and text["text"] == "" and call["input"] == {}
    assert call["name"] == given.WEATHER and call["id"]
    assert told[0]["thinking_delta"] == "Ask the tool." and set(told[0]) <= {"thinking_delta", "signature_delta"}
    assert told[1] == {"text_delta": "Let me see."}
    assert set(told[2]) == {"input_json_delta"} and '"Sevilla"' in told[2]["input_json_delta"]
