"""One deadline, as the client sees it: to the first delta, between bytes, for the whole answer. Times are real, and short."""

from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI, InternalServerError

from cauce.testing.upstream import Reply, Upstream, fault
from tests.http import ask, within
from tests.serving import BREAKS, MESSAGES, serving, upstream_table
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

CHAT, _, ANTHROPIC, _ = SURFACES
PING = b'{"type":"ping"}'
START = (
    b'{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],'
    b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Still "}}',
)
END = (
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"here."}}',
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}',
    b'{"type":"message_stop"}',
)


def configured(upstream: Upstream, surface: Surface, timeouts: str) -> str:
    provider = surface.provider.format(root=upstream.root)
    return f'[providers.up]\n{provider}api_key = "k"\ntimeouts = {{ {timeouts} }}\n'


async def test_pings_of_a_provider_are_signs_of_life(upstream: Upstream) -> None:
    # The text is longer apart than silence may last; the pings in between are not.
    upstream.answers = [Reply(chunks=(*START, *[PING] * 12, *END), pace=0.1)]
    async with serving(configured(upstream, ANTHROPIC, "idle = 0.7")) as served:
        got = await within(ANTHROPIC.asked(served.port, "up/m", stream=True))
    assert (got.kind, got.text) == ("answer", "Still here.")


@pytest.mark.parametrize("headers", [{}, {"X-Cauce-Durable": "true"}], ids=["direct", "logged"])
async def test_provider_that_only_pings_after_its_first_words_is_given_up_and_its_answer_gone_on_with(
    upstream: Upstream, headers: dict[str, str]
) -> None:
    upstream.answers = [Reply(chunks=(*START, *[PING] * 600), pace=0.05), Reply(text="here.")]
    async with serving(configured(upstream, ANTHROPIC, "stalled = 0.3")) as served:
        got = await within(ANTHROPIC.asked(served.port, "up/m", stream=True, headers=headers))
        await within(upstream.closed.wait())
    assert (got.kind, got.text) == ("answer", "Still here.") and len(upstream.requests) == 2


async def test_pieces_without_content_are_no_progress(upstream: Upstream) -> None:
    empty = b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":""}}]}'
    words = empty.replace(b'""', b'"Hello "')
    upstream.answers = [Reply(chunks=(words, *[empty] * 600), pace=0.05)]
    async with serving(configured(upstream, CHAT, "stalled = 0.3"), BREAKS) as served:
        got = await within(CHAT.asked(served.port, "up/m", stream=True))
    assert (got.kind, got.text, got.code) == ("broken off", "Hello ", "timeout")
    assert "nothing of its answer for 0.3 s" in got.message


async def test_reasoning_is_progress(upstream: Upstream) -> None:
    upstream.answers = [Reply(text="Done.", reasoning="hm " * 15, pace=0.05)]
    async with serving(configured(upstream, ANTHROPIC, "stalled = 0.5")) as served:
        got = await within(ANTHROPIC.asked(served.port, "up/m", stream=True))
    assert (got.kind, got.text) == ("answer", "Done.")


async def test_silence_between_deltas_ends_the_stream_and_closes_the_upstream(upstream: Upstream) -> None:
    upstream.answers = [Reply(stall_after=2)]
    async with serving(configured(upstream, CHAT, "idle = 0.2"), BREAKS) as served:
        got = await within(CHAT.asked(served.port, "up/m", stream=True))
        await within(upstream.closed.wait())
    assert (got.kind, got.text, got.code) == ("broken off", "Hello from ", "timeout")


