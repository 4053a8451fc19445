"""What users of other gateways complained of, as it must not happen here. Public issues stand beside what they are about.

Most complaints have their test where the rest of their matter is; here are those that go through every surface.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.http import ask, connection, within
from tests.integration.test_accounting import ASKING
from tests.serving import MESSAGES, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

CONTENTS = [{"role": "user", "parts": [{"text": "Say hello."}]}]
STREAMED: dict[str, dict[str, Any]] = {
    "/llm/message": {"messages": MESSAGES},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Say hello."},
    "/v1/responses": {"input": "Say hello."},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 64},
    "/chat/stream/one": {"messages": MESSAGES},
    "/v1beta/models/up/m:streamGenerateContent?alt=sse": {"contents": CONTENTS},
    "/api/chat": {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "Hi."}]}]},
}
"""Every way to a stream."""
GOES_ON = {"/chat/stream/one", "/api/chat"}
"""Streams that do not end with their reader."""
PLAIN: dict[str, dict[str, Any]] = {
    **{path: body for path, body in STREAMED.items() if path.startswith(("/llm", "/v1/"))},
    "/v1beta/models/up/m:generateContent": {"contents": CONTENTS},
    "/v1/embeddings": {"input": "Say hello."},
}


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def body_of(path: str, *, stream: bool) -> dict[str, Any]:
    body = (STREAMED if stream else PLAIN)[path]
    return (
        body if "generateContent" in path or "GenerateContent" in path else {**body, "model": "up/m", "stream": stream}
    )


@pytest.mark.parametrize("path", STREAMED)
async def test_each_delta_has_come_before_the_next_one_is_sent(upstream: Upstream, path: str) -> None:
    """BerriAI/litellm#26102: the whole stream arrived in one lump."""
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="alpha beta gamma", gate=gate)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as client:
            await client.send("POST", path, msgspec.json.encode(body_of(path, stream=True)))
            gate.release()
            assert (await within(client.head()))[0] == 200
            assert b"beta" not in await within(client.until(b"alpha"))
            gate.release()
            assert b"gamma" not in await within(client.until(b"beta"))
            gate.release()
            await within(client.until(b"gamma"))
            for _ in range(9):
                gate.release()
            await within(upstream.record.idle.wait())


@pytest.mark.parametrize("begun", [False, True], ids=["before the first delta", "after it"])
@pytest.mark.parametrize(
    ("path", "stream"),
    [*[(path, True) for path in STREAMED if path not in GOES_ON], *[(path, False) for path in PLAIN]],
)
async def test_client_that_leaves_stops_the_upstream_and_pays_for_what_it_had(
    upstream: Upstream, path: str, stream: bool, begun: bool
) -> None:
    """BerriAI/litellm#13774, #30244, #31499: the upstream went on, paid for by nobody's row."""
    gate = asyncio.Semaphore(int(begun and stream))
    upstream.answers = [Reply(text="alpha beta gamma", gate=gate, stall_after=None if stream else 0, silent=not begun)]
    async with serving(upstream_table("up", upstream.base_url) + "[streams]\nhold_headers = 0.01\n") as served:
        async with connection(served.port) as client:
            await client.send("POST", path, msgspec.json.encode(body_of(path, stream=stream)))
            await within(upstream.asked.wait())
            if begun and stream:
                assert (await within(client.head()))[0] == 200
                await within(client.until(b"alpha"))
            client.abort()
        await within(upstream.closed.wait())
        async with asyncio.timeout(5):
            while (entry := served.runtime.services.last_entry("up")) is None:
                await asyncio.sleep(0)
    assert (entry.outcome, entry.n) == ("cancelled", 1)
    assert upstream.record.requests == {"m": 1}


