"""Nothing that asks a model goes past the ledger, and nothing that asks leaves anything behind."""

import asyncio
import threading
from typing import Any

import pytest

from cauce.server.app import HOT
from cauce.server.gate import hash_key
from cauce.testing.upstream import Upstream
from tests.http import ask, within
from tests.serving import MESSAGES, serving, upstream_table

pytestmark = pytest.mark.anyio

CHAT = {"model": "up/m", "messages": MESSAGES}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
ASKING: dict[str, dict[str, Any]] = {
    "/llm/message": CHAT,
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "up/m", "prompt": "Say"},
    "/v1/embeddings": {"model": "up/m", "input": "Say"},
    "/v1/responses": {"model": "up/m", "input": "Say hello."},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/chat/stream/one": CHAT,
    "/api/chat": {
        "model": "up/m",
        "id": "one",
        "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Say hello."}]}],
    },
    "/v1beta/models/up/m:generateContent": GEMINI,
    "/v1beta/models/up/m:streamGenerateContent": GEMINI,
    "/v1/models/up/m:generateContent": GEMINI,
    "/v1beta/models/up/m:embedContent": {"content": {"parts": [{"text": "Another"}]}},
}
NOT_ASKING = {
    "/v1/responses/input_tokens",
    "/v1/messages/count_tokens",
    "/feedback",
    "/usage/estimate",
    "/admin/route/explain",
}
"""Hot routes that put nothing to a model."""


async def test_whatever_asks_a_model_leaves_one_row_in_the_ledger(upstream: Upstream) -> None:
    assert {path for _, path in HOT} - NOT_ASKING <= set(ASKING), "a route is missing here"
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for number, (path, body) in enumerate(ASKING.items(), start=1):
            answered = await within(ask(served.port, "POST", path, body))
            assert answered.status == 200, (path, answered.body)
            entry = served.runtime.services.last_entry("up")
            assert entry is not None and entry.outcome == "completed", path
            assert entry.request_id == answered.headers["x-cauce-request-id"], path
            assert sum(upstream.record.answered.values()) == number, path


@pytest.mark.parametrize("query", ["probe=up/m", "%70robe=up/m", "probe=&pro%62e=up/m"])
async def test_probe_is_on_the_account_of_the_key_it_came_with_and_without_one_asks_nobody(
    upstream: Upstream, query: str
) -> None:
    keyed = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(keyed + upstream_table("up", upstream.base_url)) as served:
        refused = await ask(served.port, "GET", f"/health?{query}")
        assert (refused.status, served.runtime.services.last_entry("up")) == (401, None)
        assert upstream.requests == []
        probed = await ask(served.port, "GET", f"/health?{query}", headers={"Authorization": "Bearer secret"})
        entry = served.runtime.services.last_entry("up")
    assert probed.json()["probe"]["ok"] and len(upstream.requests) == 1
    assert entry is not None and (entry.outcome, entry.scope.key) == ("completed", "web")


async def test_many_different_callers_leave_no_task_no_thread_and_no_connection_behind(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:

        async def callers(first: int) -> None:
            for number in range(first, first + 60):
                body = {**CHAT, "user": f"user-{number}", "stream": number % 2 == 0, "temperature": number / 1000}
                answered = await ask(served.port, "POST", "/v1/chat/completions", body)
                assert answered.status == 200

        await callers(0)
        await within(upstream.record.idle.wait())
        tasks, threads, opened = len(asyncio.all_tasks()), threading.active_count(), upstream.record.opened
        await callers(60)
        await within(upstream.record.idle.wait())
        assert (len(asyncio.all_tasks()), threading.active_count()) == (tasks, threads)
        assert upstream.record.opened == opened