async def test_times_of_a_route_go_before_those_of_its_provider_member_by_member(upstream: Upstream) -> None:
    upstream.scripts = {"quiet": [Reply(stall_after=2)], "slow": [Reply(silent=True)]}
    toml = configured(upstream, CHAT, "idle = 0.2, first_delta = 50")
    toml += '[models.route]\ncandidates = ["up/quiet"]\ntimeouts = { first_delta = 0.3 }\n'
    toml += '[models.slow]\ncandidates = ["up/slow"]\ntimeouts = { first_delta = 0.3 }\n[retry]\nattempts = 1\n'
    async with serving(toml + "[recovery]\nattempts = 0\n") as served:
        # The route says nothing of silence, so its provider does; of the first delta both do.
        quiet = await within(CHAT.asked(served.port, "route", stream=True))
        slow = await within(CHAT.asked(served.port, "slow", stream=True))
    assert (quiet.kind, quiet.text, quiet.code) == ("broken off", "Hello from ", "timeout")
    assert (slow.kind, slow.status) == ("refused", 504)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_whole_answers_end_with_the_total_time(upstream: Upstream, stream: bool) -> None:
    # It never falls silent, and would go on for a minute.
    upstream.answers = [Reply(text="word " * 600, pace=0.1) if stream else Reply(delay=60)]
    async with serving(configured(upstream, CHAT, "total = 0.5, idle = 5")) as served:
        got = await within(CHAT.asked(served.port, "up/m", stream=stream))
        await within(upstream.closed.wait())
    assert got.code == "timeout"
    assert (got.kind, got.status) == (("broken off", 200) if stream else ("refused", 504))
    assert upstream.record.requests == {"m": 1}


@pytest.mark.parametrize("whose", ["configured", "the client's"])
async def test_logged_stream_ends_with_the_time_that_somebody_has_set(upstream: Upstream, whose: str) -> None:
    upstream.answers = [Reply(text="word " * 600, pace=0.1)]
    toml, headers = ("logged = 0.5", {}) if whose == "configured" else ("idle = 5", {"X-Cauce-Timeout": "0.5"})
    async with serving(configured(upstream, CHAT, toml)) as served:
        body = {"model": "up/m", "messages": MESSAGES}
        got = await within(ask(served.port, "POST", "/chat/stream/s", body, headers))
        await within(upstream.closed.wait())
    last = got.frames()[-1]
    assert (last["final_error"], last["error_code"]) == (True, "timeout") and last["partial"].startswith("word ")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_waits_between_retries_are_part_of_the_deadline(upstream: Upstream, stream: bool) -> None:
    upstream.answers = [msgspec.structs.replace(Reply(), status=429, retry_after=20.0)]
    body = {"model": "up/m", "messages": MESSAGES, "timeout": 0.5, "stream": stream}
    async with serving(upstream_table("up", upstream.base_url)) as served:
        got = await within(ask(served.port, "POST", "/llm/message", body))
    # Coming back in twenty seconds is for the client to decide.
    assert (got.status, got.json()["error_code"]) == (429, "rate_limited")
    assert got.headers["retry-after"] == "20" and upstream.record.requests == {"m": 1}


async def test_deadline_of_a_request_is_shared_by_all_that_are_asked(upstream: Upstream) -> None:
    upstream.answers = [fault("hang")]
    toml = upstream_table("up", upstream.base_url) + '[models.both]\ncandidates = ["up/a", "up/b"]\n'
    async with serving(toml) as served:
        body = {"model": "both", "messages": MESSAGES, "timeout": 0.5}
        got = await within(ask(served.port, "POST", "/llm/message", body))
        await within(upstream.record.idle.wait())
    assert (got.status, got.json()["error_code"]) == (504, "timeout")


HANGING = "[streams]\nhold_headers = 60\n"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_time_of_a_call_may_stand_in_a_header_on_every_surface(
    upstream: Upstream, surface: Surface, stream: bool
) -> None:
    upstream.answers = [fault("hang")]
    async with serving(configured(upstream, surface, "idle = 50") + HANGING) as served:
        got = await within(surface.asked(served.port, "up/m", stream=stream, headers={"X-Cauce-Timeout": "0.3"}))
        await within(upstream.closed.wait())
    assert (got.kind, got.status) == ("refused", 504)


