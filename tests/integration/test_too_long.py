"""Prompts that are too long for a model, on every surface."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask
from tests.serving import MESSAGES, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

TURN = "Tell me about rivers, please. The Ebro is 930 km long. " * 20
WINDOW = 2000
TOO_LONG = {
    "message": "This model's maximum context length is 2000 tokens. However, your messages resulted in 6000 tokens.",
    "type": "invalid_request_error",
    "code": "context_length_exceeded",
}


@pytest.fixture
async def large() -> AsyncIterator[Upstream]:
    async with Upstream(Reply(text="room enough")) as server:
        yield server


def conversation(turns: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number in range(turns):
        messages += [{"role": "user", "content": f"{number} {TURN}"}, {"role": "assistant", "content": f"Well. {TURN}"}]
    return [*messages, {"role": "user", "content": "And now?"}]


def body(surface: Surface, **fields: Any) -> dict[str, Any]:
    said = conversation(6)
    if surface.name == "responses":
        return {**surface.body, "model": "r", "input": said, **fields}
    return {**surface.body, "model": "r", "messages": said, **fields}


def route(upstream: Upstream, *lines: str, known: bool = True) -> str:
    toml = upstream_table("up", upstream.base_url) + "[retry]\nattempts = 1\n"
    toml += "\n".join(["[models.r]", *(lines or ('candidates = ["up/m"]',)), ""])
    return toml + (f'[facts."up/*"]\ncontext_window = {WINDOW}\n' if known else "")


def text(surface: Surface, response: Response, *, stream: bool) -> str:
    outcome = surface.outcome(response, stream=stream)
    assert outcome.kind == "answer", response.body
    return outcome.text


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["truncate", "summarize"])
async def test_old_turns_are_left_out_and_clients_are_told(
    upstream: Upstream, surface: Surface, stream: bool, mode: str
) -> None:
    async with serving(route(upstream, 'candidates = ["up/m"]', f'overflow = "{mode}"')) as served:
        response = await ask(served.port, "POST", surface.path, body(surface, stream=stream))
    assert text(surface, response, stream=stream) == "Hello from upstream."
    [sent] = upstream.requests
    dropped = 13 - len(sent["messages"])
    assert dropped > 0 and response.headers["x-cauce-truncated"] == str(dropped)
    assert sent["messages"][-1]["content"] == "And now?"
    assert sent["messages"][0]["role"] == "user"
    assert ("The Ebro is 930 km long." in str(sent["messages"][0])) and (
        (f"[{dropped} earlier messages" in str(sent["messages"][0])) == (mode == "summarize")
    )


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("known", [True, False])
async def test_a_larger_window_is_asked_by_default(
    upstream: Upstream, large: Upstream, surface: Surface, known: bool
) -> None:
    upstream.answers = [Reply(status=400, error=TOO_LONG)]
    toml = route(upstream, 'candidates = ["up/m", "large/m"]', known=known) + upstream_table("large", large.base_url)
    async with serving(toml) as served:
        response = await ask(served.port, "POST", surface.path, body(surface))
    assert text(surface, response, stream=False) == "room enough"
    # Where the window is known, nobody is asked in vain.
    assert len(upstream.requests) == (0 if known else 1)
    assert response.headers["x-cauce-attempts"] == ("1" if known else "2")


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_says_how_long_it_is_and_what_the_window_is(
    upstream: Upstream, surface: Surface, stream: bool
) -> None:
    async with serving(route(upstream, 'candidates = ["up/m", "offline"]')) as served:
        response = await ask(served.port, "POST", surface.path, body(surface, stream=stream))
    assert response.status == 400
    assert b"up/m has a window of 2,000 tokens" in response.body and b"shorten it" in response.body
    if surface.name != "messages":
        assert surface.code(response.json()) == "context_length_exceeded"
    assert upstream.requests == []


async def test_upstream_that_refuses_is_asked_again_with_less(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=400, error=TOO_LONG), Reply(text="now it fits")]
    async with serving(route(upstream, 'candidates = ["up/m"]', 'overflow = "truncate"', known=False)) as served:
        response = await ask(served.port, "POST", "/llm/message", body(SURFACES[3]))
    assert response.json()["response"] == "now it fits"
    first, second = [len(sent["messages"]) for sent in upstream.requests]
    assert (first, response.headers["x-cauce-truncated"]) == (13, str(13 - second))


async def test_route_that_wants_an_error_gets_one(upstream: Upstream, large: Upstream) -> None:
    upstream.answers = [Reply(status=400, error=TOO_LONG)]
    lines = ('candidates = ["up/m", "large/m"]', 'overflow = "error"')
    toml = route(upstream, *lines, known=False) + upstream_table("large", large.base_url)
    async with serving(toml) as served:
        response = await ask(served.port, "POST", "/llm/message", body(SURFACES[3]))
    assert (response.status, response.json()["error_code"]) == (400, "context_length_exceeded")
    assert "maximum context length is 2000 tokens" in response.json()["error"]
    assert large.requests == []


async def test_stream_with_an_id_tells_of_it_in_a_frame(upstream: Upstream) -> None:
    async with serving(route(upstream, 'candidates = ["up/m"]', 'overflow = "truncate"')) as served:
        asked = {"model": "r", "messages": conversation(6)}
        response = await ask(served.port, "POST", "/chat/stream/one", asked)
    [told] = [frame for frame in response.frames() if frame.get("status") == "truncated" or "truncated" in str(frame)]
    assert told["type"] == "status"


async def test_short_request_is_told_nothing(upstream: Upstream) -> None:
    async with serving(route(upstream, 'candidates = ["up/m"]', 'overflow = "truncate"')) as served:
        response = await ask(served.port, "POST", "/llm/message", {"model": "r", "messages": MESSAGES})
    assert response.status == 200 and "x-cauce-truncated" not in response.headers
