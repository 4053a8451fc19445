"""Answers whose provider fails after its first delta, on every surface: they are gone on with, or end as what they are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI

from cauce.client import Client, SyncClient
from cauce.domain.delta import Text
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.cutting import CuttingProxy
from tests.http import ask, connection, within
from tests.serving import Served, serving
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

ORACLE = " ".join([f"palabra{place}ñ" for place in range(60)])
"""Every piece says where it stands."""


def table(name: str, upstream: Upstream) -> str:
    return (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.base_url}"\napi_key = "k"\ndefault_model = "m"\n'
    )


def going_on(request: Ask) -> Reply:
    """What a model answers that goes on from the beginning of its own answer."""
    last = request.body["messages"][-1]
    assert last["role"] == "assistant", "the beginning of the answer is the last message"
    begun = last["content"]
    assert ORACLE.startswith(begun) and not begun.endswith(" "), begun
    return Reply(ORACLE[len(begun) :])


async def asked(surface: Surface, port: int) -> str:
    outcome = await within(surface.asked(port, "route", stream=True), 30)
    assert outcome.kind == "answer", (surface.name, outcome)
    return outcome.text


async def asked_of_gemini(port: int, _: int) -> str:
    body = {"contents": [{"role": "user", "parts": [{"text": "Tell."}]}]}
    response = await within(ask(port, "POST", "/v1beta/models/route:streamGenerateContent?alt=sse", body), 30)
    events = [msgspec.json.decode(line[6:]) for line in response.body.split(b"\r\n") if line.startswith(b"data: ")]
    assert response.complete and events[-1]["candidates"][0]["finishReason"] == "STOP", events[-1:]
    parts = [part for event in events for part in event["candidates"][0]["content"].get("parts", ())]
    return "".join([part["text"] for part in parts])


async def asked_with_an_id(port: int, place: int) -> str:
    body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}]}
    frames = (await within(ask(port, "POST", f"/chat/stream/tale-{place}", body), 30)).frames()
    numbered = [frame for frame in frames if "seq" in frame]
    assert [frame["seq"] for frame in numbered] == list(range(1, len(numbered) + 1))
    assert [frame["type"] for frame in numbered].count("start") == 1, "one prologue, however many attempts"
    assert frames[-1]["type"] == "complete", frames[-1]
    pieces = [frame["data"] for frame in frames if frame["type"] == "content"]
    assert "".join(pieces) == frames[-1]["data"]
    return frames[-1]["data"]


async def asked_for_the_log(port: int, _: int) -> str:
    outcome = await within(SURFACES[0].asked(port, "route", stream=True, headers={"X-Cauce-Durable": "true"}), 30)
    assert outcome.kind == "answer", outcome
    return outcome.text


ROUTE = '[models.route]\ncandidates = ["one/m", "two/m"]\n[retry]\nattempts = 1\n[breaker]\nenabled = false\n'


class Ends(msgspec.Struct, frozen=True):
    """A running Cauce, the provider that dies, and the one that goes on."""

    served: Served
    cutting: Upstream
    exact: Upstream

    def places(self) -> Iterator[int]:
        """Each delta after which the provider dies, while it is so. Each time, the other one is asked once."""
        for place in range(1, 51):
            self.cutting.script(Reply(ORACLE, cut_after=place, reset=place % 2 == 0))
            asked = len(self.exact.requests)
            yield place
            assert len(self.exact.requests) == asked + 1, place


@asynccontextmanager
async def both_ends() -> AsyncIterator[Ends]:
    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=1)))
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        yield Ends(await stack.enter_async_context(serving(toml)), cutting, exact)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_answer_cut_after_any_delta_is_whole_byte_for_byte_where_a_model_goes_on_exactly(
    surface: Surface,
) -> None:
    async with both_ends() as ends:
        for place in ends.places():
            assert await asked(surface, ends.served.port) == ORACLE, place


@pytest.mark.parametrize("way", ["streamed", "plain", "keyed"])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_logged_answer_cut_after_any_delta_is_whole_byte_for_byte_and_made_once(
    surface: Surface, way: str
) -> None:
    async with both_ends() as ends:
        for place in ends.places():
            headers = {"Idempotency-Key": f"tale-{place}"} if way == "keyed" else {"X-Cauce-Durable": "true"}
            # A key that is repeated has the same answer again, plain too.
            for stream in {"streamed": [True], "plain": [False], "keyed": [True, False]}[way]:
                outcome = await within(surface.asked(ends.served.port, "route", stream=stream, headers=headers), 30)
                assert (outcome.kind, outcome.text) == ("answer", ORACLE), (place, stream, outcome)


async def asked_by_a_page(port: int, place: int) -> str:
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "Tell."}]}
    body = {"id": f"chat-{place}", "messages": [said], "trigger": "submit-message", "model": "route"}
    response = await within(ask(port, "POST", "/api/chat", body), 30)
    lines = [line[6:] for line in response.body.split(b"\n") if line.startswith(b"data: ")]
    assert response.complete and lines[-1] == b"[DONE]", response
    chunks = [msgspec.json.decode(line) for line in lines[:-1]]
    assert chunks[-1]["type"] == "finish" and chunks[-1]["finishReason"] == "stop", chunks[-1]
    return "".join([chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta"])


async def asked_by_our_client(port: int, place: int) -> str:
    async with Client(f"http://127.0.0.1:{port}") as client, client.stream(f"Tell {place}.", model="route") as stream:
        async for _ in stream:
            pass
        return stream.text


async def asked_by_our_sync_client(port: int, place: int) -> str:
    def ask() -> str:
        with SyncClient(f"http://127.0.0.1:{port}") as client, client.stream(f"Tell {place}.", model="route") as stream:
            pieces = [delta.text for delta in stream if isinstance(delta, Text)]
            assert "".join(pieces) == stream.answer().text
            return stream.text

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    "asking", [asked_of_gemini, asked_with_an_id, asked_by_a_page, asked_by_our_client, asked_by_our_sync_client]
)
async def test_provider_reset_mid_stream_is_bridged(asking: Callable[[int, int], Awaitable[str]]) -> None:
    async with both_ends() as ends:
        for place in ends.places():
            assert await asking(ends.served.port, place) == ORACLE, place


@pytest.mark.parametrize("surface", ["a logged stream", "a stream", "a page"])
async def test_usage_of_an_answer_that_was_bridged_says_that_it_is_an_estimate(surface: str) -> None:
    said = [{"role": "user", "content": "Tell."}]
    whole: dict[str, Any] = {"model": "two/m", "messages": said}
    body = {"model": "route", "messages": said}
    async with both_ends() as ends:
        port = ends.served.port
        ends.cutting.script(Reply(ORACLE, cut_after=9))
        if surface == "a page":
            parts = [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "Tell."}]}]
            asked = {"id": "chat", "messages": parts, "trigger": "submit-message", "model": "route"}
            frames = (await within(ask(port, "POST", "/api/chat", asked), 30)).frames()
            usage = frames[-1]["messageMetadata"]["usage"]
        elif surface == "a stream":
            frames = (await within(ask(port, "POST", "/llm/message", {**body, "stream": True}), 30)).frames()
            usage = frames[-1]["usage"]
        else:
            live = await within(ask(port, "POST", "/chat/stream/tale", body), 30)
            again = await within(ask(port, "GET", "/chat/stream/tale/resume?after=0"), 30)
            usage = live.frames()[-1]["usage"]
            assert again.frames() == live.frames()
            assert (await ask(port, "GET", "/chat/stream/tale")).json()["usage"] == usage
        ends.exact.script(Reply("Whole."))
        reported = (await within(ask(port, "POST", "/llm/message", whole), 30)).json()["usage"]
    assert usage["estimated"] is True and usage["output_tokens"] > 5
    assert "estimated" not in reported


PROMPT = "Cuenta: "


async def asked_for_a_prompt(port: int, headers: dict[str, str] | None = None, **changes: Any) -> tuple[str, Any]:
    """The text, and the last event: its error, if it has one."""
    body = {"model": "route", "prompt": PROMPT, "stream": True, "max_tokens": 900, **changes}
    response = await within(ask(port, "POST", "/v1/completions", body, headers), 30)
    lines = [line[6:] for line in response.body.split(b"\n") if line.startswith(b"data: ")]
    ended = lines[-1] == b"[DONE]"
    events = [msgspec.json.decode(line) for line in (lines[:-1] if ended else lines)]
    assert response.complete and ended != ("error" in events[-1]), "an interrupted answer looks whole"
    return "".join([choice["text"] for event in events for choice in event.get("choices", ())]), events[-1]


@pytest.mark.parametrize("headers", [{}, {"X-Cauce-Durable": "true"}], ids=["unlogged", "logged"])
async def test_completion_of_a_prompt_cut_after_any_delta_is_whole_byte_for_byte(headers: dict[str, str]) -> None:
    place, begun = 0, list[str]()

    def told(request: Ask) -> Reply:
        said = request.body["prompt"].removeprefix(PROMPT)
        assert ORACLE.startswith(said) and not said.endswith(" "), said
        begun.append(said)
        # It is cut again as it goes on, unless it goes on from half of the answer.
        cut = place if not said else 5 if len(said) < len(ORACLE) // 2 else None
        return Reply(ORACLE[len(said) :], cut_after=cut, reset=cut is not None and place % 2 == 0)

    async with Upstream(told) as upstream, serving(table("one", upstream) + ROUTE.replace(', "two/m"', "")) as served:
        for place in range(1, 51):
            begun.clear()
            text, last = await asked_for_a_prompt(served.port, headers)
            assert (text, last["choices"][0]["finish_reason"]) == (ORACLE, "stop"), place
            assert len(begun) >= 2 and begun == sorted(begun, key=len), place
        assert upstream.requests[-1]["max_tokens"] < 900


SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "it became a conversation": ("foundry", {}),
    "it has a suffix": ("deepseek", {"suffix": "."}),
    "several answers": ("compatible", {"n": 2}),
    "it is made of tokens": ("compatible", {"prompt": [1, 2, 3]}),
}


@pytest.mark.parametrize("why", SHORT)
async def test_completion_of_a_prompt_that_nobody_can_go_on_with_ends_in_its_error(why: str) -> None:
    dialect, changes = SHORT[why]
    async with Upstream(Reply(ORACLE, cut_after=9)) as cutting, Upstream(Reply("never")) as other:
        tables = [table(name, one) + f'dialect = "{dialect}"\n' for name, one in {"one": cutting, "two": other}.items()]
        async with serving("".join(tables) + ROUTE) as served:
            text, last = await asked_for_a_prompt(served.port, **changes)
            logged, end = await asked_for_a_prompt(served.port, {"X-Cauce-Durable": "true"}, **changes)
    assert text == logged == " ".join(ORACLE.split(" ")[:9]) + " "
    assert last["error"]["code"] == "provider_error"
    assert (end["choices"][0]["finish_reason"], end["cauce"]) == ("length", {"incomplete": True})
    assert len(cutting.requests) == 2 and other.requests == []


BREAKS: dict[str, Callable[[int], Reply]] = {
    "cut": lambda place: Reply(ORACLE, cut_after=place),
    "reset": lambda place: Reply(ORACLE, cut_after=place, reset=True),
    "clean end": lambda place: Reply(ORACLE, ends_after=place),
    "silence": lambda place: Reply(ORACLE, stall_after=place),
    "error event": lambda place: Reply(ORACLE, error={"message": "it broke"}, error_after=place),
    "half an object": lambda place: Reply(ORACLE, garbled_after=place),
    "no object": lambda place: Reply(ORACLE, garbled_after=place, garbage=b"data: null\n\n"),
    "bytes that are no text": lambda place: Reply(ORACLE, garbled_after=place, garbage=b'data: {"a": "\xff\xfe"}\n\n'),
    "a page of a proxy": lambda place: Reply(ORACLE, garbled_after=place, garbage=b"data: <html></html>\n\n"),
}
ENDS = {
    "chat": (b"data: [DONE]", b'"finish_reason":"stop"'),
    "responses": (b'data: {"type":"response.completed"',),
    "messages": (b"event: message_delta", b"event: message_stop"),
    "native": (b'"type":"complete"',),
}
"""What each surface says once, at the end of a whole answer."""


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_every_break_of_every_wire_is_bridged_by_one_request(surface: Surface, name: str) -> None:
    def answering(request: Ask) -> Reply:
        return going_on(request) if request.body["messages"][-1]["role"] == "assistant" else Reply(ORACLE)

    async with AsyncExitStack() as stack:
        broken = await stack.enter_async_context(Upstream())
        exact = await stack.enter_async_context(Upstream(answering))
        toml = f'[providers.one]\n{surface.provider.format(root=broken.root)}api_key = "k"\n'
        toml += "timeouts = { first_delta = 0.3, idle = 0.3 }\n" if name == "silence" else ""
        toml += table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        for place in (0, 1, 20, 59):
            broken.script(BREAKS[name](place))
            exact.script(answering)
            body = {**surface.body, "model": "route", "stream": True}
            response = await within(ask(served.port, "POST", surface.path, body), 30)
            outcome = surface.outcome(response, stream=True)
            assert (outcome.kind, outcome.text) == ("answer", ORACLE), place
            assert [response.body.count(end) for end in ENDS[surface.name]] == [1] * len(ENDS[surface.name]), place
            assert len(broken.requests) == len(exact.requests) == 1, place
            # Whoever broke is let go of, though it might have more to say.
            await within(broken.record.idle.wait())
            one, two = [served.runtime.services.last_entry(provider) for provider in ("one", "two")]
            assert one is not None and two is not None and one.request_id == two.request_id
            assert (one.outcome, one.n, two.outcome, two.n) == ("failed", 1, "completed", 2)
            assert (one.usage.output_tokens > 0, two.usage.estimated) == (place > 0, False)
        told = (await ask(served.port, "GET", "/usage?group_by=provider")).json()
    groups = {group["provider"]: group for group in told["groups"]}
    assert groups["two"]["output_tokens"] == 5 * 4
    assert told["estimated"]["output_tokens"] == groups["one"]["output_tokens"] > 0


@pytest.mark.parametrize(
    "asking", [asked_of_gemini, asked_with_an_id, asked_for_the_log, asked_by_a_page, asked_by_our_client]
)
async def test_garbage_amid_a_stream_is_bridged_on_every_other_surface(
    asking: Callable[[int, int], Awaitable[str]],
) -> None:
    async with AsyncExitStack() as stack:
        broken = await stack.enter_async_context(Upstream())
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", broken) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        for place in range(1, 51, 7):
            broken.script(Reply(ORACLE, garbled_after=place))
            assert await asking(served.port, place) == ORACLE, place
        assert len(exact.requests) == 8


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_any_model_is_asked_to_continue_and_what_it_repeats_is_not_shown(surface: Surface) -> None:
    def continuing(request: Ask) -> Reply:
        said, word = request.body["messages"][-2:]
        assert said["role"] == "assistant" and word["role"] == "user" and said["content"][-100:] in word["content"]
        assert "Un fallo de red" in word["content"] or "network failure" in word["content"]
        return Reply(said["content"][-30:] + ORACLE[len(said["content"]) :])

    async with Upstream(Reply(ORACLE, cut_after=20)) as cutting, Upstream(continuing) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            assert await asked(surface, served.port) == ORACLE


async def test_ledger_and_frames_tell_of_each_attempt_and_the_usage_is_the_sum() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(going_on) as exact:
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            response = await ask(served.port, "POST", "/llm/message", body)
            frames = response.frames()
            told = (await ask(served.port, "GET", "/usage?group_by=provider")).json()
    kinds = [frame["type"] for frame in frames]
    assert kinds.count("complete") == 1 and kinds[-1] == "complete"
    broken = next(frame for frame in frames if frame["type"] == "error")
    assert broken["retrying"] is True and broken["strategy"] == "prefill"
    seam = next(frame for frame in frames if frame.get("status") == "seam")
    assert seam["quality"] == "exact"
    assert frames[-1]["data"] == ORACLE and len(frames[-1]["attempts"]) == 2
    assert frames[-1]["usage"]["output_tokens"] > 5
    groups = {group["provider"]: group for group in told["groups"]}
    assert groups["one"]["output_tokens"] > 0 and told["estimated"]["output_tokens"] == groups["one"]["output_tokens"]
    total = sum([group["output_tokens"] for group in groups.values()])
    assert frames[-1]["usage"]["output_tokens"] == total


async def test_route_that_forbids_it_ends_with_the_error() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("never")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", 'midstream = "fail"\n[retry]')
        async with serving(toml) as served:
            outcome = await SURFACES[0].asked(served.port, "route", stream=True)
    assert outcome.kind == "broken off" and not other.requests


async def test_model_that_begins_anew_is_refused_and_the_next_one_asked() -> None:
    def continuing(request: Ask) -> Reply:
        said: Any = request.body["messages"][-2]["content"]
        return Reply(ORACLE[len(said) :].lstrip())

    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=20)))
        anew = await stack.enter_async_context(Upstream(Reply(ORACLE)))
        third = await stack.enter_async_context(Upstream(continuing))
        toml = table("one", cutting) + table("two", anew) + table("three", third)
        toml += ROUTE.replace('"two/m"]', '"two/m", "three/m"]')
        served = await stack.enter_async_context(serving(toml))
        outcome = await within(SURFACES[0].asked(served.port, "route", stream=True), 30)
    assert outcome.kind == "answer" and outcome.text == ORACLE


FINDING = {"tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]}
FOUND = '{"q":"río"}'
CALLED: dict[str, tuple[dict[str, Any], ...]] = {
    "responses": (
        {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "function_call", "id": "f", "call_id": "c", "name": "find", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": FOUND},
        {"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "f", "arguments": FOUND},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "function_call", "id": "f", "call_id": "c", "name": "find", "arguments": FOUND},
        },
    ),
    "messages": (
        {
            "type": "message_start",
            "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 3}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "c", "name": "find", "input": {}},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": FOUND}},
        {"type": "content_block_stop", "index": 0},
    ),
    "native": ({"candidates": [{"content": {"parts": [{"functionCall": {"name": "find", "args": {"q": "río"}}}]}}]},),
}
"""A call that is complete, in the words of each wire that says so before the end of the answer. Then the stream ends without its own end."""


@pytest.mark.parametrize("surface", [one for one in SURFACES if one.name in CALLED], ids=lambda surface: surface.name)
async def test_complete_calls_of_a_cut_answer_end_the_step(surface: Surface) -> None:
    calls = Reply(chunks=tuple([msgspec.json.encode(chunk) for chunk in CALLED[surface.name]]))
    async with Upstream(calls) as cutting, Upstream(Reply("never")) as other:
        toml = f'[providers.one]\n{surface.provider.format(root=cutting.root)}api_key = "k"\n'
        async with serving(toml + table("two", other) + ROUTE) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Find."}], "stream": True, **FINDING}
            response = await ask(served.port, "POST", "/v1/chat/completions", body)
            entry = served.runtime.services.last_entry("one")
    choices = [choice for frame in response.frames() for choice in frame["choices"]]
    called = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [call["function"]["name"] for call in called if "id" in call] == ["find"]
    assert "".join([call["function"].get("arguments", "") for call in called]) == FOUND
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    assert response.complete and response.body.endswith(b"data: [DONE]\n\n")
    assert not other.requests and entry is not None and entry.outcome == "failed"


@pytest.mark.parametrize("place", [1, 2, 3])
async def test_call_that_nobody_said_was_complete_ends_in_an_error_and_is_not_made_twice(place: int) -> None:
    calls = Reply("", tool_calls=(("find", FOUND),), cut_after=place)
    async with Upstream(calls) as cutting, Upstream(Reply("never")) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Find."}], "stream": True, **FINDING}
            response = await ask(served.port, "POST", "/v1/chat/completions", body)
    frames = response.frames()
    assert not any([choice["finish_reason"] for frame in frames for choice in frame.get("choices", ())])
    assert frames[-1]["error"]["code"] == "provider_error" and b"[DONE]" not in response.body
    assert response.body.count(b'"name":"find"') == 1
    assert not other.requests


async def test_client_that_leaves_while_it_is_gone_on_with_closes_the_upstream() -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply(" more", gate=gate)) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(served.port, "POST", "/llm/message", body), 0.5)
            await within(other.closed.wait())


async def test_openai_s_sdk_gets_the_answer_byte_for_byte_wherever_it_was_cut() -> None:
    async with AsyncExitStack() as stack:
        cutting = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=1)))
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        sdk = await stack.enter_async_context(AsyncOpenAI(base_url=served.v1, api_key="any", max_retries=0))
        for place in range(1, 51):
            cutting.script(Reply(ORACLE, cut_after=place))
            async with sdk.chat.completions.stream(
                model="route", messages=[{"role": "user", "content": "Tell."}]
            ) as chat:
                completion = await chat.get_final_completion()
            assert completion.choices[0].message.content == ORACLE, place
            assert completion.choices[0].finish_reason == "stop"
            async with sdk.responses.stream(model="route", input="Tell.") as events:
                response = await events.get_final_response()
            assert response.output_text == ORACLE and response.status == "completed", place


async def test_answer_that_many_share_is_gone_on_with_once() -> None:
    async with Upstream(Reply(ORACLE, cut_after=20, pace=0.005)) as cutting, Upstream(going_on) as exact:
        toml = table("one", cutting) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        async with serving(toml) as served:
            body = {
                "model": "route",
                "messages": [{"role": "user", "content": "Tell."}],
                "temperature": 0,
                "stream": True,
            }
            asked_at_once = [ask(served.port, "POST", "/llm/message", body) for _ in range(20)]
            answers = await within(asyncio.gather(*asked_at_once), 30)
    assert {answer.frames()[-1]["data"] for answer in answers} == {ORACLE}
    assert (len(cutting.requests), len(exact.requests)) == (1, 1)


def background(name: str, upstream: Upstream) -> str:
    return table(name, upstream) + 'wire = "responses"\nbackground = true\n'


async def test_answer_that_is_made_in_the_background_is_attached_to_again_and_paid_once() -> None:
    async with Upstream(Reply(ORACLE)) as provider, Upstream(Reply("never")) as other:
        async with serving(background("one", provider) + table("two", other) + ROUTE) as served:
            for place in range(1, 51, 7):
                provider.script(Reply(ORACLE, cut_after=place, reset=place % 2 == 0))
                provider.background.cuts = [2, 3]
                assert await asked_with_an_id(served.port, place) == ORACLE, place
            told = (await ask(served.port, "GET", "/usage?group_by=provider")).json()
    assert not other.requests and len(provider.background.attached) == 3 * 8
    [group] = told["groups"]
    assert (group["provider"], group["requests"], told["estimated"]["output_tokens"]) == ("one", 8, 0)
    assert not provider.background.cancelled


async def test_cancel_of_a_stream_cancels_the_answer_that_is_made_in_the_background() -> None:
    gate = asyncio.Semaphore(5)
    async with Upstream(Reply(ORACLE, gate=gate)) as provider:
        async with serving(background("one", provider) + ROUTE.replace(', "two/m"', "")) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}]}
            reading = asyncio.create_task(ask(served.port, "POST", "/chat/stream/tale", body))
            await within(provider.asked.wait())
            while (await within(ask(served.port, "GET", "/chat/stream/tale"))).json()["tail"] < 4:
                pass
            assert (await within(ask(served.port, "DELETE", "/chat/stream/tale"))).json()["state"] == "cancelled"
            assert (await within(reading)).frames()[-1]["type"] == "cancelled"
        # The server has ended, and waited for what it had to tell.
        assert provider.background.cancelled == ["resp_fake_1"]
        assert provider.closed.is_set()


def keeping(name: str, upstream: Upstream) -> str:
    upstream.replay.on = True
    return table(name, upstream) + 'dialect = "llamacpp"\n'


@pytest.mark.parametrize(
    "asking", [asked_of_gemini, asked_with_an_id, asked_for_the_log, asked_by_a_page, asked_by_our_client]
)
async def test_stream_that_the_server_keeps_is_attached_to_again_wherever_the_connection_breaks(
    asking: Callable[[int, int], Awaitable[str]],
) -> None:
    async with Upstream(Reply(ORACLE)) as provider, Upstream(Reply("never")) as other:
        async with serving(keeping("one", provider) + table("two", other) + ROUTE) as served:
            for place in range(0, 9000, 613):
                provider.script(Reply(ORACLE))
                provider.replay.cuts, provider.replay.resets = [place, 100], place % 2 == 0
                assert await asking(served.port, place) == ORACLE, place
                assert len(provider.requests) == 1, "generated once"
            told = (await ask(served.port, "GET", "/usage?group_by=provider")).json()
    assert not other.requests and len(provider.replay.attached) == 2 * 15
    [group] = told["groups"]
    assert (group["provider"], group["requests"], told["estimated"]["output_tokens"]) == ("one", 15, 0)
    assert not provider.replay.stopped


async def test_server_that_goes_down_with_its_streams_is_gone_on_for_by_another() -> None:
    async with AsyncExitStack() as stack:
        provider = Upstream(Reply(ORACLE, gate=asyncio.Semaphore(10)))
        await provider.__aenter__()
        exact = await stack.enter_async_context(Upstream(going_on))
        toml = keeping("one", provider) + table("two", exact) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        reading = asyncio.create_task(asked_with_an_id(served.port, 1))
        await within(provider.asked.wait())
        while (await within(ask(served.port, "GET", "/chat/stream/tale-1"))).json()["tail"] < 4:
            pass
        await provider.__aexit__()
        assert await within(reading, 30) == ORACLE
        assert len(provider.requests) == len(exact.requests) == 1


async def test_server_that_has_forgotten_the_stream_is_asked_to_go_on_from_its_beginning() -> None:
    def answering(request: Ask) -> Reply:
        if request.body["messages"][-1]["role"] == "user":
            return Reply(ORACLE)
        assert request.body["continue_final_message"] is True
        return going_on(request)

    async with Upstream(answering) as provider:
        toml = keeping("one", provider) + ROUTE.replace(', "two/m"', "") + '[facts."one/*"]\nprefill = true\n'
        async with serving(toml) as served:
            provider.replay.cuts, provider.replay.lost = [3000], True
            assert await asked_with_an_id(served.port, 1) == ORACLE
        assert len(provider.requests) == 2 and len(provider.replay.attached) == 1
        assert provider.replay.stopped == [provider.headers[0]["x-conversation-id"]], "it would be made twice"


@pytest.mark.parametrize("how", ["no such path", "background = false"])
async def test_server_that_keeps_no_streams_or_is_not_to_is_asked_as_ever(how: str) -> None:
    def answering(request: Ask) -> Reply:
        return Reply(ORACLE, cut_after=9) if request.body["messages"][-1]["role"] == "user" else going_on(request)

    async with Upstream(answering) as provider:
        toml = keeping("one", provider) + "background = false\n" * (how == "background = false")
        provider.replay.on = how != "no such path"
        toml += ROUTE.replace(', "two/m"', "") + '[facts."one/*"]\nprefill = true\n'
        async with serving(toml) as served:
            assert await asked_with_an_id(served.port, 1) == ORACLE
        assert len(provider.requests) == 2 and not provider.replay.attached
        assert all(["x-conversation-id" not in headers for headers in provider.headers])


async def test_cancel_of_a_stream_stops_the_one_that_the_server_keeps() -> None:
    async with Upstream(Reply(ORACLE, gate=asyncio.Semaphore(5))) as provider:
        async with serving(keeping("one", provider) + ROUTE.replace(', "two/m"', "")) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}]}
            reading = asyncio.create_task(ask(served.port, "POST", "/chat/stream/tale", body))
            await within(provider.asked.wait())
            while (await within(ask(served.port, "GET", "/chat/stream/tale"))).json()["tail"] < 4:
                pass
            assert (await within(ask(served.port, "DELETE", "/chat/stream/tale"))).json()["state"] == "cancelled"
            assert (await within(reading)).frames()[-1]["type"] == "cancelled"
        # The server has ended, and waited for what it had to tell.
        assert provider.replay.stopped == [provider.headers[0]["x-conversation-id"]]


async def test_client_that_leaves_a_plain_stream_stops_the_one_that_the_server_keeps() -> None:
    async with Upstream(Reply(ORACLE, gate=asyncio.Semaphore(5))) as provider:
        async with serving(keeping("one", provider) + ROUTE.replace(', "two/m"', "")) as served:
            body = {"model": "route", "stream": True, "messages": [{"role": "user", "content": "Tell."}]}
            async with connection(served.port) as client:
                await client.send("POST", "/v1/chat/completions", msgspec.json.encode(body))
                await client.head()
                await within(client.until(b"palabra3"))
            await within(provider.replay.asked_to_stop.wait())
        assert provider.replay.stopped == [provider.headers[0]["x-conversation-id"]]


RESTARTING = 'midstream = "restart"\n[retry]'


@pytest.mark.parametrize("path", ["/llm/message", "/chat/stream/tale"])
@pytest.mark.parametrize("accepts", [True, False])
async def test_readers_that_can_take_back_what_they_have_get_another_answer(path: str, *, accepts: bool) -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("Otra respuesta.")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", RESTARTING)
        # The first one is asked again, and fails again before it has said anything.
        cutting.script(Reply(ORACLE, cut_after=5), Reply(status=500))
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            headers = {"X-Cauce-Restart": "accept"} if accepts else {}
            frames = (await within(ask(served.port, "POST", path, body, headers))).frames()
    restarts = [frame for frame in frames if frame.get("status") == "restart"]
    if accepts:
        [restart] = restarts
        later = [frame["data"] for frame in frames if frame["type"] == "content" and frame["seq"] > restart["seq"]]
        assert "".join(later) == frames[-1]["data"] == "Otra respuesta." and restart["from_seq"] == 1
        assert frames[-1]["type"] == "complete"
    else:
        assert not restarts and frames[-1]["final_error"] and frames[-1]["partial"] and not other.requests


async def test_broken_tool_call_is_taken_back_and_made_again_on_the_native_wire() -> None:
    broken = Reply("", tool_calls=(("find", '{"q": "río"}'),), cut_after=2)
    async with Upstream(broken) as cutting, Upstream(Reply("", tool_calls=(("find", '{"q": "mar"}'),))) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            cutting.script(broken, Reply(status=500))
            tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
            body = {
                "model": "route",
                "messages": [{"role": "user", "content": "Find."}],
                "tools": [tool],
                "stream": True,
            }
            frames = (await within(ask(served.port, "POST", "/llm/message", body))).frames()
    calls = [(frame["mark"], frame["data"]["call_id"]) for frame in frames if frame["type"] == "tool_call"]
    abandoned = next(call_id for mark, call_id in calls if mark == "abandoned")
    ready = [call_id for mark, call_id in calls if mark == "ready"]
    assert len(ready) == 1 and ready[0] != abandoned
    assert frames[-1]["type"] == "complete" and frames[-1]["finish_reason"] == "tool_calls"


async def test_seam_filter_drops_the_repeated_sentence() -> None:
    told = "El río nace en la sierra. Baja despacio por el valle, entre huertas que lo beben. Después llega al mar."
    repeated = "Baja despacio por el valle, entre huertas que lo beben."
    place = len(told[: told.index(" Después")].split(" "))
    again = Reply(f"{repeated} Después llega al mar.")
    async with Upstream(Reply(told, cut_after=place)) as cutting, Upstream(again) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "stream": True}
            frames = (await within(ask(served.port, "POST", "/llm/message", body))).frames()
    seam = next(frame for frame in frames if frame.get("status") == "seam")
    assert frames[-1]["data"] == told
    assert seam["quality"] == "stitched" and seam["dropped"] >= len(repeated)


@pytest.mark.parametrize(
    ("surface", "prologue"),
    [
        (SURFACES[1], b"event: response.created"),
        (SURFACES[2], b"event: message_start"),
        (SURFACES[3], b'"type":"start"'),
    ],
    ids=["responses", "messages", "native"],
)
async def test_stream_with_three_attempts_has_one_start(surface: Surface, prologue: bytes) -> None:
    def cut_again(request: Ask) -> Reply:
        return msgspec.structs.replace(going_on(request), cut_after=3)

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=9)))
        two = await stack.enter_async_context(Upstream(cut_again, going_on))
        toml = table("one", one) + table("two", two) + ROUTE + '[facts."two/*"]\nprefill = true\n'
        served = await stack.enter_async_context(serving(toml))
        body = {**surface.body, "model": "route", "stream": True}
        response = await within(ask(served.port, "POST", surface.path, body), 30)
    assert response.body.count(prologue) == 1
    assert surface.outcome(response, stream=True).text == ORACLE
    assert (len(one.requests), len(two.requests)) == (1, 2)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_eof_without_terminal_is_a_failure(surface: Surface) -> None:
    async with Upstream(Reply(ORACLE, ends_after=5)) as cutting:
        toml = table("one", cutting) + ROUTE.replace(', "two/m"', "").replace(
            "[retry]", 'midstream = "resume"\n[retry]'
        )
        async with serving(toml) as served:
            outcome = await within(surface.asked(served.port, "route", stream=True), 30)
    assert outcome.kind == "broken off", outcome


async def test_plain_logged_call_whose_provider_breaks_gets_another_answer() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("Otra respuesta.")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", RESTARTING)
        cutting.script(Reply(ORACLE, cut_after=5), Reply(status=500))
        async with serving(toml) as served:
            asked = SURFACES[0].asked(served.port, "route", stream=False, headers={"X-Cauce-Durable": "true"})
            outcome = await within(asked, 30)
    assert (outcome.kind, outcome.text) == ("answer", "Otra respuesta.")


async def test_our_client_shows_the_answer_that_took_the_place_of_another() -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("Otra respuesta.")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", RESTARTING)
        cutting.script(Reply(ORACLE, cut_after=5), Reply(status=500))
        async with serving(toml) as served:
            assert await asked_by_our_client(served.port, 0) == "Otra respuesta."


@pytest.mark.parametrize(
    ("dialect", "path", "flags"),
    [
        ("mistral", "/v1/chat/completions", {}),
        ("deepseek", "/beta/chat/completions", {}),
        ("vllm", "/v1/chat/completions", {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
async def test_dialect_that_claims_to_go_on_exactly_is_tried_once_and_believed(
    dialect: str, path: str, flags: dict[str, bool]
) -> None:
    def answering(request: Ask) -> Reply:
        if not request.streamed:
            return Reply(" five six seven eight")
        return going_on(request)

    async with Upstream(Reply(ORACLE, cut_after=9)) as cutting, Upstream(answering) as exact:
        toml = table("one", cutting) + table("two", exact) + f'dialect = "{dialect}"\n' + ROUTE
        async with serving(toml) as served:
            for _ in range(3):
                assert await asked(SURFACES[3], served.port) == ORACLE
    assert exact.paths == [path] * 4
    for body in exact.requests:
        assert {name: body.get(name) for name in flags} == flags
        assert bool(body["messages"][-1].get("prefix")) is not bool(flags)


async def test_another_cauce_behind_it_is_attached_to_again_wherever_the_network_breaks() -> None:
    async with Upstream(Reply(ORACLE)) as provider, serving(table("one", provider)) as behind:
        async with CuttingProxy(behind.port) as proxy:
            toml = f'[providers.one]\nkind = "openai"\nbase_url = "{proxy.url}/v1"\napi_key = "k"\n'
            toml += 'wire = "responses"\nbackground = true\n[models.route]\ncandidates = ["one/one/m"]\n'
            async with serving(toml) as served:
                for place, count in enumerate(range(2_500, 12_000, 500)):
                    proxy.cut_after(count)
                    assert await asked_with_an_id(served.port, place) == ORACLE, count
                    assert proxy.cut.is_set(), count
    assert len(provider.requests) == 19, "each answer was made once"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_broken_tool_call_is_not_seen_where_calls_are_shown_whole(path: str) -> None:
    broken = Reply("", tool_calls=(("find", '{"q": "río"}'),), cut_after=2)
    async with Upstream(broken) as cutting, Upstream(Reply("", tool_calls=(("find", '{"q": "mar"}'),))) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            cutting.script(broken, Reply(status=500))
            tool: dict[str, Any] = {"name": "find", "input_schema": {"type": "object"}}
            if "chat" in path:
                tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
            said = [{"role": "user", "content": "Find."}]
            body = {"model": "route", "messages": said, "tools": [tool], "stream": True, "max_tokens": 64}
            response = await within(ask(served.port, "POST", path, body, {"X-Cauce-Durable": "true"}))
    assert response.complete and b"r\xc3\xado" not in response.body and b"mar" in response.body
    assert response.body.count(b'"name":"find"') == 1


@pytest.mark.parametrize(
    ("told", "rest"),
    [
        (
            "El agua del arroyo bajaba muy limpia y el cielo estaba muy ",
            "claro, y el sol brillaba sobre los campos de olivos de Jaén.",
        ),
        ("You can use either form; if you are not ", "sure, use the first form, since it is always safe to use."),
        (
            "Para llegar al mercado cruza el puente y ",
            "sigo recto hasta la plaza, donde la fuente marca el centro.",
        ),
    ],
)
async def test_continuation_whose_words_could_be_talk_is_taken_for_what_it_is(told: str, rest: str) -> None:
    cut = Reply(told + "x y", cut_after=len(told.split(" ")) - 1)
    async with Upstream(cut) as cutting, Upstream(Reply(rest)) as other:
        async with serving(table("one", cutting) + table("two", other) + ROUTE) as served:
            assert await asked(SURFACES[0], served.port) == told + rest
    assert (len(cutting.requests), len(other.requests)) == (1, 1)


async def test_model_that_is_well_is_reached_past_one_that_is_always_cut() -> None:
    def continuing(request: Ask) -> Reply:
        said = request.body["messages"][-2]["content"]
        return Reply(ORACLE[len(said) :].lstrip())

    def cut_again(request: Ask) -> Reply:
        return msgspec.structs.replace(continuing(request), cut_after=3)

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Upstream(Reply(ORACLE, cut_after=20), Reply("never")))
        two = await stack.enter_async_context(Upstream(cut_again))
        three = await stack.enter_async_context(Upstream(continuing))
        toml = table("one", one) + table("two", two) + table("three", three)
        toml += ROUTE.replace('"two/m"]', '"two/m", "three/m"]')
        served = await stack.enter_async_context(serving(toml))
        assert await asked(SURFACES[0], served.port) == ORACLE
    assert (len(one.requests), len(two.requests), len(three.requests)) == (1, 1, 1)


@pytest.mark.parametrize("more", ["", "buffer = true\n"], ids=["logged", "buffered"])
async def test_several_answers_of_which_nothing_was_shown_are_begun_anew(more: str) -> None:
    async with Upstream(Reply(ORACLE, cut_after=5)) as cutting, Upstream(Reply("Otra respuesta.")) as other:
        toml = table("one", cutting) + table("two", other) + ROUTE.replace("[retry]", f"{more}[retry]")
        async with serving(toml) as served:
            body = {"model": "route", "messages": [{"role": "user", "content": "Tell."}], "n": 2, "stream": bool(more)}
            key = {} if more else {"Idempotency-Key": "two"}
            response = await within(ask(served.port, "POST", "/v1/chat/completions", body, key))
    assert response.status == 200 and response.complete and not other.requests[1:]
    assert b"Otra" in response.body and b"palabra" not in response.body