@pytest.mark.parametrize("value", ["soon", "", "0", "-1", "nan", "inf", "1e2", "1_0", "86401", "0.05", "5 s", "٣"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_time_that_is_none_is_a_mistake_of_the_client(upstream: Upstream, surface: Surface, value: str) -> None:
    async with serving(configured(upstream, surface, "idle = 5")) as served:
        for stream in (False, True):
            headers = {"X-Cauce-Timeout": value.encode().decode("latin-1")}
            got = await within(surface.asked(served.port, "up/m", stream=stream, headers=headers))
            assert (got.kind, got.status) == ("refused", 400)
            assert "X-Cauce-Timeout: must be seconds from 0.1 to 86400, such as 30 or 2.5" in got.message
    assert upstream.requests == []


async def test_time_in_the_body_goes_before_the_one_in_the_header_and_that_before_the_configured_one(
    upstream: Upstream,
) -> None:
    upstream.answers = [fault("hang")]
    toml = upstream_table("up", upstream.base_url) + "[timeouts]\nmessage = 50\n"
    async with serving(toml) as served:
        for body, header in (({"timeout": 0.3}, "50"), ({}, "0.3")):
            asked = {"model": "up/m", "messages": MESSAGES, **body}
            got = await within(ask(served.port, "POST", "/llm/message", asked, {"X-Cauce-Timeout": header}))
            assert (got.status, got.json()["error_code"]) == (504, "timeout")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "up/m", "input": "a"}),
        ("/v1/completions", {"model": "up/m", "prompt": ["a", "b"]}),
        ("/v1beta/models/up%2Fm:generateContent", {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}),
        ("/v1beta/models/up%2Fm:embedContent", {"content": {"parts": [{"text": "a"}]}}),
    ],
)
async def test_vectors_completions_and_gemini_have_it_too(upstream: Upstream, path: str, body: dict[str, Any]) -> None:
    upstream.answers = [fault("hang")]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        late = await within(ask(served.port, "POST", path, body, {"X-Cauce-Timeout": "0.3"}))
        wrong = await within(ask(served.port, "POST", path, body, {"X-Cauce-Timeout": "soon"}))
    assert (late.status, wrong.status) == (504, 400)


async def test_time_of_a_logged_call_is_that_of_its_first_request(upstream: Upstream) -> None:
    upstream.answers = [fault("hang")]
    headers = {"Idempotency-Key": "k", "X-Cauce-Timeout": "0.3"}
    async with serving(upstream_table("up", upstream.base_url)) as served:
        first = await within(CHAT.asked(served.port, "up/m", stream=False, headers=headers))
        # What is left of a client's time differs from try to try: it is the same call.
        again = await within(
            CHAT.asked(served.port, "up/m", stream=False, headers={**headers, "X-Cauce-Timeout": "50"})
        )
    assert (first.status, again.status) == (504, 504) and upstream.record.requests == {"m": 1}


async def test_time_between_reads_that_official_clients_tell_by_themselves_is_no_bound_of_a_call(
    upstream: Upstream,
) -> None:
    upstream.answers = [Reply(pace=0.1)]
    async with serving(configured(upstream, CHAT, "idle = 5")) as served:
        for name in ("X-Stainless-Read-Timeout", "X-Stainless-Timeout"):
            got = await within(CHAT.asked(served.port, "up/m", stream=True, headers={name: "0.1"}))
            assert (got.kind, got.text) == ("answer", "Hello from upstream.")


async def test_official_client_is_given_a_time_by_its_headers(upstream: Upstream) -> None:
    upstream.answers = [fault("hang")]
    asked: Any = [{"role": "user", "content": "a"}]
    async with serving(upstream_table("up", upstream.base_url)) as served:
        headers = {"X-Cauce-Timeout": "0.3"}
        async with AsyncOpenAI(base_url=served.v1, api_key="k", max_retries=0, default_headers=headers) as client:
            with pytest.raises(InternalServerError) as late:
                await within(client.chat.completions.create(model="up/m", messages=asked))
    assert late.value.status_code == 504
