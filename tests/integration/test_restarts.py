"""Answers that begin anew: seen by readers who can take back text, unseen on routes that show it at the end, and never by others."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, within
from tests.integration.test_logged_calls import SURFACES
from tests.serving import MESSAGES, ONE_TRY, Served, serving, upstream_table

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
