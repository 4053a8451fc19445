"""One deadline, as the client sees it: to the first delta, between bytes, for the whole answer. Times are real, and short."""

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream, fault
from tests.http import ask, within
from tests.serving import MESSAGES, serving, upstream_table
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


async def test_silence_between_deltas_ends_the_stream_and_closes_the_upstream(upstream: Upstream) -> None:
    upstream.answers = [Reply(stall_after=2)]
    async with serving(configured(upstream, CHAT, "idle = 0.2")) as served:
        got = await within(CHAT.asked(served.port, "up/m", stream=True))
        await within(upstream.closed.wait())
    assert (got.kind, got.text, got.code) == ("broken off", "Hello from ", "timeout")


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
