"""Retry, breaker, cascade and queue as a client sees them: the server as it is served, in front of a fake upstream."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Limits, Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.serving import MESSAGES, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

AT_ONCE = {"CAUCE_RETRY__BASE": "0"}

BUSY = Reply(status=503, error={"message": "busy"})


@pytest.fixture
async def spare() -> AsyncIterator[Upstream]:
    async with Upstream(Reply(text="from the spare one")) as server:
        yield server


async def message(served: Served, model: str = "up/m", key: str = "", said: str = "", **more: Any) -> Response:
    messages = [{"role": "user", "content": said}] if said else MESSAGES
    headers = {"authorization": f"Bearer {key}"} if key else None
    return await ask(served.port, "POST", "/llm/message", {"model": model, "messages": messages, **more}, headers)


async def until(happened: Callable[[], bool]) -> None:
    async def look() -> None:
        while not happened():
            await asyncio.sleep(0)

    await within(look())


def both(upstream: Upstream, spare: Upstream) -> str:
    tables = upstream_table("up", upstream.base_url) + upstream_table("spare", spare.base_url)
    return tables + '[models.safe]\ncandidates = ["up/m", "spare/m"]\n'


async def test_limit_that_names_its_delay_is_waited_out(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow"}, retry_after=0.05), Reply(text="second")]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        response = await message(served)
    assert response.json()["response"] == "second" and response.headers["x-cauce-attempts"] == "2"
    assert response.headers["x-cauce-level"] == "primary"
    assert [one.get("error_code") for one in response.json()["attempts"]] == ["rate_limited", None]


async def test_used_up_quota_goes_to_the_next_model_at_once_and_is_not_asked_again(
    upstream: Upstream, spare: Upstream
) -> None:
    upstream.answers = [Reply(status=429, error={"message": "no money", "code": "insufficient_quota"})]
    async with serving(both(upstream, spare)) as served:
        first, second = await message(served, "safe"), await message(served, "safe")
        health = (await ask(served.port, "GET", "/health")).json()
    assert (first.headers["x-cauce-attempts"], second.headers["x-cauce-attempts"]) == ("2", "1")
    assert {first.headers["x-cauce-level"], second.headers["x-cauce-level"]} == {"fallback"}
    assert len(upstream.requests) == 1 and len(spare.requests) == 2
    [circuit] = health["providers"]["up"]["circuits"]
    assert (circuit["model"], circuit["state"]) == ("m", "open") and 50 < circuit["seconds"] <= 60
    assert health["status"] == "degraded" and health["answers"] == {"fallback": 2}


async def test_breaker_opens_and_finds_its_way_back(upstream: Upstream, spare: Upstream) -> None:
    upstream.answers = [BUSY]
    toml = both(upstream, spare) + "[retry]\nattempts = 1\n[breaker]\ncooldown = 0.05\nlongest = 0.05\n"
    async with serving(toml) as served:
        for _ in range(8):
            assert (await message(served, "safe")).json()["response"] == "from the spare one"
        down = (await ask(served.port, "GET", "/metrics")).body.decode()
        upstream.script(Reply(text="well again"))

        async def recovered() -> Response:
            while True:
                response = await message(served, "safe")
                if response.json()["response"] == "well again":
                    return response

        response = await within(recovered())
        up = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert response.headers["x-cauce-level"] == "primary"
    line = 'cauce_circuit_open{deployment="",endpoint="chat",model="m",provider="up",route=""}'
    assert f"{line} 0.0" not in down and f"{line} 0.0" in up
    assert 'cauce_answers_total{level="fallback"}' in up and 'cauce_answers_total{level="primary"} 1.0' in up


async def test_outage_of_the_only_provider_costs_each_request_one_try(upstream: Upstream) -> None:
    upstream.answers = [Reply(reset=True)]
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        for _ in range(4):
            assert (await message(served)).status == 502
        asked = len(upstream.requests)
        for _ in range(10):
            response = await message(served)
            assert (response.status, response.json()["error_code"]) == (502, "provider_error")
        assert len(upstream.requests) == asked + 10
        upstream.script(Reply(text="well again"))
        assert (await message(served)).json()["response"] == "well again"


async def test_many_clients_of_a_provider_that_is_down_make_one_request_at_a_time(upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        for _ in range(4):
            await message(served)
        gate = asyncio.Semaphore(0)
        upstream.script(Reply(text="well again", gate=gate))
        asking = [asyncio.create_task(message(served)) for _ in range(10)]
        await within(upstream.asked.wait())
        assert len(upstream.requests) == 1
        for _ in range(100):
            gate.release()
        answers = await within(asyncio.gather(*asking))
    assert {answer.json()["response"] for answer in answers} == {"well again"}


def limited(upstream: Upstream, **settings: Any) -> str:
    keys = "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\n' for name in ("flood", "few")])
    return upstream_table("up", upstream.base_url, **settings) + keys


async def test_two_keys_share_a_busy_provider_alike(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    async with serving(limited(upstream, max_concurrent=2)) as served:
        flood = [asyncio.create_task(message(served, key="flood", said="flood")) for _ in range(40)]
        await until(lambda: served.runtime.services.waiting() == 38)
        few = [asyncio.create_task(message(served, key="few", said="few")) for _ in range(10)]
        await until(lambda: served.runtime.services.waiting() == 48)
        for _ in range(1000):
            gate.release()
        responses = await within(asyncio.gather(*flood, *few), 20)
    assert {response.status for response in responses} == {200}
    order = [body["messages"][0]["content"] for body in upstream.requests]
    # Two were under way before the few came; from then on every other place is theirs, until they are done.
    assert Counter(order[2:22]) == {"few": 10, "flood": 10}


async def test_client_that_leaves_gives_up_its_place(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    async with serving(limited(upstream, max_concurrent=1)) as served:
        first = asyncio.create_task(message(served, key="few", said="first"))
        await within(upstream.asked.wait())
        async with connection(served.port) as client:
            body = {"model": "up/m", "messages": [{"role": "user", "content": "leaves"}]}
            await client.send("POST", "/llm/message", msgspec.json.encode(body), {"authorization": "Bearer few"})
            await until(lambda: served.runtime.services.waiting() == 1)
            stays = asyncio.create_task(message(served, key="few", said="stays"))
            await until(lambda: served.runtime.services.waiting() == 2)
            client.abort()
            await until(lambda: served.runtime.services.waiting() == 1)
        for _ in range(20):
            gate.release()
        assert (await within(stays)).status == (await within(first)).status == 200
    assert [body["messages"][0]["content"] for body in upstream.requests] == ["first", "stays"]


async def test_what_an_upstream_takes_is_learned_without_a_setting_and_the_others_wait(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    upstream.record.limits = Limits(concurrent=2)
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        asking = [asyncio.create_task(message(served)) for _ in range(6)]
        await until(lambda: served.runtime.services.waiting() == 4)
        health = (await ask(served.port, "GET", "/health")).json()
        figures = (await ask(served.port, "GET", "/metrics")).body
        plan = await ask(served.port, "POST", "/admin/route/explain", {"model": "up/m", "messages": MESSAGES})
        for _ in range(60):
            gate.release()
        answers = await within(asyncio.gather(*asking))
    assert [one.status for one in answers] == [200] * 6
    assert {one.headers["x-cauce-level"] for one in answers} == {"primary"}
    assert health["providers"]["up"]["crowded"] == [{"model": "m", "most": 2, "under_way": 2, "seconds": 0.0}]
    assert health["status"] == "healthy" and "circuits" not in health["providers"]["up"]
    assert b'cauce_upstream_concurrency{deployment="",model="m",provider="up"} 2.0' in figures
    assert plan.json()["candidates"][0]["limits"] == ["2 at once, learned from what it refused"]
    assert upstream.record.most_at_once == 2


async def test_provider_that_refuses_some_with_503_while_it_answers_others_is_up(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    upstream.record.limits = Limits(concurrent=1, status=503)
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        asking = [asyncio.create_task(message(served)) for _ in range(2)]
        await until(lambda: served.runtime.services.waiting() == 1)
        health = (await ask(served.port, "GET", "/health")).json()
        for _ in range(20):
            gate.release()
        answers = await within(asyncio.gather(*asking))
    assert (health["status"], health["providers"]["up"]["status"]) == ("healthy", "up")
    assert [one.status for one in answers] == [200] * 2


async def test_outage_under_load_ends_in_errors_at_once_and_in_an_open_circuit(upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        refused = await within(asyncio.gather(*[message(served) for _ in range(60)]))
        health = (await ask(served.port, "GET", "/health")).json()
        upstream.script(Reply(text="well again"))
        well = await message(served)
    assert {(one.status, one.json()["error_code"]) for one in refused} == {(503, "overloaded")}
    assert health["providers"]["up"]["status"] == "down" and health["providers"]["up"]["circuits"]
    assert well.json()["response"] == "well again"


async def test_refusals_are_errors_where_nothing_is_to_be_learned_from_them(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=429, error={"message": "slow"}), Reply()]
    toml = upstream_table("up", upstream.base_url) + "[limits]\nadaptive = false\n"
    async with serving(toml, {"CAUCE_RETRY__ATTEMPTS": "1"}) as served:
        assert [(await message(served)).status for _ in range(2)] == [429, 200]


async def test_call_that_is_refused_waits_for_the_next_and_is_told_so(upstream: Upstream) -> None:
    """One try per call: what is waited for is not the retry's."""
    slow = Reply(status=429, error={"message": "slow"}, retry_after=0.3)
    upstream.answers = [slow, Reply(text="second")]
    async with serving(upstream_table("up", upstream.base_url), {"CAUCE_RETRY__ATTEMPTS": "1"}) as served:
        frames = await ask(served.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES, "stream": True})
        assert frames.status == 200 and b'"place":1' in frames.body and b"second" in frames.body
        assert upstream.record.requests == {"m": 2}
        upstream.script(slow, Reply(text="second"))
        plain = (await message(served)).json()
    assert [one.get("error_code") for one in plain["attempts"]] == ["rate_limited", None]


