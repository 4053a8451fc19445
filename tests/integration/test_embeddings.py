"""Embeddings through the whole server, with the official SDK."""

import asyncio
import base64
import re
import struct
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from cauce.stores.inproc.ledger import InprocLedger
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, within
from tests.serving import ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

VECTOR = [0.5, -0.25, 0.125]


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def served(upstream: Upstream, second: Upstream) -> AsyncIterator[Served]:
    tables = upstream_table("up", upstream.base_url) + upstream_table("other", second.base_url)
    route = '[models.vectors]\ncandidates = ["up/embed-1", "other/embed-2", "other/embed-1"]\n'
    async with serving(tables + route, ONE_TRY) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0) as sdk:
        yield sdk


async def test_sdk_gets_floats_whether_it_asks_for_them_or_for_base64(client: AsyncOpenAI, upstream: Upstream) -> None:
    by_default = await client.embeddings.create(model="up/embed-1", input="a text")
    as_floats = await client.embeddings.create(model="up/embed-1", input="a text", encoding_format="float")
    assert by_default.data[0].embedding == as_floats.data[0].embedding == VECTOR
    assert (by_default.model, by_default.usage.prompt_tokens) == ("up/embed-1", 7)
    assert all("encoding_format" not in body for body in upstream.requests)


async def test_base64_is_little_endian_float32(served: Served) -> None:
    body = {"model": "up/embed-1", "input": "a", "encoding_format": "base64"}
    answer = await ask(served.port, "POST", "/v1/embeddings", body)
    (entry,) = answer.json()["data"]
    assert base64.b64decode(entry["embedding"]) == struct.pack("<3f", *VECTOR)


async def test_many_inputs_keep_their_order(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers = [Reply(embedding=((1.0,), (2.0,), (3.0,)))]
    made = await client.embeddings.create(model="up/embed-1", input=["a", "b", "c"], dimensions=1, user="u")
    assert [(one.index, one.embedding) for one in made.data] == [(0, [1.0]), (1, [2.0]), (2, [3.0])]
    assert upstream.requests[0] == {"model": "embed-1", "input": ["a", "b", "c"], "dimensions": 1, "user": "u"}


async def test_tokens_are_passed_on(client: AsyncOpenAI, upstream: Upstream) -> None:
    made = await client.embeddings.create(model="up/embed-1", input=[[1, 2], [3]])
    assert len(made.data) == 2 and upstream.requests[0]["input"] == [[1, 2], [3]]


async def test_tokens_count_as_many_as_they_are(upstream: Upstream) -> None:
    # A tenth of what a minute has may be used at once: five calls of a thousand tokens, and what stands around them.
    toml = upstream_table("up", upstream.base_url, tokens_per_minute=55_000)
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate) for _ in range(6)]
    async with serving(toml, {"CAUCE_QUEUE__LENGTH": "0"}) as running:
        bodies = [{"model": "up/embed-1", "input": [[n] * 500, [2] * 500]} for n in range(6)]
        calls = [asyncio.create_task(ask(running.port, "POST", "/v1/embeddings", body)) for body in bodies]
        (refused,), _ = await within(asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED))
        for _ in calls:
            gate.release()
        statuses = sorted([answer.status for answer in await within(asyncio.gather(*calls))])
        entry = running.runtime.services.last_entry("up")
    assert (refused.result().status, statuses) == (429, [200] * 5 + [429])
    assert entry is not None and entry.endpoint == "embeddings"


async def test_two_thousand_inputs_are_taken(client: AsyncOpenAI) -> None:
    assert len((await client.embeddings.create(model="up/embed-1", input=["a"] * 2048)).data) == 2048


async def test_answer_says_where_it_came_from(served: Served) -> None:
    answer = await ask(served.port, "POST", "/v1/embeddings", {"model": "vectors", "input": "a"})
    assert answer.headers["x-cauce-model"] == "up/embed-1"
    assert (answer.headers["x-cauce-attempts"], answer.headers["x-cauce-level"]) == ("1", "primary")
    assert "x-cauce-request-id" in answer.headers


async def test_only_the_very_same_model_is_asked_instead(served: Served, upstream: Upstream, second: Upstream) -> None:
    upstream.answers = [Reply(status=503)]
    answer = await ask(served.port, "POST", "/v1/embeddings", {"model": "vectors", "input": "a"})
    assert answer.status == 200 and answer.headers["x-cauce-model"] == "other/embed-1"
    assert answer.headers["x-cauce-attempts"] == "2"
    assert [body["model"] for body in second.requests] == ["embed-1"]


async def test_every_attempt_is_accounted_for(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(status=503)]
    await ask(served.port, "POST", "/v1/embeddings", {"model": "vectors", "input": "a"})
    last = served.runtime.services.last_entry
    failed, done = last("up"), last("other")
    assert failed is not None and (failed.outcome, failed.error_code) == ("failed", "overloaded")
    assert done is not None and (done.outcome, done.usage.input_tokens) == ("completed", 7)