def shapeless(asked: Ask) -> Reply:
    """JSON that is no answer of any wire: as a body, or as the first event."""
    if asked.streamed:
        return Reply(raw=b"data: 7\n\n", headers={"content-type": "text/event-stream"})
    return Reply(raw=b'{"choices": "a", "output": 7, "content": "b", "candidates": "c"}')


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_answers_of_the_wrong_shape_are_502_and_make_nobody_rest(
    upstream: Upstream, surface: Surface, stream: bool
) -> None:
    """They say nothing of how the provider is: the next call is asked and answered."""
    upstream.answers = [*[shapeless] * 12, Reply()]
    toml = f'[providers.up]\n{surface.provider.format(root=upstream.root)}api_key = "k"\n[retry]\nattempts = 1\n'
    async with serving(toml) as served:
        told = [await within(surface.asked(served.port, "up/m", stream=stream)) for _ in range(12)]
        health = (await ask(served.port, "GET", "/health")).json()
        well = await within(surface.asked(served.port, "up/m", stream=stream))
    assert {(one.kind, one.status) for one in told} == {("refused", 502)}
    assert (well.kind, well.text) == ("answer", "Hello from upstream.")
    assert len(upstream.requests) == 13 and "circuits" not in health["providers"]["up"]


@pytest.mark.parametrize(("word", "asked"), [("false", 1), ("true", 2), ("perhaps", 2)])
@pytest.mark.parametrize("status", [500, 503, 409])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_providers_own_word_on_asking_again_is_obeyed(
    upstream: Upstream, surface: Surface, status: int, word: str, asked: int
) -> None:
    upstream.answers = [Reply(status=status, error={"message": "no"}, headers={"x-should-retry": word}), Reply()]
    toml = f'[providers.up]\n{surface.provider.format(root=upstream.root)}api_key = "k"\n[retry]\nbase = 0\n'
    async with serving(toml, {"CAUCE_QUEUE__LENGTH": "0"}) as served:
        told = await within(surface.asked(served.port, "up/m", stream=False))
    assert len(upstream.requests) == asked
    assert told.kind == ("answer" if asked == 2 else "refused")


KEYED = f'[[auth.keys]]\nname = "k"\nhash = "{hash_key("k")}"\n'
BEARER = {"authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ('[budgets.keys."*"]\nday = 0.0001\n[facts."*/*"]\ninput_price = 100_000\noutput_price = 100_000\n', 402),
        ('[limits.keys."*"]\nrequests_per_minute = 0.001\n', 429),
    ],
    ids=["budget", "limit"],
)
async def test_no_route_leads_past_budgets_and_limits(upstream: Upstream, rule: str, status: int) -> None:
    """maximhq/bifrost#2873: other routes than chat passed the budget by."""
    toml = upstream_table("up", upstream.base_url) + KEYED + rule
    async with serving(toml, {"CAUCE_QUEUE__LENGTH": "0"}) as served:
        if status == 429:
            # The one that there is room for.
            first = await ask(served.port, "POST", "/llm/message", ASKING["/llm/message"], BEARER)
            assert first.status == 200
            upstream.script(Reply())
        for path, body in ASKING.items():
            told = await within(ask(served.port, "POST", path, body, BEARER))
            if path in ("/chat/stream/one", "/api/chat"):
                # Their headers leave at once: what fails is in the stream.
                assert told.status == 200 and b'"error"' in told.body, path
            else:
                assert told.status == status, (path, told.body)
    assert upstream.requests == []


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_answer_is_not_gone_on_with_past_its_budget(
    upstream: Upstream, other: Upstream, surface: Surface
) -> None:
    """BerriAI/litellm#26672: what came after the first check was not checked."""
    upstream.answers = [Reply(text="alpha beta gamma delta epsilon", cut_after=3)]
    toml = f'[providers.up]\n{surface.provider.format(root=upstream.root)}api_key = "k"\n'
    toml += upstream_table("up2", other.base_url) + KEYED + "[retry]\nattempts = 1\n"
    toml += '[models.both]\ncandidates = ["up/m", "up2/m"]\n[facts."up*/*"]\ninput_price = 100_000\noutput_price = 0\n'
    # Forty tokens of input cover the request, and not the one that tells what was written so far.
    for day, gone_on_with in ((4, False), (400, True)):
        upstream.script(*upstream.answers)
        other.script(Reply(text="and so on to the end of it."))
        async with serving(toml + f'[budgets.keys."*"]\nday = {day}\n') as served:
            body = {**surface.body, "model": "both", "stream": True}
            told = surface.outcome(await within(ask(served.port, "POST", surface.path, body, BEARER)), stream=True)
            spent = (await ask(served.port, "GET", "/usage", headers=BEARER)).json()["total"]["cost"]
        assert (told.kind, len(other.requests)) == (("answer", 1) if gone_on_with else ("broken off", 0))
        assert 0 < spent <= day