async def test_past_the_bound_a_client_is_told_when_to_come_again(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    async with serving(limited(upstream, max_concurrent=1) + "[queue]\nlength = 1\n") as served:
        asking = [asyncio.create_task(message(served, key="few")) for _ in range(2)]
        await until(lambda: served.runtime.services.waiting() == 1)
        refused = await message(served, key="few")
        for _ in range(20):
            gate.release()
        await within(asyncio.gather(*asking))
    assert (refused.status, refused.json()["error_code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1


async def test_past_its_wait_a_client_is_told_when_to_come_again_or_answered_offline(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    toml = (
        limited(upstream, max_concurrent=1) + '[models.safe]\ncandidates = ["up/m", "offline"]\n[queue]\nwait = 0.05\n'
    )
    async with serving(toml) as served:
        first = asyncio.create_task(message(served, key="few"))
        await within(upstream.asked.wait())
        refused = await within(message(served, key="few"))
        offline = await within(message(served, "safe", key="few"))
        for _ in range(20):
            gate.release()
        await within(first)
    assert refused.status == 429 and refused.headers["retry-after"]
    assert offline.headers["x-cauce-level"] == "offline"


async def test_no_call_waits_into_the_time_of_its_answer(upstream: Upstream) -> None:
    upstream.answers = [Reply(gate=asyncio.Semaphore(0))]
    async with serving(limited(upstream, max_concurrent=1)) as served:
        first = asyncio.create_task(message(served, key="few"))
        await within(upstream.asked.wait())
        refused = await within(message(served, key="few", timeout=5.05))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert refused.status == 429


@pytest.mark.parametrize("path", ["/llm/message", "/chat/stream/s"])
async def test_waiting_client_is_told_its_place_while_it_waits(upstream: Upstream, path: str) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    toml = limited(upstream, max_concurrent=1) + "[streams]\nhold_headers = 0\n"
    async with serving(toml) as served:
        first = asyncio.create_task(message(served, key="few"))
        await within(upstream.asked.wait())
        async with connection(served.port) as client:
            body = {"model": "up/m", "messages": MESSAGES, "stream": True}
            await client.send("POST", path, msgspec.json.encode(body), {"authorization": "Bearer few"})
            assert (await within(client.head()))[0] == 200
            seen = await within(client.until(b'"place":1'))
            assert b'"status":"waiting"' in seen and b'"type":"content"' not in seen
            for _ in range(40):
                gate.release()
            assert b"Hello" in await within(client.until(b'"type":"complete"'))
        await within(first)


async def test_waiting_clients_of_other_wires_get_heartbeats(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate)]
    toml = limited(upstream, max_concurrent=1) + "[streams]\nhold_headers = 0\nheartbeat = 0.02\n"
    async with serving(toml) as served:
        first = asyncio.create_task(message(served, key="few"))
        await within(upstream.asked.wait())
        async with connection(served.port) as client:
            body = {"model": "up/m", "messages": MESSAGES, "stream": True}
            await client.send(
                "POST", "/v1/chat/completions", msgspec.json.encode(body), {"authorization": "Bearer few"}
            )
            assert (await within(client.head()))[0] == 200
            assert b"data:" not in await within(client.until(b": hb 3"))
            for _ in range(40):
                gate.release()
            assert b"Hello" in await within(client.until(b"[DONE]"))
        await within(first)


@pytest.mark.parametrize("stream", [False, True])
async def test_slow_model_is_overtaken_by_the_next_one_and_its_connection_closed(
    upstream: Upstream, spare: Upstream, stream: bool
) -> None:
    upstream.answers = [Reply(silent=True)]
    async with serving(both(upstream, spare) + "hedge = 0.05\n") as served:
        response = await within(message(served, "safe", stream=stream))
        await within(upstream.closed.wait())
    assert response.headers["x-cauce-level"] == "fallback" and response.headers["x-cauce-model"] == "spare/m"
    assert response.headers["x-cauce-attempts"] == "2"
    said = response.frames()[-1]["data"] if stream else response.json()["response"]
    assert said == "from the spare one"


@pytest.mark.parametrize("attempts", [1, 3], ids=["never retried", "retried"])
async def test_calls_that_go_well_refill_what_hedging_may_use(
    upstream: Upstream, spare: Upstream, attempts: int
) -> None:
    slow, quick = Reply(silent=True), Reply(text="in time")
    # Three are in hand; then there is nothing left until five more calls have been made.
    upstream.answers = [slow, slow, slow, *[quick] * 5, slow, quick]
    toml = both(upstream, spare) + f"hedge = 0.05\n[retry]\nattempts = {attempts}\n[timeouts]\nfirst_delta = 20\n"
    async with serving(toml) as served:
        said = [(await within(message(served, "safe", stream=True))).frames()[-1] for _ in range(9)]
    assert [frame["data"] for frame in said] == [*["from the spare one"] * 3, *["in time"] * 5, "from the spare one"]


async def test_vectors_are_asked_for_again_and_wait_for_room_like_answers(upstream: Upstream) -> None:
    upstream.answers = [BUSY, Reply()]
    toml = upstream_table("up", upstream.base_url, requests_per_minute=600)
    async with serving(toml, AT_ONCE) as served:
        asked = {"model": "up/m", "input": "a text"}
        first = await ask(served.port, "POST", "/v1/embeddings", asked)
        # As many as the minute takes at once are used up by then: the last ones wait.
        more = await within(
            asyncio.gather(*[ask(served.port, "POST", "/v1/embeddings", {**asked, "input": str(n)}) for n in range(70)])
        )
        ledger = served.runtime.services.last_entry("up")
        health = (await ask(served.port, "GET", "/metrics")).body.decode()
    assert (first.status, first.headers["x-cauce-attempts"]) == (200, "2")
    assert {answer.status for answer in more} == {200}
    assert ledger is not None and ledger.endpoint == "embeddings"
    assert 'endpoint="embeddings"' in health and 'endpoint="chat"' not in health


async def test_model_whose_vectors_fail_may_still_be_talked_to(upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    async with serving(upstream_table("up", upstream.base_url), AT_ONCE) as served:
        for _ in range(5):
            answer = await ask(served.port, "POST", "/v1/embeddings", {"model": "up/m", "input": "a"})
            assert answer.status == 503
        health = (await ask(served.port, "GET", "/health")).json()
        upstream.script(Reply())
        assert (await message(served)).headers["x-cauce-attempts"] == "1"
    [circuit] = health["providers"]["up"]["circuits"]
    assert (circuit["endpoint"], circuit["state"]) == ("embeddings", "open")
