"""Answers that are given again: what clients of every surface see of it, over HTTP, in front of a fake upstream."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI

from cauce.ports.ledger import Entry
from cauce.server.gate import hash_key
from cauce.stores.inproc.ledger import InprocLedger
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.redis_server import running_redis
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

COLD: dict[str, Any] = {"model": "up/m", "messages": MESSAGES, "temperature": 0}
CHAT = "/v1/chat/completions"


def body_of(surface: Surface, *, stream: bool) -> dict[str, Any]:
    return {
        **surface.body,
        "model": "up/m",
        "temperature": 0,
        "stream": stream,
        **({"store": True} if surface.name == "responses" else {}),
    }


def normal(response: Response) -> str:
    """The body without what is of one request alone: ids, times, who was asked."""
    text = response.body.decode()
    for pattern in (
        r'"(id|item_id|message_id|response_id|stream_id|obfuscation)":"[^"]*"',
        r'"(created|created_at|completed_at|processing_time)":[\d.]+',
    ):
        text = re.sub(pattern, r'"\1":0', text)
    return text


def entries(served: Served) -> tuple[Entry, ...]:
    """The ledger."""
    ledger = served.runtime.services.usage
    assert isinstance(ledger, InprocLedger)
    return ledger.entries()


def surfaces() -> Any:
    return pytest.mark.parametrize("surface", SURFACES, ids=[surface.name for surface in SURFACES])


def table(surface: Surface, upstream: Upstream) -> str:
    return f'[providers.up]\n{surface.provider.format(root=upstream.root)}api_key = "upstream-key"\n'


@surfaces()
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_second_answer_is_the_first_one_again(surface: Surface, stream: bool, upstream: Upstream) -> None:
    async with serving(table(surface, upstream)) as served:
        first, second = [
            await ask(served.port, "POST", surface.path, body_of(surface, stream=stream)) for _ in range(2)
        ]
    assert len(upstream.requests) == 1
    assert surface.outcome(first, stream=stream) == surface.outcome(second, stream=stream)
    assert surface.outcome(second, stream=stream).kind == "answer"
    told = [
        (one.headers["x-cauce-cache"], one.headers["x-cauce-level"], one.headers["x-cauce-attempts"])
        for one in (first, second)
    ]
    assert told == [("miss", "primary", "1"), ("hit", "cache", "0")]
    assert second.headers["age"] == "0" and second.headers["x-cauce-model"] == "up/m" and "age" not in first.headers
    if surface.name != "native":
        assert normal(first) == normal(second)


@surfaces()
async def test_stream_answers_plain_requests_and_the_reverse(surface: Surface, upstream: Upstream) -> None:
    async with serving(table(surface, upstream)) as served:
        for first, second in ((True, False), (False, True)):
            upstream.script(Reply(text=f"Answer {first}."))
            for stream, use in ((first, "miss"), (second, "hit")):
                body = body_of(surface, stream=stream)
                # Another request for each round, the same within it.
                body["max_tokens" if surface.name != "responses" else "max_output_tokens"] = 100 + first
                response = await ask(served.port, "POST", surface.path, body)
                assert surface.outcome(response, stream=stream).text == f"Answer {first}."
                assert response.headers["x-cauce-cache"] == use
            assert len(upstream.requests) == 1


async def test_native_answer_says_that_it_is_cached_and_costs_nothing(upstream: Upstream) -> None:
    prices = '[facts."up/*"]\ninput_price = 1000.0\noutput_price = 1000.0\n'
    async with serving(upstream_table("up", upstream.base_url) + prices) as served:
        first, second = [(await ask(served.port, "POST", "/llm/message", COLD)).json() for _ in range(2)]
        stream = await ask(served.port, "POST", "/llm/message", {**COLD, "stream": True})
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["cost"] > 0 and (second["cost"], second["cost_source"]) == (0.0, "priced")
    assert first["usage"] == second["usage"] and first["model"] == second["model"] == "up/m"
    frames = stream.frames()
    assert frames[-1]["level"] == "cache" and frames[-1]["cost"] == 0.0
    assert "An answer kept from up/m" in [frame["data"] for frame in frames]


async def test_requests_without_temperature_zero_are_asked_each_time(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for temperature in (None, 0.5):
            for _ in range(2):
                response = await ask(served.port, "POST", CHAT, {**COLD, "temperature": temperature})
                assert response.headers["x-cauce-cache"] == "none"
    assert len(upstream.requests) == 4


async def test_configured_temperature_counts_for_requests_that_name_none(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url), {"DEFAULT_TEMPERATURE": "0"}) as served:
        for _ in range(2):
            await ask(served.port, "POST", CHAT, {"model": "up/m", "messages": MESSAGES})
    assert len(upstream.requests) == 1


async def test_cache_can_be_switched_off(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url) + "[cache]\nenabled = false\n") as served:
        responses = [await ask(served.port, "POST", CHAT, COLD) for _ in range(2)]
    assert len(upstream.requests) == 2
    assert {response.headers["x-cauce-cache"] for response in responses} == {"none"}


DIFFERENT: list[dict[str, Any]] = [
    {"model": "up/other"},
    {"messages": [{"role": "user", "content": "Say hello!"}]},
    {"messages": [{"role": "system", "content": ""}, *MESSAGES]},
    {"seed": 1},
    {"max_tokens": 5},
    {"top_p": 0.5},
    {"stop": ["."]},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"response_format": {"type": "text"}},
    {"reasoning_effort": "low"},
    {"logit_bias": {"1": 1}},
    {"service_tier": "flex"},
]
THE_SAME: list[dict[str, Any]] = [
    {"user": "somebody"},
    {"metadata": {"trace": "1"}},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"safety_identifier": "somebody", "prompt_cache_key": "k"},
    {"seed": None},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=[str(change) for change in DIFFERENT])
async def test_what_the_answer_depends_on_makes_another_request(upstream: Upstream, change: dict[str, Any]) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for body in (COLD, {**COLD, **change}):
            response = await ask(served.port, "POST", CHAT, body)
            assert response.headers["x-cauce-cache"] == "miss", response.body
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("change", THE_SAME, ids=[str(change) for change in THE_SAME])
async def test_what_the_answer_does_not_depend_on_makes_none(upstream: Upstream, change: dict[str, Any]) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for body in (COLD, {**COLD, **change}):
            await ask(served.port, "POST", CHAT, body)
    assert len(upstream.requests) == 1


NOT_BY_ITSELF: list[dict[str, Any]] = [
    {"n": 2},
    {"store": False},
    {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}
        ]
    },
    {"web_search_options": {}},
]


@pytest.mark.parametrize("change", NOT_BY_ITSELF, ids=[next(iter(change)) for change in NOT_BY_ITSELF])
async def test_what_may_change_is_cached_only_for_those_who_ask_for_it(
    upstream: Upstream, change: dict[str, Any]
) -> None:
    upstream.answers = [Reply(text="twice" if "n" in change else "once")]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for _ in range(2):
            response = await ask(served.port, "POST", CHAT, {**COLD, **change})
            assert response.headers["x-cauce-cache"] == "none"
        wanted = {"Cache-Control": "max-age=60"}
        uses = [
            (await ask(served.port, "POST", CHAT, {**COLD, **change}, wanted)).headers["x-cauce-cache"]
            for _ in range(2)
        ]
    assert uses == ["miss", "hit"] and len(upstream.requests) == 3


async def test_conversations_kept_here_are_never_cached(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for _ in range(2):
            body = {**COLD, "conversation_id": "c"}
            response = await ask(served.port, "POST", "/llm/message", body, {"Cache-Control": "max-age=60"})
            assert response.headers["x-cauce-cache"] == "none"
    assert len(upstream.requests) == 2


CONTROLS = [
    ("no-cache", "miss", 0),
    ("no-store", "none", 0),
    ("max-age=0", "miss", 0),
    ("max-age=60", "hit", 0),
    ("max-age=60, no-cache", "miss", 0),
    ("MAX-AGE=60", "hit", 0),
    ("only-if-cached", "hit", 0),
    ("max-stale", "hit", 0),
    ("min-fresh=10", "hit", 0),
    ("min-fresh=100000", "miss", 0),
    ("something-new=1", "hit", 0),
    ("max-age=nonsense", "hit", 0),
    ("", "hit", 0),
    ("no-cache", "none", 0.7),
    ("max-age=0", "none", 0.7),
    ("max-age=60", "miss", 0.7),
    ("max-age=60, no-cache", "miss", 0.7),
    ("", "none", 0.7),
]


@pytest.mark.parametrize(
    ("control", "use", "temperature"),
    CONTROLS,
    ids=[f"{control or 'empty'} at {warm}" for control, _, warm in CONTROLS],
)
async def test_cache_control_is_honoured(upstream: Upstream, control: str, use: str, temperature: float) -> None:
    body = {**COLD, "temperature": temperature}
    async with serving(upstream_table("up", upstream.base_url)) as served:
        await ask(served.port, "POST", CHAT, body)
        response = await ask(served.port, "POST", CHAT, body, {"Cache-Control": control})
    assert response.headers["x-cauce-cache"] == use
    assert len(upstream.requests) == (1 if use == "hit" else 2)


@pytest.mark.parametrize(
    ("control", "kept"), [("no-cache", False), ("max-age=0", False), ("no-cache, max-age=60", True)]
)
async def test_answer_that_the_model_is_asked_anew_for_is_kept_where_the_cache_is_asked_for_too(
    upstream: Upstream, control: str, kept: bool
) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        for temperature, use in ((0.7, "hit" if kept else "miss"), (0, "hit")):
            body = {**COLD, "temperature": temperature}
            await ask(served.port, "POST", CHAT, body, {"Cache-Control": control})
            response = await ask(served.port, "POST", CHAT, body, {"Cache-Control": "max-age=60"})
            assert response.headers["x-cauce-cache"] == use


@surfaces()
async def test_only_if_cached_is_refused_clearly_where_nothing_is(surface: Surface, upstream: Upstream) -> None:
    async with serving(table(surface, upstream)) as served:
        headers = {"Cache-Control": "only-if-cached"}
        response = await ask(served.port, "POST", surface.path, body_of(surface, stream=False), headers)
    outcome = surface.outcome(response, stream=False)
    assert (outcome.kind, outcome.status) == ("refused", 504)
    assert "only a cached answer was wanted" in outcome.message
    assert upstream.requests == []


async def test_old_answer_stands_in_when_no_model_answers(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="of before"), Reply(status=503, error={"message": "down"})]
    async with serving(upstream_table("up", upstream.base_url) + "[cache]\nttl = 0.0\n", ONE_TRY) as served:
        await ask(served.port, "POST", CHAT, COLD)
        plain = await ask(served.port, "POST", CHAT, COLD)
        streamed = await ask(served.port, "POST", CHAT, {**COLD, "stream": True})
    assert len(upstream.requests) == 3
    chat = SURFACES[0]
    for response, stream in ((plain, False), (streamed, True)):
        assert chat.outcome(response, stream=stream).text == "of before"
        assert (response.headers["x-cauce-cache"], response.headers["x-cauce-level"]) == ("stale", "cache")
        assert response.headers["x-cauce-attempts"] == "1" and "age" in response.headers


async def test_errors_and_cut_answers_are_not_kept(upstream: Upstream) -> None:
    upstream.answers = [Reply(status=500, error={"message": "down"}), Reply(cut_after=2), Reply(text="whole")]
    async with serving(upstream_table("up", upstream.base_url), ONE_TRY) as served:
        for _ in range(2):
            await ask(served.port, "POST", CHAT, {**COLD, "stream": True})
        response = await ask(served.port, "POST", CHAT, COLD)
    assert response.json()["choices"][0]["message"]["content"] == "whole"


async def test_answer_is_kept_at_the_length_its_client_gave_it_and_not_at_one_that_a_budget_did(
    upstream: Upstream,
) -> None:
    """Others, with the same question, may have a budget with room for all of it."""
    upstream.answers = [Reply(finish_reason="length")]
    toml = (
        upstream_table("up", upstream.base_url)
        + '[facts."up/*"]\ninput_price = 1\noutput_price = 1\nmax_output = 900\n'
    )
    toml += '[budgets]\nassumed_output = 100\n[budgets.keys."*"]\nday = 0.0008\n'
    async with serving(toml) as served:
        uses = [
            (await ask(served.port, "POST", CHAT, body)).headers["x-cauce-cache"]
            for body in (COLD, COLD, {**COLD, "max_tokens": 50}, {**COLD, "max_tokens": 50})
        ]
    assert [request.get("max_tokens") for request in upstream.requests] == [450, 450, 50]
    assert uses == ["miss", "miss", "miss", "hit"]


TENANTS = "".join(
    [
        f'[[auth.keys]]\nname = "{name}"\nhash = "{hash_key(name)}"\ntenant = "{tenant}"\n'
        for name, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b"))
    ]
)


async def asked_as(port: int, key: str) -> str:
    response = await ask(port, "POST", CHAT, COLD, {"Authorization": f"Bearer {key}"})
    return response.headers["x-cauce-cache"]


async def test_keys_of_a_tenant_share_answers_and_tenants_do_not(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url) + TENANTS) as served:
        uses = [await asked_as(served.port, key) for key in ("a1", "a2", "b1", "b1", "a1")]
    assert uses == ["miss", "hit", "miss", "hit", "hit"]


async def test_keys_share_nothing_where_each_is_for_itself(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url) + TENANTS + '[cache]\nscope = "key"\n') as served:
        uses = [await asked_as(served.port, key) for key in ("a1", "a2", "b1", "a1")]
    assert uses == ["miss", "miss", "miss", "hit"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_hundred_identical_requests_at_once_ask_the_upstream_once(upstream: Upstream, stream: bool) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(gate=gate) if stream else lambda _: Reply(delay=0.3)]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        body = {**COLD, "stream": stream}
        tasks = [asyncio.create_task(ask(served.port, "POST", CHAT, body)) for _ in range(100)]
        await within(upstream.asked.wait())
        for _ in range(1000):
            gate.release()
        responses = await within(asyncio.gather(*tasks))
        usage = await ask(served.port, "GET", "/metrics")
    assert len(upstream.requests) == 1
    assert all([response.status == 200 and response.complete for response in responses])
    assert len({normal(response) for response in responses}) == 1
    levels = [response.headers["x-cauce-level"] for response in responses]
    assert (levels.count("primary"), levels.count("cache")) == (1, 99)
    figures = dict(re.findall(r'cauce_cache_requests_total\{result="(\w+)"\} (\S+)', usage.body.decode()))
    assert float(figures["shared"]) + float(figures["hit"]) == 99 and float(figures["miss"]) == 1


async def test_client_that_leaves_does_not_take_the_answer_of_others_with_it(upstream: Upstream) -> None:
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="one two three", gate=gate)]
    body = msgspec.json.encode({**COLD, "stream": True})
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as leader, connection(served.port) as follower:
            await leader.send("POST", CHAT, body)
            await within(upstream.asked.wait())
            gate.release()
            await leader.head()
            await within(leader.until(b"one"))
            await follower.send("POST", CHAT, body)
            await follower.head()
            await within(follower.until(b"one"))
            leader.abort()
            for _ in range(50):
                gate.release()
            assert b"three" in await within(follower.until(b"[DONE]"))
        assert not upstream.closed.is_set() and len(upstream.requests) == 1


async def test_upstream_is_closed_once_the_last_of_them_has_left(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=1)]
    body = msgspec.json.encode({**COLD, "stream": True})
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with connection(served.port) as one, connection(served.port) as other:
            for client in (one, other):
                await client.send("POST", CHAT, body)
                await client.head()
                await within(client.until(b"one"))
            one.abort()
            other.abort()
            await within(upstream.closed.wait())
    assert len(upstream.requests) == 1


async def test_official_sdk_reads_a_replayed_stream_as_a_live_one(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="", tool_calls=(("look", '{"at": "this"}'),))]
    tools: Any = [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    ]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        async with AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0) as sdk:
            seen: list[Any] = []
            for _ in range(2):
                stream = await sdk.chat.completions.create(
                    model="up/m",
                    messages=MESSAGES,
                    tools=tools,
                    temperature=0,
                    stream=True,  # pyright: ignore[reportArgumentType]
                    stream_options={"include_usage": True},
                )
                chunks = [chunk async for chunk in stream]
                seen.append([chunk.model_dump(exclude={"id", "created"}) for chunk in chunks])
    assert seen[0] == seen[1] and len(seen[0]) > 3
    assert len(upstream.requests) == 1


async def test_streams_with_an_id_are_answered_from_the_cache_too(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        one, two = [await ask(served.port, "POST", f"/chat/stream/{id}", COLD) for id in ("one", "two")]
        fresh = await ask(served.port, "POST", "/chat/stream/three", COLD, {"Cache-Control": "no-cache"})
    assert [response.frames()[-1]["level"] for response in (one, two, fresh)] == ["primary", "cache", "primary"]
    assert one.frames()[-1]["data"] == two.frames()[-1]["data"]
    assert len(upstream.requests) == 2


async def test_hits_are_written_into_the_ledger_at_no_cost(upstream: Upstream) -> None:
    prices = '[facts."up/*"]\ninput_price = 1000.0\noutput_price = 1000.0\n'
    async with serving(upstream_table("up", upstream.base_url) + prices) as served:
        for _ in range(3):
            await ask(served.port, "POST", CHAT, COLD)
        entry = entries(served)[1]
    assert (entry.level, entry.outcome, entry.usage.cost, entry.model) == ("cache", "completed", 0.0, "m")


async def test_answers_are_there_after_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    toml = upstream_table("up", upstream.base_url)
    async with serving(toml, data=tmp_path) as served:
        await ask(served.port, "POST", CHAT, COLD)
    async with serving(toml, data=tmp_path) as served:
        again = await ask(served.port, "POST", CHAT, {**COLD, "stream": True})
    assert SURFACES[0].outcome(again, stream=True).text == "Hello from upstream."
    assert again.headers["x-cauce-cache"] == "hit" and len(upstream.requests) == 1


async def test_answers_of_another_server_are_not_those_of_this_one(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream_table("up", upstream.base_url), data=tmp_path) as served:
        await ask(served.port, "POST", CHAT, COLD)
    elsewhere = upstream.base_url.replace("127.0.0.1", "localhost")
    async with serving(upstream_table("up", elsewhere), data=tmp_path) as served:
        again = await ask(served.port, "POST", CHAT, COLD)
    assert again.headers["x-cauce-cache"] == "miss" and len(upstream.requests) == 2


async def test_nothing_is_written_to_disk_where_that_is_switched_off(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream_table("up", upstream.base_url) + "[cache]\ndisk = 0\n", data=tmp_path) as served:
        await ask(served.port, "POST", CHAT, COLD)
    assert not (tmp_path / "cache.sqlite").exists()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "up/m", "input": ["one", "two"]}),
        ("/v1beta/models/up%2Fm:embedContent", {"content": {"parts": [{"text": "one"}]}}),
    ],
)
async def test_vectors_of_few_texts_are_given_again(upstream: Upstream, path: str, body: dict[str, Any]) -> None:
    async with serving(upstream_table("up", upstream.base_url)) as served:
        first, second = [await ask(served.port, "POST", path, body) for _ in range(2)]
        other = await ask(
            served.port,
            "POST",
            path,
            {**body, **({"input": "one"} if "input" in body else {"content": {"parts": [{"text": "two"}]}})},
        )
        entry = entries(served)[1]
    assert first.status == 200 and first.body == second.body
    uses = [(one.headers["x-cauce-cache"], one.headers["x-cauce-level"]) for one in (first, second, other)]
    assert uses == [("miss", "primary"), ("hit", "cache"), ("miss", "primary")]
    assert len(upstream.requests) == 2 and "age" in second.headers
    assert (entry.endpoint, entry.level) == ("embeddings", "cache")


async def test_vectors_of_many_texts_are_given_again_to_those_who_ask_for_it(upstream: Upstream) -> None:
    body = {"model": "up/m", "input": [str(number) for number in range(50)]}
    async with serving(upstream_table("up", upstream.base_url)) as served:
        uses = [
            (await ask(served.port, "POST", "/v1/embeddings", body, headers)).headers["x-cauce-cache"]
            for headers in (
                {},
                {},
                {"Cache-Control": "max-age=60"},
                {"Cache-Control": "max-age=60"},
                {"Cache-Control": "no-store"},
            )
        ]
        refused = await ask(
            served.port, "POST", "/v1/embeddings", {**body, "input": "never"}, {"Cache-Control": "only-if-cached"}
        )
    assert uses == ["none", "none", "miss", "hit", "none"]
    assert refused.status == 504 and len(upstream.requests) == 4


async def until_kept(served: Served, body: dict[str, Any]) -> None:
    """An answer is kept where servers share it just after its client has it."""

    async def look() -> None:
        while (await ask(served.port, "POST", CHAT, body, {"Cache-Control": "only-if-cached"})).status != 200:
            await asyncio.sleep(0.01)

    await within(look())


async def test_servers_with_one_redis_share_answers(upstream: Upstream) -> None:
    with running_redis() as redis:
        toml = upstream_table("up", upstream.base_url) + f'[redis]\nurl = "{redis.url}"\n'
        async with serving(toml) as one, serving(toml) as other:
            await ask(one.port, "POST", CHAT, COLD)
            await until_kept(other, COLD)
            hit = await ask(other.port, "POST", CHAT, COLD)
            redis.stop()
            alone = await ask(other.port, "POST", CHAT, COLD)
            new = await ask(other.port, "POST", CHAT, {**COLD, "seed": 1})
    assert [response.headers["x-cauce-cache"] for response in (hit, alone, new)] == ["hit", "hit", "miss"]
    assert [response.status for response in (hit, alone, new)] == [200, 200, 200]
    assert len(upstream.requests) == 2


async def test_answers_that_servers_share_stay_within_their_bytes(upstream: Upstream) -> None:
    with running_redis() as redis:
        toml = upstream_table("up", upstream.base_url) + f'[redis]\nurl = "{redis.url}"\n[cache]\nshared = 8000\n'
        async with serving(toml) as one, serving(toml) as two, serving(toml) as fresh:
            for seed in range(40):
                await ask((one, two)[seed % 2].port, "POST", CHAT, {**COLD, "seed": seed})
            await until_kept(fresh, {**COLD, "seed": 39})
            shown = (await ask(two.port, "GET", "/metrics")).body.decode()
            found = [
                (await ask(fresh.port, "POST", CHAT, {**COLD, "seed": seed})).headers["x-cauce-cache"]
                for seed in (39, 38, 37, 0, 1, 2)
            ]
    held = re.search(r'^cauce_cache_bytes{where="redis"} (\S+)$', shown, re.MULTILINE)
    assert held is not None and 4000 < float(held[1]) <= 8000
    assert found == ["hit"] * 3 + ["miss"] * 3


async def test_servers_whose_answers_are_not_to_be_shared_keep_their_own(upstream: Upstream) -> None:
    with running_redis() as redis:
        toml = upstream_table("up", upstream.base_url) + f'[redis]\nurl = "{redis.url}"\n[cache]\nshared = 0\n'
        async with serving(toml) as one, serving(toml) as other:
            answers = [await ask(served.port, "POST", CHAT, COLD) for served in (one, other, one, other)]
            shown = (await ask(one.port, "GET", "/metrics")).body.decode()
    assert [answer.headers["x-cauce-cache"] for answer in answers] == ["miss", "miss", "hit", "hit"]
    assert 'where="memory"' in shown and 'where="redis"' not in shown


async def test_answer_of_before_does_not_make_a_provider_look_well(upstream: Upstream) -> None:
    upstream.answers = [Reply(), Reply(status=503, error={"message": "down"})]
    async with serving(upstream_table("up", upstream.base_url) + "[cache]\nttl = 0.0\n", ONE_TRY) as served:
        for _ in range(2):
            await ask(served.port, "POST", CHAT, COLD)
        health = (await ask(served.port, "GET", "/health")).json()
    assert (health["status"], health["providers"]["up"]["status"]) == ("degraded", "down")


async def test_only_if_cached_is_refused_where_there_is_no_cache_at_all(upstream: Upstream) -> None:
    async with serving(upstream_table("up", upstream.base_url) + "[cache]\nenabled = false\n") as served:
        for path, body in ((CHAT, COLD), ("/v1/embeddings", {"model": "up/m", "input": "one"})):
            response = await ask(served.port, "POST", path, body, {"Cache-Control": "only-if-cached"})
            assert response.status == 504
    assert upstream.requests == []
