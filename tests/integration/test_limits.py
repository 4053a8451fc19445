"""Limits and budgets as clients meet them: the server as it is served, in front of a fake upstream that keeps count."""

import asyncio
import base64
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Tokens, Upstream
from tests.http import Response, ask
from tests.outage import through_an_outage
from tests.redis_server import running_redis
from tests.serving import Served, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

UNQUEUED = {"CAUCE_QUEUE__LENGTH": "0"}
"""Nobody waits: what has no room is told so."""

PRICED = '[facts."up*/*"]\ninput_price = 0\noutput_price = 100_000\n'
"""Half a dollar for the five tokens that the fake upstream answers with."""


def keys(*names: str, tenant: str = "default") -> str:
    return "".join(
        [f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\ntenant = "{tenant}"\n' for name in names]
    )


async def message(served: Served, key: str = "", model: str = "up/m", **more: Any) -> Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **more}
    return await ask(served.port, "POST", "/llm/message", body, {"authorization": f"Bearer {key}"} if key else None)


async def statuses(served: Served, count: int, **more: Any) -> list[int]:
    return [(await message(served, **more)).status for _ in range(count)]


async def test_requests_per_minute_of_a_provider_are_kept_to(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, requests_per_minute=20)
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 3) == [200, 200, 429]
        refused = await message(served)
    told = refused.json()
    assert told["error_code"] == "rate_limited" and "20 requests a minute of provider up" in told["error"]
    assert 1 <= int(refused.headers["retry-after"]) <= 4 and told["retry_after"] > 0
    assert len(upstream.requests) == 2


async def test_tokens_per_minute_are_corrected_by_what_was_really_used(upstream: Upstream) -> None:
    upstream.answers = [Reply(usage=Tokens(input=10, output=5)), Reply(usage=Tokens(input=9_000, output=5))]
    table = upstream_table("up", upstream.base_url, tokens_per_minute=10_000)
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 3, max_tokens=900) == [200, 200, 429]
        assert "10,000 tokens a minute of provider up" in (await message(served)).json()["error"]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_at_once_are_kept_to_and_let_go_when_they_end(upstream: Upstream, stream: bool) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    table = upstream_table("up", upstream.base_url, max_concurrent=1)
    async with serving(table, UNQUEUED) as served:
        first = asyncio.create_task(message(served, stream=stream))
        await upstream.asked.wait()
        assert (await message(served)).status == 429
        for _ in range(50):
            gate.release()
        assert (await first).status == 200
        assert (await message(served)).status == 200
    assert upstream.record.most_at_once == 1


async def test_call_whose_client_leaves_lets_go_of_its_place(upstream: Upstream) -> None:
    upstream.answers = [Reply(silent=True), Reply()]
    table = upstream_table("up", upstream.base_url, max_concurrent=1)
    async with serving(table, UNQUEUED) as served:
        leaving = asyncio.create_task(message(served))
        await upstream.asked.wait()
        leaving.cancel()
        await upstream.closed.wait()
        async with asyncio.timeout(10):
            while (await message(served)).status != 200:
                pass


async def test_limits_of_models_hold_for_each_model_that_fits(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + '[limits.models."up/small*"]\nrequests_per_minute = 10\n'
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 2, model="up/small-1") == [200, 429]
        assert await statuses(served, 2, model="up/small-2") == [200, 429]
        assert await statuses(served, 5, model="up/large") == [200] * 5


async def test_limits_of_keys_hold_for_each_key_and_the_later_glob_wins(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + keys("one", "two", "vip")
    table += '[limits.keys."*"]\nrequests_per_minute = 10\n[limits.keys.vip]\nrequests_per_minute = 0\n'
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 2, key="one") == [200, 429]
        assert await statuses(served, 2, key="two") == [200, 429]
        assert await statuses(served, 5, key="vip") == [200] * 5


async def test_calls_without_keys_are_limited_and_told_as_those_of_anonymous(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url)
    table += '[limits.keys."*"]\nrequests_per_minute = 1\n[limits.keys.anonymous]\nrequests_per_minute = 20\n'
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 1) + await statuses(served, 2, key="any") == [200, 200, 429]
        told = (await ask(served.port, "GET", "/usage?group_by=key")).json()
    assert [(group["key"], group["requests"]) for group in told["groups"]] == [("anonymous", 2)]


async def test_failure_before_anything_was_asked_counts_for_no_limit(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, max_concurrent=1) + keys("one")
    table += '[limits.keys."*"]\nrequests_per_minute = 20\n'
    async with serving(table, UNQUEUED) as served:
        for _ in range(5):
            assert (await message(served, key="one", model="up/nothing-here/../x" * 200)).status == 400
        assert await statuses(served, 2, key="one") == [200, 200]