async def test_mistakes_and_upstreams_errors_are_told_in_this_wires_form(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="up/embed-1", input=["a", ""])
    assert caught.value.param == "input[1]"
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        await client.embeddings.create(model="nope", input="a")
    with pytest.raises(openai.BadRequestError, match="no provider of model 'offline' makes embeddings"):
        await client.embeddings.create(model="offline", input="a")
    upstream.answers = [Reply(status=429, error={"message": "slow down"}, retry_after=3)]
    with pytest.raises(openai.RateLimitError) as limited:
        await client.embeddings.create(model="up/embed-1", input="a")
    assert limited.value.response.headers["retry-after"] == "3"
    upstream.answers = [Reply(raw=b'{"data": []}')]
    with pytest.raises(openai.InternalServerError, match="0 embeddings for 1 inputs"):
        await client.embeddings.create(model="up/embed-2", input="a")


async def test_client_that_leaves_closes_the_upstream(client: AsyncOpenAI, upstream: Upstream, served: Served) -> None:
    upstream.answers = [Reply(silent=True)]
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).embeddings.create(model="up/embed-1", input="a")
    await within(upstream.closed.wait())
    entry = served.runtime.services.last_entry("up")
    assert entry is not None and entry.outcome == "cancelled"


async def test_path_takes_post_only(served: Served) -> None:
    answer = await ask(served.port, "GET", "/v1/embeddings")
    assert answer.status == 405 and answer.headers["allow"].startswith("POST")


# ---- cached and shared


TEXT = {"model": "up/embed-1", "input": "a text"}
DOWN = Reply(status=503, error={"message": "down"})


def origin(answer: Response) -> tuple[str, str, str]:
    """What the cache did, the level, and how many were asked."""
    told = answer.headers
    return told["x-cauce-cache"], told["x-cauce-level"], told["x-cauce-attempts"]


async def figures(served: Served, name: str) -> dict[str, float]:
    """Those of `/metrics` with that name, by their one label."""
    shown = (await ask(served.port, "GET", "/metrics")).body.decode()
    return {label: float(value) for label, value in re.findall(rf'^{name}{{\w+="(\w+)"}} (\S+)$', shown, re.MULTILINE)}


async def test_hundred_identical_requests_at_once_ask_the_upstream_once(served: Served, upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    calls = [asyncio.create_task(ask(served.port, "POST", "/v1/embeddings", TEXT)) for _ in range(100)]
    await within(upstream.asked.wait())
    gate.release()
    answers = await within(asyncio.gather(*calls))
    assert len(upstream.requests) == 1
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    told = [origin(answer) for answer in answers]
    assert (told.count(("miss", "primary", "1")), told.count(("hit", "cache", "0"))) == (1, 99)
    health = (await ask(served.port, "GET", "/health")).json()
    requests = await figures(served, "cauce_cache_requests_total")
    assert health["answers"] == {"primary": 1, "cache": 99}
    assert requests["miss"] == 1 and requests["shared"] + requests["hit"] == 99
    ledger = served.runtime.services.usage
    assert isinstance(ledger, InprocLedger)
    rows = [(entry.endpoint, entry.level, entry.outcome, entry.usage.input_tokens) for entry in ledger.entries()]
    assert sorted(rows) == [("embeddings", "cache", "completed", 7)] * 99 + [("embeddings", "primary", "completed", 7)]


async def test_requests_that_are_not_looked_up_are_asked_each_on_its_own(served: Served, upstream: Upstream) -> None:
    library = {**TEXT, "input": [str(number) for number in range(17)]}
    for body, headers in ((library, {}), (TEXT, {"Cache-Control": "no-store"})):
        calls = [ask(served.port, "POST", "/v1/embeddings", body, headers) for _ in range(3)]
        answers = await within(asyncio.gather(*calls))
        assert [origin(answer) for answer in answers] == [("none", "primary", "1")] * 3
    assert len(upstream.requests) == 6


async def test_old_vectors_stand_in_when_no_provider_of_the_model_answers(upstream: Upstream, second: Upstream) -> None:
    tables = upstream_table("up", upstream.base_url) + upstream_table("other", second.base_url)
    toml = tables + '[models.vectors]\ncandidates = ["up/embed-1", "other/embed-1"]\n[cache]\nttl = 0.0\n'
    async with serving(toml, ONE_TRY) as served:
        body = {"model": "vectors", "input": "a text"}
        fresh = await ask(served.port, "POST", "/v1/embeddings", body)
        upstream.script(DOWN)
        second.script(DOWN)
        stale = await ask(served.port, "POST", "/v1/embeddings", body)
        refused = await ask(served.port, "POST", "/v1/embeddings", body, {"Cache-Control": "no-cache"})
        never = await ask(served.port, "POST", "/v1/embeddings", {**body, "input": "another"})
        health = (await ask(served.port, "GET", "/health")).json()
        requests = await figures(served, "cauce_cache_requests_total")
        answers = await figures(served, "cauce_answers_total")
        ledger = served.runtime.services.usage
        assert isinstance(ledger, InprocLedger)
        entry = next(entry for entry in ledger.entries() if entry.level == "cache")
    assert stale.body == fresh.body
    assert (origin(fresh), origin(stale)) == (("miss", "primary", "1"), ("stale", "cache", "2"))
    assert "age" in stale.headers and stale.headers["x-cauce-model"] == "up/embed-1"
    assert [(one.status, one.headers["x-cauce-attempts"]) for one in (refused, never)] == [(503, "2"), (503, "2")]
    assert health["answers"] == {"primary": 1, "cache": 1} and answers["cache"] == 1
    assert requests["stale"] == 1 and requests["miss"] == 4
    assert (entry.endpoint, entry.outcome, entry.usage.cost) == ("embeddings", "completed", 0.0)
