"""Logged calls of the official SDKs: they read the ids and the heartbeats between events, and what is repeated is the same."""

from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.clients.front import KEY, in_front_of
from tests.clients.py import given
from tests.clients.table import CLIENTS
from tests.clients.workers import Given, Workers
from tests.http import ask
from tests.serving import serving

pytestmark = pytest.mark.anyio

TOOL = {"name": given.WEATHER, "description": given.WEATHER_TELLS, "input_schema": given.WEATHER_TAKES}


def text(events: list[Any]) -> str:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join([delta["text"] for delta in deltas if delta["type"] == "text_delta"])


@pytest.mark.parametrize("name", ["anthropic", "anthropic-older"])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_anthropic_python_reads_ids_and_heartbeats(
    workers: Workers, upstream: Upstream, name: str, kind: str
) -> None:
    client = next(one for one in CLIENTS if one.name == name)
    upstream.answers = [Reply(text="Hola río arriba", pace=0.05, tool_calls=((given.WEATHER, '{"city": "Sevilla"}'),))]
    quick = {"CAUCE_STREAMS__HEARTBEAT": "0.01", "CAUCE_STREAMS__HOLD_HEADERS": "0.01"}
    more = {"tools": [TOOL], "extra_headers": {"Idempotency-Key": "k"}}
    async with serving(in_front_of(upstream, kind), quick) as served:
        worker = workers.of(client.environment, client.script)
        first, again = [await worker.run("events", Given(served.url, KEY, more={"more": more})) for _ in range(2)]
        place = "/chat/stream/anthropic:k/resume?wire=anthropic&after=0"
        raw = await ask(served.port, "GET", place, headers={"x-api-key": KEY})
    assert first == again and text(first["events"]) == "Hola río arriba"
    calls = [event["delta"] for event in first["events"] if event.get("delta", {}).get("type") == "input_json_delta"]
    assert [call["partial_json"] for call in calls] == ['{"city": "Sevilla"}']
    assert first["events"][-1]["type"] == "message_stop" and raw.body.startswith(
        b"id: 1\nretry: 1000\nevent: message_start"
    )
    assert len(upstream.requests) == 1


async def test_openai_node_reads_ids_and_heartbeats(workers: Workers, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="Hola río arriba", pace=0.05)]
    quick = {"CAUCE_STREAMS__HEARTBEAT": "0.01", "CAUCE_STREAMS__HOLD_HEADERS": "0.01"}
    headers = {"headers": {"Idempotency-Key": "k"}}
    async with serving(in_front_of(upstream, "openai"), quick) as served:
        worker = workers.of("node", "openai.mjs")
        seen = [await worker.run("stream", Given(served.url, KEY, more=headers)) for _ in range(2)]
    assert seen == [{"text": "Hola río arriba"}] * 2 and len(upstream.requests) == 1
