"""Answers whose provider dies after any delta, read by the official SDKs and the AI SDK: whole, byte for byte, where a model goes on exactly."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.node import Node
from tests.clients.test_ui_chat import VERSIONS, chatting
from tests.clients.workers import Given, Workers
from tests.integration.test_recovery import ORACLE, Ends, both_ends

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def ends() -> AsyncIterator[Ends]:
    async with both_ends() as running:
        yield running


@pytest.mark.parametrize("case", ["anthropic_message", "gemini_answer"])
async def test_sdk_gets_the_answer_byte_for_byte_wherever_it_was_cut(workers: Workers, ends: Ends, case: str) -> None:
    worker = workers.of("clients", "recorded.py")
    for place in ends.places():
        told = await worker.run(case, Given(ends.served.url, model="route", more={"stream": True}))
        parts = told["content"] if case == "anthropic_message" else told["candidates"]["0"]["parts"]
        assert "".join([part["text"] for part in parts]) == ORACLE, place


@pytest.mark.parametrize(
    ("script", "more"),
    [
        pytest.param(script, {"api": api, **more}, id=f"{script}-{api}{'-logged' if more else ''}")
        for script, api, more in (
            ("openai.mjs", "chat", {}),
            ("openai.mjs", "responses", {}),
            ("openai.mjs", "chat", {"headers": {"X-Cauce-Durable": "true"}}),
            ("openai.mjs", "responses", {"headers": {"X-Cauce-Durable": "true"}}),
            ("ai.mjs", "compatible", {}),
            ("ai.mjs", "openai", {}),
            ("ai.mjs", "anthropic", {}),
        )
    ],
)
async def test_node_sdk_gets_the_answer_byte_for_byte_wherever_it_was_cut(
    workers: Workers, ends: Ends, script: str, more: dict[str, Any]
) -> None:
    worker = workers.of("node", script)
    for place in ends.places():
        told = await worker.run("stream", Given(ends.served.url, model="route", more=more))
        assert told["text"] == ORACLE, place


@pytest.mark.parametrize("version", VERSIONS)
async def test_chat_of_a_page_shows_the_answer_byte_for_byte_wherever_it_was_cut(
    node: Node, ends: Ends, version: str
) -> None:
    async with chatting(node, version, ends.served.url, body={"model": "route"}, id=f"tale-{version}") as chat:
        for place in ends.places():
            await chat.do("reload", messages=[])
            seen = await chat.said("Tell.")
            assert (seen["text"], seen["status"], seen["error"]) == (ORACLE, "ready", None), place