async def test_next_candidate_is_asked_when_the_first_has_no_room(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, requests_per_minute=10) + upstream_table("up2", upstream.base_url)
    table += '[models.both]\ncandidates = ["up/m", "up2/m"]\n'
    async with serving(table, UNQUEUED) as served:
        levels = [(await message(served, model="both")).headers["x-cauce-level"] for _ in range(3)]
    assert levels == ["primary", "fallback", "fallback"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("queued", [False, True])
async def test_two_hundred_calls_against_a_budget_for_fifty_spend_no_more_than_it(
    upstream: Upstream, stream: bool, queued: bool
) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + keys("one") + '[budgets.keys."*"]\nday = 25\n'
    async with serving(table, None if queued else UNQUEUED) as served:
        calls = [message(served, key="one", max_tokens=5, stream=stream) for _ in range(200)]
        answers = Counter([response.status for response in await asyncio.gather(*calls)])
    # Without a queue, whoever finds the rest of the budget held by others is told to come again.
    assert answers[200] == len(upstream.requests) == 50
    assert answers[402] + answers[429] == 150 and (answers[429] == 0 or not queued)


async def test_budget_is_used_up_where_answers_are_shorter_than_they_might_be(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + keys("one") + '[budgets.keys."*"]\nmonth = 25\n'
    async with serving(table) as served:
        answers = await asyncio.gather(*[message(served, key="one", max_tokens=50) for _ in range(100)])
        spent = sum([response.json()["cost"] for response in answers if response.status == 200])
    assert 20 <= spent <= 25
    assert {response.status for response in answers} == {200, 402}


async def test_used_up_budget_says_whose_it_is_how_much_and_when_it_begins_anew(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + keys("one") + '[budgets.keys."*"]\nday = 0.5\n'
    async with serving(table) as served:
        assert await statuses(served, 1, key="one", max_tokens=5) == [200]
        refused = await message(served, key="one", max_tokens=5)
    told = refused.json()
    assert refused.status == 402 and told["error_code"] == "quota_exceeded"
    assert "the budget of 0.5 USD a day of key one does not cover this call: it begins anew in" in told["error"]
    assert 0 < told["retry_after"] <= 86_400


async def test_long_documents_are_held_under_budgets_before_anybody_has_read_them(upstream: Upstream) -> None:
    def asking(pages: int) -> list[dict[str, Any]]:
        bytes_ = b"".join([b"<< /Type /Page >>".ljust(1_000) for _ in range(pages)])
        url = f"data:application/pdf;base64,{base64.b64encode(bytes_).decode()}"
        return [{"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": url}}]}]

    table = upstream_table("up", upstream.base_url) + keys("one") + '[budgets.keys."*"]\nday = 0.3\n'
    table += '[facts."up/*"]\ninput_price = 1\noutput_price = 0\n'
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 1, key="one", max_tokens=5, messages=asking(200)) == [402]
        assert await statuses(served, 1, key="one", max_tokens=5, messages=asking(20)) == [200]
    assert len(upstream.requests) == 1


