"""Nothing that asks a model goes past the ledger, and nothing that asks leaves anything behind."""

import asyncio
import re
import threading
from typing import Any

import pytest

from cauce.server.app import BELOW, COLD, HOT
from cauce.server.gate import hash_key
from cauce.server.openapi.document import document
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
    "/v1/models/up/m:streamGenerateContent": GEMINI,
    "/v1beta/models/up/m:embedContent": {"content": {"parts": [{"text": "Another"}]}},
    "/v1/models/up/m:embedContent": {"content": {"parts": [{"text": "A third"}]}},
    "/v1beta/models/up/m:batchEmbedContents": {"requests": [{"content": {"parts": [{"text": "A fourth"}]}}]},
    "/v1/models/up/m:batchEmbedContents": {"requests": [{"content": {"parts": [{"text": "A fifth"}]}}]},
}
"""What is put to a model, by the path of each route that does so."""
_COUNTS = "counts tokens: no model answers"
_KEPT = "about what is in the log"
_NAMES = "tells names"
_TELLS = "tells what is known"
NOT_ASKING: dict[str, str] = {
    "POST /v1/responses/input_tokens": _COUNTS,
    "POST /v1/messages/count_tokens": _COUNTS,
    "POST /v1/models/{model}:countTokens": _COUNTS,
    "POST /v1beta/models/{model}:countTokens": _COUNTS,
    "POST /usage/estimate": "predicts",
    "POST /admin/route/explain": "predicts",
    "POST /feedback": "takes an opinion",
    "GET /usage": _TELLS,
    "GET /usage/forecast": _TELLS,
    "GET /metrics": _TELLS,
    "GET /health": "asks with ?probe=MODEL only: see test_probe_is_on_the_account_of_the_key_it_came_with",
    "GET /health/live": _TELLS,
    "GET /health/ready": _TELLS,
    "GET /": "pages",
    "GET /docs": "pages",
    "GET /openapi.json": "pages",
    "GET /v1/models": _NAMES,
    "GET /v1/models/{model}": _NAMES,
    "GET /v1beta/models": _NAMES,
    "GET /v1beta/models/{model}": _NAMES,
    "GET /chat/stream/{id}": _KEPT,
    "DELETE /chat/stream/{id}": _KEPT,
    "GET /chat/stream/{id}/resume": _KEPT,
    "POST /chat/stream/{id}/resume": _KEPT,
    "GET /api/chat/{id}/stream": _KEPT,
    "POST /api/chat/{id}/stop": _KEPT,
    "GET /v1/responses/{id}": _KEPT,
    "DELETE /v1/responses/{id}": _KEPT,
    "GET /v1/responses/{id}/input_items": _KEPT,
    "POST /v1/responses/{id}/cancel": _KEPT,
    "GET /conversations": "about what was said",
    "POST /conversations": "makes an empty one",
    "GET /conversations/{id}": "about what was said",
    "PATCH /conversations/{id}": "renames it",
    "DELETE /conversations/{id}": "erases it",
    "DELETE /users": "erases",
    "DELETE /users/{user}": "erases",
}
"""Routes that put nothing to a model, and why."""


def all_routes() -> set[str]:
    """Hot and cold ones, and those that are described, which tell what is below a prefix."""
    described = {
        f"{method.upper()} {path}"
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    cold = {f"GET {route.path.replace(':path}', '}')}" for route in COLD}
    return described | cold | {f"{method} {path}" for method, path in HOT}


def asks(route: str) -> bool:
    method, _, path = route.partition(" ")
    form = re.compile(re.sub(r"[{][^}]*[}]", ".+", path))
    return method == "POST" and any([form.fullmatch(asked) is not None for asked in ASKING])


def test_every_route_is_known_to_ask_a_model_or_not_to() -> None:
    routes = all_routes()
    for method, prefix, _ in BELOW:
        below = [route for route in routes if route.partition(" ")[2].startswith(prefix)]
        assert [route for route in below if route.startswith(method)], f"nothing below {prefix} is described"
    asking = {route for route in routes if asks(route)}
    assert routes - asking == set(NOT_ASKING), "a route is missing in ASKING or in NOT_ASKING, or is there no more"


async def test_whatever_asks_a_model_leaves_one_row_in_the_ledger(upstream: Upstream) -> None:
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
