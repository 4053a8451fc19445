"""Answers that begin anew: seen by readers who can take back text, unseen on routes that show it at the end, and never by others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, within
from tests.integration.test_logged_calls import SURFACES
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table
from tests.surfaces import SURFACES as WIRES
from tests.surfaces import Surface as Wire

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"model": "route", "messages": MESSAGES}


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream(Reply(text="right from the start")) as server:
        yield server


def toml(upstream: Upstream, other: Upstream, more: str = "") -> str:
    route = '[models.route]\ncandidates = ["one/m", "two/m"]\nmidstream = "restart"\n'
    tables = upstream_table("one", upstream.base_url) + upstream_table("two", other.base_url)
    upstream.answers = [Reply(text="wrong from the start", cut_after=2)]
    return tables + route + more


async def native(served: Served, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await within(ask(served.port, "POST", "/chat/stream/s", BODY, named))


async def test_client_that_can_take_back_text_sees_the_answer_begin_anew(upstream: Upstream, other: Upstream) -> None:
    async with serving(toml(upstream, other), ONE_TRY) as served:
        response = await native(served, X_Cauce_Restart="accept")
    frames = response.frames()
    restarts = [frame for frame in frames if frame.get("status") == "restart"]
    first = next(frame["seq"] for frame in frames if frame["type"] == "content")
    assert restarts and restarts[0]["from_seq"] <= first < restarts[0]["seq"]
    assert frames[-1]["type"] == "complete" and frames[-1]["data"] == "right from the start"


async def test_client_that_says_nothing_never_sees_an_answer_begin_anew(upstream: Upstream, other: Upstream) -> None:
    async with serving(toml(upstream, other), ONE_TRY) as served:
        response = await native(served)
    assert not [frame for frame in response.frames() if frame.get("status") == "restart"]
    assert response.frames()[-1]["final_error"] is True and response.frames()[-1]["partial"].startswith("wrong")
    assert other.requests == []


async def test_buffered_answer_that_began_anew_shows_only_what_is_left(upstream: Upstream, other: Upstream) -> None:
    async with serving(toml(upstream, other, "buffer = true\n"), ONE_TRY) as served:
        shown = {"native": await native(served)}
        for name in ("chat", "anthropic"):
            surface = SURFACES[name]
            body = {**surface.body, "model": "route"}
            upstream.script(Reply(text="wrong from the start", cut_after=2))
            shown[name] = await within(ask(served.port, "POST", surface.path, {**body, "stream": True}))
            upstream.script(Reply(text="wrong from the start", cut_after=2))
            shown[f"plain {name}"] = await within(ask(served.port, "POST", surface.path, body))
    for name, response in shown.items():
        assert "wrong" not in response.body.decode() and response.status == 200, name
    frames = shown["native"].frames()
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert frames[-1]["data"] == "right from the start"
    assert shown["plain chat"].json()["choices"][0]["message"]["content"] == "right from the start"


async def test_stream_that_began_anew_ends_as_incomplete_on_a_wire_that_cannot_say_so(
    upstream: Upstream, other: Upstream
) -> None:
    async with serving(toml(upstream, other), ONE_TRY) as served:
        await native(served, X_Cauce_Restart="accept")
        chat = await within(ask(served.port, "GET", "/chat/stream/s/resume?wire=openai-chat&after=0"))
    assert '"cauce":{"incomplete":true}' in chat.body.decode() and "right" not in chat.body.decode()
    assert chat.complete and chat.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("wire", ["openai-chat", "openai-completions", "anthropic", "openai-responses", "ui"])
async def test_nothing_is_left_behind_the_last_frame_of_a_stream_that_began_anew(
    upstream: Upstream, other: Upstream, wire: str
) -> None:
    async with serving(toml(upstream, other), ONE_TRY) as served:
        await native(served, X_Cauce_Restart="accept")
        place = f"/chat/stream/s/resume?wire={wire}"
        whole = await within(ask(served.port, "GET", f"{place}&after=0"))
        ids = [line[4:] for line in whole.body.decode().split("\n") if line.startswith("id: ")]
        *others, over = [await within(ask(served.port, "GET", f"{place}&after={last}")) for last in ids]
    assert (over.status, over.body) == (204, b"")
    assert {one.status for one in others} == {200} and all(one.body for one in others)


async def test_plain_answer_that_began_anew_is_the_same_to_those_who_stream_it(
    upstream: Upstream, other: Upstream
) -> None:
    surface = SURFACES["chat"]
    body, key = {**surface.body, "model": "route"}, {"Idempotency-Key": "k"}
    async with serving(toml(upstream, other), ONE_TRY) as served:
        plain = await within(ask(served.port, "POST", surface.path, body, key))
        streamed = await within(ask(served.port, "POST", surface.path, {**body, "stream": True}, key))
    assert plain.json()["choices"][0]["message"]["content"] == "right from the start"
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed.frames()]
    assert "".join(said) == "right from the start" and streamed.body.endswith(b"data: [DONE]\n\n")


HALF = " ".join([f"palabra{place}" for place in range(60)])
BY_ITSELF = '[models.route]\ncandidates = ["one/m", "two/m"]\n[retry]\nattempts = 1\n[breaker]\nenabled = false\n'
"""What a route does that says nothing of `midstream`."""

WELL = {"the same words": HALF, "other words": "An answer that has nothing to do with the other one."}


class Halved(msgspec.Struct):
    """A running Cauce; the model asked first always dies half-way, the other one begins every answer at its beginning."""

    served: Served
    well: Upstream
    answer: str

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await within(ask(self.served.port, "POST", path, body, named), 30)


@asynccontextmanager
async def halved(answer: str, more: str = "") -> AsyncIterator[Halved]:
    async with Upstream(Reply(HALF, cut_after=30)) as breaking, Upstream(Reply(answer)) as well:
        tables = upstream_table("one", breaking.base_url) + upstream_table("two", well.base_url)
        async with serving(tables + BY_ITSELF.replace("[retry]", f"{more}[retry]")) as served:
            yield Halved(served, well, answer)


@pytest.mark.parametrize("words", WELL)
@pytest.mark.parametrize("surface", WIRES, ids=lambda surface: surface.name)
async def test_plain_answer_of_a_key_that_nobody_was_shown_is_the_whole_answer_of_the_model_that_is_well(
    surface: Wire, words: str
) -> None:
    async with halved(WELL[words]) as there:
        for _ in range(2):
            told = await surface.asked(there.served.port, "route", stream=False, headers={"Idempotency-Key": "k"})
            assert (told.kind, told.text) == ("answer", there.answer)
    assert len(there.well.requests) == 1, "nobody is asked to go on with what may be taken back unseen"


@pytest.mark.parametrize("words", WELL)
@pytest.mark.parametrize("surface", WIRES, ids=lambda surface: surface.name)
async def test_answer_that_is_shown_at_its_end_is_the_whole_answer_of_the_model_that_is_well(
    surface: Wire, words: str
) -> None:
    async with halved(WELL[words], "buffer = true\n") as there:
        for stream in (False, True):
            told = await within(surface.asked(there.served.port, "route", stream=stream), 30)
            assert (told.kind, told.text) == ("answer", there.answer), stream
    assert len(there.well.requests) == 2


async def test_reader_who_can_take_text_back_gets_a_whole_answer_where_every_model_begins_anew() -> None:
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "Tell."}]}
    page = {"id": "chat", "messages": [said], "trigger": "submit-message", "model": "route"}
    native = {**BODY, "stream": True}
    async with halved(HALF) as there:
        logged = await there.post("/chat/stream/s", BODY, X_Cauce_Restart="accept")
        unlogged = await there.post("/llm/message", native, X_Cauce_Restart="accept")
        shown = await there.post("/api/chat", page)
        body = {"model": "route", "input": "Tell."}
        told = await there.post("/v1/responses", {**body, "stream": True}, Idempotency_Key="k")
        repeated = await there.post("/v1/responses", body, Idempotency_Key="k")
    for response in (logged, unlogged):
        frames = response.frames()
        assert [frame.get("status") for frame in frames].count("restart") == 1
        assert (frames[-1]["type"], frames[-1]["data"]) == ("complete", HALF)
        asked = [frame["strategy"] for frame in frames if frame["type"] == "error" and frame["retrying"]]
        assert asked == ["continue", "continue", "restart"], "nothing is taken back while somebody may go on"
    chunks = shown.frames()
    place = next(place for place, chunk in enumerate(chunks) if chunk["type"] == "reset-step")
    assert "".join([chunk["delta"] for chunk in chunks[place:] if chunk["type"] == "text-delta"]) == HALF
    assert chunks[-1]["finishReason"] == "stop"
    response = told.frames()[-1]["response"]
    assert response["status"] == "completed" and response == repeated.json()
    assert [item["content"][0]["text"] for item in response["output"]] == [HALF]


async def test_reader_who_cannot_take_text_back_gets_the_error_where_every_model_begins_anew() -> None:
    async with halved(HALF) as there:
        told = await within(WIRES[0].asked(there.served.port, "route", stream=True), 30)
    assert told.kind == "broken off" and HALF.startswith(told.text.rstrip()) and told.text