async def test_budgets_of_users_and_of_tenants_are_kept_apart(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + keys("one") + keys("two", tenant="other")
    table += '[budgets.users."*"]\nday = 0.5\n[budgets.tenants.default]\nday = 1.5\n'
    async with serving(table) as served:

        async def asked(key: str, user: str) -> int:
            return (await message(served, key=key, user=user, max_tokens=5)).status

        assert [await asked("one", "ana"), await asked("one", "ana")] == [200, 402]
        assert [await asked("one", "bea"), await asked("one", "bea")] == [200, 402]
        assert [await asked("one", "cleo"), await asked("one", "dora")] == [200, 402]
        assert [await asked("two", "ana"), await asked("two", "dora")] == [200, 200]


async def test_budget_survives_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + keys("one") + '[budgets.keys."*"]\nmonth = 1\n'
    async with serving(table, data=tmp_path) as served:
        assert await statuses(served, 1, key="one", max_tokens=5) == [200]
    async with serving(table, data=tmp_path) as served:
        assert await statuses(served, 2, key="one", max_tokens=5) == [200, 402]


async def test_budget_of_a_user_survives_a_restart_too(upstream: Upstream, tmp_path: Path) -> None:
    table = upstream_table("up", upstream.base_url) + PRICED + '[budgets.users."*"]\nday = 0.5\n'
    name = "ana " + "x" * 300
    async with serving(table, data=tmp_path) as served:
        assert (await message(served, user=name, max_tokens=5)).status == 200
    async with serving(table, data=tmp_path) as served:
        assert (await message(served, user=name, max_tokens=5)).status == 402
        assert (await message(served, user="bea", max_tokens=5)).status == 200


async def test_each_fallback_hop_is_checked_against_the_budget(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + upstream_table("free", upstream.base_url) + PRICED
    table += '[models.both]\ncandidates = ["up/m", "free/m"]\n' + keys("one") + '[budgets.keys."*"]\nday = 0.5\n'
    async with serving(table) as served:
        levels = [
            (await message(served, key="one", model="both", max_tokens=5)).headers["x-cauce-level"] for _ in range(3)
        ]
        dear = await message(served, key="one", max_tokens=5)
    assert levels == ["primary", "fallback", "fallback"] and dear.status == 402


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_surface_tells_of_a_used_up_budget_in_its_own_shape(
    upstream: Upstream, surface: Surface, stream: bool
) -> None:
    table = '[providers.up]\napi_key = "k"\n' + surface.provider.replace("{root}", upstream.root)
    table += '[facts."*/*"]\ninput_price = 100_000\noutput_price = 100_000\n[budgets.keys."*"]\nday = 0.0001\n'
    async with serving(table) as served:
        outcome = await surface.asked(served.port, "up/m", stream=stream)
    assert (outcome.kind, outcome.status) == ("refused", 402) and "USD a day of key" in outcome.message
    assert not upstream.requests


async def test_upstream_s_word_that_nothing_is_left_is_kept_to(upstream: Upstream) -> None:
    said = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    upstream.answers = [Reply(headers=said), Reply()]
    table = upstream_table("up", upstream.base_url, max_concurrent=9)
    async with serving(table, UNQUEUED) as served:
        assert await statuses(served, 2) == [200, 429]
        refused = await message(served)
        assert "what up/m says it takes now" in refused.json()["error"] and refused.json()["retry_after"] > 300
        assert (await message(served, model="up/other")).status == 200


async def test_delay_of_an_upstream_that_is_over_its_limit_is_waited_out_and_not_taken_for_a_denial(
    upstream: Upstream,
) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow"}, retry_after=0.05), Reply(text="second")]
    table = upstream_table("up", upstream.base_url, max_concurrent=9)
    async with serving(table, UNQUEUED) as served:
        response = await message(served)
    assert response.status == 200 and response.headers["x-cauce-attempts"] == "2"


async def test_answer_that_was_asked_for_twice_is_paid_for_twice(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="no JSON"), Reply(text='{"a": 1}')]
    table = upstream_table("up", upstream.base_url) + PRICED + "json_schema = false\n"
    table += '[budgets.keys."*"]\nday = 1\n'
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    async with serving(table) as served:
        assert (await message(served, max_tokens=5, response_format=wanted)).status == 200
        assert len(upstream.requests) == 2
        assert (await message(served, max_tokens=5)).status == 402


async def test_embeddings_are_counted_too(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, requests_per_minute=20)
    async with serving(table, UNQUEUED) as served:
        asked = [
            (await ask(served.port, "POST", "/v1/embeddings", {"model": "up/m", "input": text})).status
            for text in ("one", "two", "three")
        ]
        assert asked == [200, 200, 429]
        assert (await message(served)).status == 429


async def test_embeddings_count_for_the_key_too(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url) + keys("one", "two")
    table += '[limits.keys."*"]\nrequests_per_minute = 10\ntokens_per_minute = 10_000\n'
    async with serving(table, UNQUEUED) as served:

        async def asked(key: str, text: str) -> int:
            body, headers = {"model": "up/m", "input": text}, {"authorization": f"Bearer {key}"}
            return (await ask(served.port, "POST", "/v1/embeddings", body, headers)).status

        assert [await asked("one", "a"), await asked("one", "b"), await asked("two", "c")] == [200, 429, 200]


async def test_denials_are_among_the_figures(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, requests_per_minute=10)
    async with serving(table, UNQUEUED) as served:
        await statuses(served, 3)
        figures = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert 'cauce_denied_total{whose="provider",what="requests"} 2.0' in figures.replace(
        'what="requests",whose="provider"', 'whose="provider",what="requests"'
    )


async def test_answers_keep_flowing_while_redis_is_away(upstream: Upstream) -> None:
    with running_redis() as redis:
        told = await through_an_outage(upstream, redis, calls=60)
    assert told.statuses == {200: told.asked}
    assert told.modes == ["shared", "local share", "shared"]
    assert upstream.record.most_at_once <= 10


async def test_two_servers_on_one_redis_share_every_limit(upstream: Upstream) -> None:
    with running_redis() as redis:
        table = upstream_table("up", upstream.base_url, requests_per_minute=40) + PRICED + keys("one")
        table += f'[budgets.keys."*"]\nday = 1.5\n[redis]\nurl = "{redis.url}"\n'
        async with serving(table, UNQUEUED) as first, serving(table, UNQUEUED) as second:
            answers = [(await message(served, key="one", max_tokens=5)).status for served in (first, second) * 2]
            assert answers == [200, 200, 200, 402]
            assert (await ask(first.port, "GET", "/health")).json()["limits"] == "shared"


async def test_server_starts_without_its_redis(upstream: Upstream) -> None:
    table = upstream_table("up", upstream.base_url, max_concurrent=4) + '[redis]\nurl = "redis://127.0.0.1:1/0"\n'
    async with serving(table) as served:
        assert (await message(served)).status == 200
        health = (await ask(served.port, "GET", "/health")).json()
    assert health["limits"] == "local share" and health["status"] == "degraded"
