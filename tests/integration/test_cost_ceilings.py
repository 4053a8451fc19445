"""What an answer may cost by default: when it breaks and is gone on with, and while nobody reads it."""

import asyncio
import logging
from pathlib import Path

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.http import ask, connection, within
from tests.integration.test_recovery import ORACLE, ROUTE, going_on, table
from tests.serving import Served, serving
from tests.surfaces import SURFACES

pytestmark = pytest.mark.anyio

EXACT = '[facts."two/*"]\nprefill = true\n'
DEAR = '[facts."one/*"]\ninput_price = 5\noutput_price = 50000\n'
"""Nobody's price: a short answer costs what a book would."""

OFTEN = '[streams]\nfolder = "{folder}"\nlease = 1\n'
"""Servers that may share their streams look four times per lease at what those cost."""

BODY = {"model": "route", "messages": [{"role": "user", "content": "Tell."}]}


async def state_of(served: Served) -> str:
    return (await within(ask(served.port, "GET", "/chat/stream/s"))).json()["state"]


async def spent(served: Served) -> float:
    return (await within(ask(served.port, "GET", "/usage"))).json()["total"]["cost"]


async def test_answer_that_has_cost_the_ceiling_ends_incomplete_with_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Upstream(Reply(ORACLE, cut_after=40)) as cutting, Upstream(going_on) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE + EXACT + DEAR) as served:
            with caplog.at_level(logging.WARNING, "cauce.calls"):
                frames = (await within(ask(served.port, "POST", "/chat/stream/s", BODY), 30)).frames()
            state, cost = await state_of(served), await spent(served)
            outcome = await within(SURFACES[0].asked(served.port, "route", stream=True), 30)
    last = frames[-1]
    assert (last["type"], last["final_error"], last["error_code"]) == ("error", True, "provider_error"), last
    assert len(last["partial"]) > 300 and ORACLE.startswith(last["partial"])
    assert (state, cost >= 2) == ("incomplete", True)
    assert outcome.kind != "answer", "outside of the log it is an error, never a clean end"
    assert not other.requests
    assert any(["max_cost of [recovery]: 2" in record.message for record in caplog.records])


@pytest.mark.parametrize("why", ["no price", "no bound"])
async def test_ceiling_bounds_no_model_without_a_price_and_zero_means_any(why: str) -> None:
    facts = DEAR + "[recovery]\nmax_cost = 0\n" if why == "no bound" else ""
    async with Upstream(Reply(ORACLE, cut_after=40)) as cutting, Upstream(going_on) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE + EXACT + facts) as served:
            frames = (await within(ask(served.port, "POST", "/chat/stream/s", BODY), 30)).frames()
    assert (frames[-1]["type"], frames[-1]["data"]) == ("complete", ORACLE)


async def test_long_answer_of_a_dear_model_that_breaks_five_times_is_whole() -> None:
    text = " ".join([f"palabra{place}ñ" for place in range(2300)])

    def breaking(request: Ask) -> Reply:
        last = request.body["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        return Reply(text[len(begun) :], cut_after=400)

    # What Claude Opus 5 is listed at, after a prompt of some twenty thousand tokens.
    facts = '[facts."one/*"]\ninput_price = 5\noutput_price = 25\nprefill = true\n'
    body = {"model": "route", "messages": [{"role": "user", "content": "Tell. " * 13_500}]}
    async with Upstream(breaking) as provider:
        async with serving(table("one", provider) + ROUTE.replace(', "two/m"', "") + facts) as served:
            frames = (await within(ask(served.port, "POST", "/chat/stream/s", body), 30)).frames()
    assert (frames[-1]["type"], frames[-1]["data"]) == ("complete", text)
    assert len(provider.requests) == 6 and 0.6 < frames[-1]["cost"] < 2


@pytest.mark.parametrize(("facts", "ends"), [(DEAR, True), ("", False)], ids=["priced", "without a price"])
async def test_answer_that_has_cost_the_ceiling_unread_is_cancelled_with_its_text(
    tmp_path: Path, facts: str, *, ends: bool
) -> None:
    gate = asyncio.Semaphore(40)
    toml = ROUTE.replace(', "two/m"', "") + facts + OFTEN.format(folder=tmp_path / "streams")
    async with Upstream(Reply(ORACLE, gate=gate)) as provider:
        async with serving(table("one", provider) + toml, data=tmp_path / "data") as served:
            async with connection(served.port) as client:
                await client.send("POST", "/chat/stream/s", msgspec.json.encode(BODY))
                await client.head()
                await within(client.until(b"palabra30"))
            if ends:
                await within(provider.closed.wait(), 20)
            else:
                # Four looks at what streams cost, in which nothing happens to it.
                with pytest.raises(TimeoutError):
                    await within(provider.closed.wait(), 1.2)
                for _ in range(30):
                    gate.release()
            frames = (await within(ask(served.port, "GET", "/chat/stream/s/resume?after=0"), 30)).frames()
            cost = await spent(served)
    if not ends:
        assert (frames[-1]["type"], frames[-1]["data"]) == ("complete", ORACLE)
        return
    assert (frames[-1]["type"], frames[-1]["reason"]) == ("cancelled", "unattended")
    assert len(frames[-1]["data"]) > 300 and ORACLE.startswith(frames[-1]["data"])
    assert cost >= 2
