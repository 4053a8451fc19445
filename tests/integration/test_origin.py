"""Where an answer came from: one that goes through the log says the same as one that does not, and says it again."""

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cauce.bootstrap.caching import FILE
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

TOLD = ("x-cauce-model", "x-cauce-attempts", "x-cauce-cache", "x-cauce-level", "age")
DOWN = Reply(status=503, error={"message": "down"})
NO_STORE, NO_CACHE = {"Cache-Control": "no-store"}, {"Cache-Control": "no-cache"}

CHAT = "/v1/chat/completions"
COLD: dict[str, Any] = {"model": "up/m", "messages": MESSAGES, "temperature": 0}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}], "generationConfig": {"temperature": 0}}


class Surface(NamedTuple):
    """What is sent where. `path` of a stream is another one only with Gemini, which says nothing of it in its body."""

    path: str
    body: dict[str, Any]
    streamed: str = ""

    def at(self, *, stream: bool) -> str:
        return self.streamed if stream and self.streamed else self.path

    def asks(self, *, stream: bool) -> dict[str, Any]:
        return self.body if self.streamed else {**self.body, "stream": stream}


SURFACES = {
    "chat": Surface(CHAT, COLD),
    "completions": Surface("/v1/completions", {"model": "up/m", "prompt": "Say hello.", "temperature": 0}),
    "responses": Surface("/v1/responses", {"model": "up/m", "input": "Say hello.", "temperature": 0}),
    "messages": Surface("/v1/messages", {**COLD, "max_tokens": 64}),
    "native": Surface("/llm/message", COLD),
    "gemini": Surface(
        "/v1beta/models/up%2Fm:generateContent",
        GEMINI,
        "/v1beta/models/up%2Fm:streamGenerateContent?alt=sse",
    ),
}


class Case(NamedTuple):
    """What the cache does. `primed`: there is an answer of before. `fails`: the model does not answer any more."""

    told: tuple[str, str, str]
    """Attempts, what the cache did, the level."""
    headers: dict[str, str] = {}  # noqa: RUF012 (a constant)
    primed: bool = True
    fails: bool = False
    ttl: float = 300.0


CASES = {
    "hit": Case(("0", "hit", "cache")),
    "stale": Case(("1", "stale", "cache"), fails=True, ttl=0.0),
    "miss": Case(("1", "miss", "primary"), NO_CACHE, primed=False),
    "refreshed": Case(("1", "miss", "primary"), NO_CACHE),
    "not asked": Case(("1", "none", "primary"), NO_STORE),
}


def origin(response: Response) -> dict[str, str]:
    assert response.status == 200, response.body
    return {name: value for name, value in response.headers.items() if name in TOLD}


def told(origin: dict[str, str]) -> tuple[str, str, str]:
    return origin["x-cauce-attempts"], origin["x-cauce-cache"], origin["x-cauce-level"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
async def test_answer_through_the_log_says_what_one_beside_it_does(
    upstream: Upstream, surface: Surface, stream: bool, case: Case
) -> None:
    toml = upstream_table("up", upstream.base_url) + f"[cache]\nttl = {case.ttl}\n"
    async with serving(toml, ONE_TRY) as served:

        async def said(**headers: str) -> dict[str, str]:
            path, body = surface.at(stream=stream), surface.asks(stream=stream)
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return origin(await ask(served.port, "POST", path, body, {**case.headers, **given}))

        if case.primed:
            await ask(served.port, "POST", surface.path, surface.asks(stream=False))
        if case.fails:
            upstream.script(DOWN)
        beside = await said()
        logged = await said(Idempotency_Key="k")
        asked = len(upstream.requests)
        again = await said(Idempotency_Key="k")
        durable = await said(x_cauce_durable="true")
    assert told(beside) == case.told and beside["x-cauce-model"] == "up/m"
    assert ("age" in beside) == (case.told[1] in ("hit", "stale"))
    assert logged == again == durable == beside
    assert len(upstream.requests) == asked + (case.told[0] == "1")


def made_older(data: Path, seconds: float) -> None:
    """Have what is kept on disk be that much older."""
    with sqlite3.connect(data / FILE) as kept:
        kept.execute("UPDATE answers SET stored = stored - ?", (seconds,))
    kept.close()


async def by_key(served: Served, **fields: Any) -> dict[str, str]:
    return origin(await ask(served.port, "POST", CHAT, {**COLD, **fields}, {"Idempotency-Key": "k"}))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("older", "use"), [(100.0, "hit"), (1000.0, "stale")], ids=["hit", "stale"])
async def test_age_of_an_old_answer_is_that_when_it_was_given_whoever_reads_it_later(
    upstream: Upstream, tmp_path: Path, older: float, use: str, stream: bool
) -> None:
    toml = upstream_table("up", upstream.base_url)
    async with serving(toml, ONE_TRY, data=tmp_path) as served:
        await ask(served.port, "POST", CHAT, COLD)
    made_older(tmp_path, older)
    upstream.script(DOWN)
    async with serving(toml, ONE_TRY, data=tmp_path) as served:
        first = await by_key(served, stream=stream)
        beside = origin(await ask(served.port, "POST", CHAT, COLD))
    made_older(tmp_path, 50.0)
    async with serving(toml, ONE_TRY, data=tmp_path) as served:
        again = await by_key(served, stream=stream)
    assert first["x-cauce-cache"] == use and first == again
    assert older <= int(first["age"]) <= int(beside["age"]) < older + 50
    assert {**first, "age": ""} == {**beside, "age": ""}


async def test_rest_of_a_stream_comes_with_the_origin_of_its_beginning(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        await ask(served.port, "POST", CHAT, COLD)
        whole = await ask(served.port, "POST", CHAT, {**COLD, "stream": True}, {"Idempotency-Key": "k"})
        first = whole.body.split(b"\n\n")[0].split(b"\n")
        (number,) = [line.removeprefix(b"id: ").decode() for line in first if line.startswith(b"id: ")]
        resumed = {"Idempotency-Key": "k", "Last-Event-ID": number}
        rest = await ask(served.port, "POST", CHAT, {**COLD, "stream": True}, resumed)
    assert 0 < len(rest.body) < len(whole.body)
    assert origin(rest) == origin(whole) and told(origin(rest)) == ("0", "hit", "cache")


async def test_native_answer_out_of_the_log_says_whether_it_was_cached(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        answers = [
            (await ask(served.port, "POST", "/llm/message", COLD, headers)).json()
            for headers in ({"x-cauce-durable": "true", **NO_STORE}, {}, {"x-cauce-durable": "true"}, {})
        ]
    assert [answer["cached"] for answer in answers] == [False, False, True, True]
