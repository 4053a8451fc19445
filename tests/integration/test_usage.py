"""What was used and what it cost, as clients ask for it, in front of a fake upstream."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.stores.sqlite.reading import FILE
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Tokens
from tests.http import Response, ask, connection, within
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

PRICE = '[facts."up/*"]\ninput_price = 1000\noutput_price = 10000\ncached_price = 100\n'
"""USD per million: a cent is ten tokens in, or one out."""

TOKENS = Tokens(input=100, output=20, cached=40, reasoning=5)
DOLLARS = 60 * 0.001 + 40 * 0.0001 + 20 * 0.01
KEYS = "".join(
    [
        f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\ntenant = "{tenant}"\n'
        for name, tenant in (("web", "a"), ("app", "a"), ("other", "b"))
    ]
)


def configuration(upstream: Upstream, *more: str) -> str:
    return upstream_table("up", upstream.base_url) + PRICE + "".join(more)


def body(**changed: Any) -> dict[str, Any]:
    return {"model": "up/gpt", "messages": MESSAGES, **changed}


async def message(served: Served, key: str = "", **changed: Any) -> Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return await ask(served.port, "POST", "/llm/message", body(**changed), headers)


async def usage(served: Served, query: str = "", key: str = "", path: str = "/usage") -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = await ask(served.port, "GET", f"{path}?{query}", None, headers)
    assert response.status == 200, response.body
    return response.json()


def rows(data: Path) -> list[dict[str, Any]]:
    """The attempts on disk, each with its kind."""
    database = sqlite3.connect(data / "ledger" / FILE)
    database.row_factory = sqlite3.Row
    try:
        names = database.execute(
            "SELECT name FROM sqlite_schema WHERE name GLOB 'attempts_*' AND type = 'table'"
        ).fetchall()
        return [
            dict(row)
            for (name,) in names
            for row in database.execute(f"SELECT * FROM {name} a JOIN kinds k ON k.id = a.kind ORDER BY a.id")
        ]
    finally:
        database.close()


async def test_plain_and_streamed_answers_are_rows_with_what_the_provider_reported(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers = [Reply(usage=TOKENS)]
    async with serving(configuration(upstream), data=tmp_path) as served:
        plain = await message(served, conversation_id="c1")
        await message(served, stream=True)
        await ask(served.port, "POST", "/chat/stream/s1", body())
    first, second, third = rows(tmp_path)
    for row in (first, second, third):
        assert (row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"]) == (
            100,
            20,
            40,
            5,
        )
        assert (row["outcome"], row["source"], row["cost"]) == ("completed", "priced", pytest.approx(DOLLARS))
        assert (row["n"], row["endpoint"], row["level"], row["key"]) == (1, "chat", "primary", "anonymous")
        assert row["latency"] >= row["first_delta"] > 0
    assert (first["stream_id"], first["conversation_id"]) == (plain.json()["stream_id"], "c1")
    assert first["request_id"] == plain.headers["x-cauce-request-id"]
    assert third["stream_id"] == "s1"


@pytest.mark.parametrize("on_disk", [False, True])
async def test_usage_is_told_by_the_user_that_a_request_names(
    upstream: Upstream, tmp_path: Path, on_disk: bool
) -> None:
    asked = {"max_tokens": 9, "temperature": 0}
    async with serving(configuration(upstream), data=tmp_path if on_disk else None) as served:
        await message(served, user="ana", **asked)
        await ask(served.port, "POST", "/v1/messages", body(metadata={"user_id": "bea"}, **asked))
        await ask(served.port, "POST", "/v1/chat/completions", body(user="bea", stream=True, max_tokens=8))
        await ask(served.port, "POST", "/v1/embeddings", {"model": "up/e", "input": "x", "user": "cleo"})
        await message(served)
        told = await usage(served, "group_by=user,key")
        ana = await usage(served, "user=ana")
    assert {(group["user"], group["requests"]) for group in told["groups"]} == {("ana", 1), ("bea", 2), ("cleo", 1)}
    assert ana["total"]["requests"] == 1


@pytest.mark.parametrize("on_disk", [False, True])
async def test_usage_is_told_by_the_conversation_that_a_request_names(
    upstream: Upstream, tmp_path: Path, on_disk: bool
) -> None:
    async with serving(configuration(upstream), data=tmp_path if on_disk else None) as served:
        await message(served, conversation_id="c1", user="ana")
        await message(served, conversation_id="c1")
        await message(served, conversation_id="c2")
        await message(served)
        told = await usage(served, "group_by=conversation,model")
        one = await usage(served, "conversation=c1&group_by=day")
        await ask(served.port, "GET", "/usage/forecast?conversation=c1")
    assert {(group["conversation"], group["requests"]) for group in told["groups"]} == {("c1", 2), ("c2", 1)}
    assert (told["total"]["requests"], one["total"]["requests"]) == (3, 2)


async def test_failed_attempt_and_the_fallback_are_two_rows_of_one_request(upstream: Upstream, tmp_path: Path) -> None:
    upstream.scripts = {"bad": [Reply(status=503, error={"message": "no"})], "gpt": [Reply(usage=TOKENS)]}
    async with serving(configuration(upstream), ONE_TRY, tmp_path) as served:
        response = await message(served, model="up/bad", fallbacks=["up/gpt"])
        told = await usage(served, "group_by=model")
    failed, answered = rows(tmp_path)
    assert (failed["outcome"], failed["error"], failed["n"], failed["cost"]) == ("failed", "overloaded", 1, 0.0)
    assert (answered["outcome"], answered["level"], answered["n"]) == ("completed", "fallback", 2)
    assert failed["request_id"] == answered["request_id"] == response.headers["x-cauce-request-id"]
    assert (told["total"]["requests"], told["total"]["attempts"]) == (1, 2)
    groups = {group["model"]: group for group in told["groups"]}
    figures = {model: (group["requests"], group["answered"]) for model, group in groups.items()}
    assert figures == {"up/bad": (1, 0), "up/gpt": (0, 1)} and told["total"]["answered"] == 1
    assert groups["up/bad"]["errors"] == {"rate": 1.0, "by_code": {"overloaded": 1}}
    assert groups["up/gpt"]["errors"] == {"rate": 0.0, "by_code": {}}


async def test_cut_stream_is_a_failed_row_with_an_estimate(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(text="one two three four five six", cut_after=4)]
    once = {**ONE_TRY, "CAUCE_RECOVERY__ATTEMPTS": "0"}
    async with serving(configuration(upstream), once, tmp_path) as served:
        await message(served, stream=True)
        told = await usage(served)
    [row] = rows(tmp_path)
    assert (row["outcome"], row["source"], row["estimated"]) == ("failed", "estimated", 1)
    assert row["input_tokens"] > 0 and row["output_tokens"] > 0 and row["cost"] > 0
    assert told["estimated"]["cost"] == pytest.approx(row["cost"]) and told["estimated"]["attempts"] == 1


async def test_every_attempt_at_a_stream_that_is_gone_on_with_is_paid_for(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(text="one two three four five six", cut_after=4), Reply(text="five six", usage=TOKENS)]
    async with serving(configuration(upstream), ONE_TRY, tmp_path) as served:
        await message(served, stream=True)
        told = await usage(served)
    cut, whole = rows(tmp_path)
    assert (cut["outcome"], cut["n"], whole["outcome"], whole["n"]) == ("failed", 1, "completed", 2)
    assert cut["request_id"] == whole["request_id"] and cut["stream_id"] == whole["stream_id"]
    assert (told["total"]["requests"], told["total"]["attempts"]) == (1, 2)
    assert told["total"]["cost"] == pytest.approx(cut["cost"] + whole["cost"])


async def test_client_that_leaves_makes_a_cancelled_row(upstream: Upstream, tmp_path: Path) -> None:
    gate = asyncio.Semaphore(1)
    upstream.answers = [Reply(gate=gate)]
    async with serving(configuration(upstream), data=tmp_path) as served:
        async with connection(served.port) as client:
            await client.send("POST", "/v1/chat/completions", msgspec.json.encode(body(stream=True)))
            await client.head()
            await client.until(b"Hello")
            client.abort()
        await within(upstream.closed.wait())
    [row] = rows(tmp_path)
    assert (row["outcome"], row["error"], row["source"]) == ("cancelled", "", "estimated")
    assert row["input_tokens"] > 0


async def test_embeddings_are_rows_of_their_own_endpoint(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(configuration(upstream), data=tmp_path) as served:
        await ask(served.port, "POST", "/v1/embeddings", {"model": "up/vectors", "input": "hello"})
        told = await usage(served, "group_by=endpoint,model")
    [row] = rows(tmp_path)
    assert (row["endpoint"], row["model"], row["outcome"], row["n"]) == ("embeddings", "vectors", "completed", 1)
    assert row["input_tokens"] > 0 and row["cost"] == pytest.approx(row["input_tokens"] / 1000)
    assert [(group["endpoint"], group["model"]) for group in told["groups"]] == [("embeddings", "up/vectors")]


@pytest.mark.parametrize("on_disk", [False, True])
async def test_usage_is_told_as_soon_as_the_answer_is_there(upstream: Upstream, tmp_path: Path, on_disk: bool) -> None:
    upstream.answers = [Reply(usage=TOKENS)]
    async with serving(configuration(upstream), data=tmp_path if on_disk else None) as served:
        for number in range(1, 4):
            await message(served)
            told = await usage(served, "group_by=provider")
            assert told["total"]["requests"] == number
    assert told["total"]["cost"] == pytest.approx(3 * DOLLARS)
    assert [group["provider"] for group in told["groups"]] == ["up"]
    assert told["unpriced"]["attempts"] == 0 and told["estimated"]["attempts"] == 0
    assert 0 < told["percentiles"]["latency"]["p50"] <= told["percentiles"]["latency"]["p99"]
    assert told["percentiles"]["first_delta"]["p95"] > 0 and told["percentiles"]["request"]["p95"] > 0


async def test_model_without_a_price_stands_apart(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=TOKENS)]
    async with serving(upstream_table("up", upstream.base_url, local=False)) as served:
        await message(served)
        told = await usage(served, "group_by=model")
    assert told["total"]["cost"] == 0.0 and told["unpriced"]["attempts"] == 1
    assert told["groups"][0]["unpriced"]["input_tokens"] == 100


async def test_tenants_see_nothing_of_each_other(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(configuration(upstream, KEYS), data=tmp_path) as served:
        stream_id = (await message(served, "web")).json()["stream_id"]
        await message(served, "app")
        await message(served, "other")
        mine, theirs = await usage(served, "group_by=key", "app"), await usage(served, "group_by=key", "other")
        alone = await usage(served, "key=web", "app")
        refused = await ask(served.port, "GET", "/usage")
        opinion = {"stream_id": stream_id, "thumb": "up"}
        foreign = await ask(served.port, "POST", "/feedback", opinion, {"Authorization": "Bearer other"})
        colleague = await ask(served.port, "POST", "/feedback", opinion, {"Authorization": "Bearer app"})
    assert sorted([group["key"] for group in mine["groups"]]) == ["app", "web"]
    assert [group["key"] for group in theirs["groups"]] == ["other"]
    assert alone["total"]["requests"] == 1 and refused.status == 401
    assert (foreign.status, colleague.status) == (404, 200)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_feedback_shows_in_the_rates_of_its_model(upstream: Upstream, tmp_path: Path, on_disk: bool) -> None:
    async with serving(configuration(upstream), data=tmp_path if on_disk else None) as served:
        first = await message(served)
        second = await message(served)
        for opinion in (
            {"stream_id": first.json()["stream_id"], "thumb": "up", "comment": "gut"},
            {"request_id": second.headers["x-cauce-request-id"], "thumb": "up"},
            {"request_id": second.headers["x-cauce-request-id"], "thumb": "down", "score": 0.25},
        ):
            response = await ask(served.port, "POST", "/feedback", opinion)
            assert (response.status, response.json()) == (200, {"recorded": True})
        told = await usage(served, "group_by=model")
    assert told["groups"][0]["feedback"] == told["feedback"] == {"up": 1, "down": 1, "mean_score": 0.25}


@pytest.mark.parametrize(
    ("opinion", "status", "field"),
    [
        ({"stream_id": "str_never", "thumb": "up"}, 404, None),
        ({"thumb": "up"}, 400, "stream_id"),
        ({"stream_id": "x"}, 400, "thumb"),
        ({"stream_id": "x", "thumb": "sideways"}, 400, "thumb"),
        ({"stream_id": "x", "score": 7}, 400, "score"),
        ({"stream_id": "x", "request_id": "y", "thumb": "up"}, 400, "request_id"),
        ({"stream_id": "x", "thumb": "up", "comment": 3}, 400, "comment"),
    ],
)
async def test_feedback_that_makes_no_sense_is_refused_by_name(opinion: Any, status: int, field: str | None) -> None:
    async with serving() as served:
        response = await ask(served.port, "POST", "/feedback", opinion)
    assert (response.status, response.json().get("field")) == (status, field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("group_by=colour", "group_by"),
        ("group_by=tenant", "group_by"),
        ("group_by=user,model", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=nan", "from"),
        ("to=1e300", "to"),
        ("from=2026-11-02&to=2026-11-01", "from"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
    ],
)
async def test_question_that_makes_no_sense_is_refused_by_name(query: str, field: str) -> None:
    async with serving() as served:
        response = await ask(served.port, "GET", f"/usage?{query}")
    assert (response.status, response.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("query", "field", "known"),
    [
        ("usage?day=2026-11-21", "day", "group_by, from, to, limit, provider, model,"),
        ("usage?group_by=day&tenant=other", "tenant", "group_by, from,"),
        ("usage?groupby=day", "groupby", "group_by, from,"),
        ("usage?%64ay=", "day", "group_by, from,"),
        ("usage/forecast?from=2026-11-01", "from", "provider, model, endpoint,"),
        ("usage/forecast?group_by=day", "group_by", "provider, model, endpoint,"),
    ],
)
async def test_question_with_a_name_that_nobody_knows_is_refused_with_those_that_are(
    query: str, field: str, known: str
) -> None:
    async with serving() as served:
        response = await ask(served.port, "GET", f"/{query}")
    refused = response.json()
    assert (response.status, refused["field"]) == (400, field)
    assert f"{field}: is nothing to ask for here: known are {known}" in msgspec.json.encode(refused).decode()


async def test_times_may_be_dates_times_and_seconds(upstream: Upstream) -> None:
    async with serving(configuration(upstream)) as served:
        await message(served)
        for first, last in (
            ("2020-01-01", "2100-01-01"),
            ("20200101", ""),
            ("0", "4000000000"),
            ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00+02:00"),
        ):
            told = await usage(served, f"from={quote(first)}&to={quote(last)}")
            assert told["total"]["requests"] == 1
        past = await usage(served, "from=2020-01-01&to=2020-01-31")
    assert (past["from"], past["to"]) == ("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z")
    assert past["total"]["requests"] == 0


async def test_groups_beyond_the_limit_are_counted(upstream: Upstream) -> None:
    async with serving(configuration(upstream)) as served:
        for name in "abc":
            await message(served, model=f"up/{name}")
        told = await usage(served, "group_by=model&limit=2")
    assert len(told["groups"]) == 2 and told["left_out"] == 1


async def test_forecast_of_a_young_ledger_says_that_it_knows_too_little(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=TOKENS)]
    async with serving(configuration(upstream)) as served:
        await message(served)
        told = await usage(served, path="/usage/forecast")
        none = await usage(served, "model=up/other", path="/usage/forecast")
    assert told["cost"]["so_far"] == pytest.approx(DOLLARS) and told["tokens"]["so_far"] == 120
    assert told["cost"]["low"] is None and "0 whole days" in told["note"] and told["band"] == 0.8
    assert none["cost"]["so_far"] == 0


async def test_estimate_names_every_candidate_and_asks_none(upstream: Upstream) -> None:
    route = '[models.fast]\ncandidates = ["up/gpt", "offline"]\n[facts."up/other"]\nmax_output = 50\n'
    async with serving(configuration(upstream, route)) as served:
        response = await ask(served.port, "POST", "/usage/estimate", body(model="fast", max_tokens=100))
        other = await ask(served.port, "POST", "/usage/estimate", body(model="up/other", max_completion_tokens=80))
        wrong = await ask(served.port, "POST", "/usage/estimate", {"messages": "hello"})
        missing = await ask(served.port, "POST", "/usage/estimate", body(model="nobody/x"))
    assert upstream.requests == []
    first, last = response.json()["candidates"]
    assert (first["model"], last["model"]) == ("up/gpt", "offline")
    assert first["input_tokens"] > 0 and first["output_tokens"]["high"] == 100 and not first["exact"]
    assert first["cost"]["high"] == pytest.approx(first["input_tokens"] / 1000 + 100 / 100)
    assert first["cost"]["low"] < first["cost"]["expected"] <= first["cost"]["high"]
    assert other.json()["candidates"][0]["output_tokens"]["high"] == 50
    assert (wrong.status, wrong.json()["field"]) == (400, "messages") and missing.status == 404


async def test_estimate_learns_how_long_the_answers_of_a_model_are(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(10, 200))]
    async with serving(configuration(upstream)) as served:
        for _ in range(6):
            await message(served)
        told = (await ask(served.port, "POST", "/usage/estimate", body())).json()["candidates"][0]
    for figure in told["output_tokens"].values():
        assert figure == pytest.approx(200, rel=0.06)


async def test_what_was_recorded_outlives_the_server(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers = [Reply(usage=TOKENS)]
    async with serving(configuration(upstream), data=tmp_path) as served:
        stream_id = (await message(served)).json()["stream_id"]
    async with serving(configuration(upstream), data=tmp_path) as served:
        told = await usage(served)
        given = await ask(served.port, "POST", "/feedback", {"stream_id": stream_id, "thumb": "up"})
        approval = served.runtime.services.feedback.approval("up/gpt")
    assert told["total"]["requests"] == 1 and given.status == 200
    assert approval is not None and approval.up == 1


async def test_reported_tokens_are_those_the_provider_says_it_served(upstream: Upstream, tmp_path: Path) -> None:
    """Mixed calls: plain and streamed, refused and answered by the next, cut, left by the client."""
    replies = [
        Reply(usage=Tokens(101, 21, 40)),
        Reply(status=503, error={"message": "no"}),
        Reply(text="one two three four", cut_after=2),
        Reply(usage=Tokens(57, 9), text="some more words"),
    ]
    upstream.scripts = {"mixed": replies * 200, "sure": [Reply(usage=Tokens(11, 3))]}
    once = {**ONE_TRY, "CAUCE_RECOVERY__ATTEMPTS": "0", "CAUCE_BREAKER__ENABLED": "false"}
    async with serving(configuration(upstream), once, tmp_path) as served:
        for number in range(40):
            await message(served, model="up/mixed", fallbacks=["up/sure"], stream=number % 2 == 0)
        gate = asyncio.Semaphore(1)
        upstream.scripts = {"left": [Reply(gate=gate)]}
        async with connection(served.port) as client:
            await client.send("POST", "/v1/chat/completions", msgspec.json.encode(body(model="up/left", stream=True)))
            await client.head()
            await client.until(b"Hello")
            client.abort()
        await within(upstream.closed.wait())
        told = await usage(served)
    counted = [row for row in rows(tmp_path) if not row["estimated"]]
    said = list(upstream.record.served.values())
    assert len(said) == 2 and told["estimated"]["attempts"] > 1
    for name, of in (("input_tokens", "input"), ("output_tokens", "output"), ("cached_tokens", "cached")):
        served_tokens = sum([getattr(tokens, of) for tokens in said])
        assert sum([row[name] for row in counted]) == served_tokens
        assert told["total"][name] - told["estimated"][name] == served_tokens
