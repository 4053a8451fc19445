"""Streams that llama.cpp's server keeps, over a fake one: what is cut is read on to the byte, what nobody wants is stopped."""

import asyncio

import msgspec
import pytest

from cauce.domain.delta import Delta, Finish, Reasoning, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Prompt, Request, Scope
from cauce.domain.stream import Upstream as Position
from cauce.domain.usage import Usage
from cauce.ports.attachable import give_up
from cauce.ports.provider import Call, Candidate, Timeouts
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_compatible.kept_streams import TRIES
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.system.ids import RandomIds
from cauce.testing.upstream import Reply, Upstream
from cauce.transport import HTTPTransport
from cauce.wire.openai_chat.decode import ChatDecoder
from tests.http import within

pytestmark = pytest.mark.anyio

TEXT = " ".join([f"palabra{place}ñ" for place in range(12)])
WHOLE = Reply(TEXT, reasoning="Cuento palabras.", tool_calls=(("find", '{"q": "río"}'), ("find", "{}")))


class Reading:
    """A provider in front of `upstream`, which keeps streams, and calls to it."""

    def __init__(self, upstream: Upstream, address: str = "", *, keeps: bool = True) -> None:
        upstream.replay.on = keeps
        self.provider = OpenAICompatible(
            "p", address or upstream.base_url, "k", HTTPTransport("p"), DIALECTS["llamacpp"], ids=RandomIds()
        )

    async def __aenter__(self) -> "Reading":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.aclose()

    def call(self, position: Position | None = None, *, streamed: bool = True, prompt: Prompt | None = None) -> Call:
        request = Request("m", (Message("user", (TextPart("Tell."),)),), prompt=prompt)
        return Call(request, Scope(), (Candidate(self.provider, "m"),), upstream=position, streamed=streamed)

    async def read(self, call: Call) -> list[Delta]:
        """All deltas. Raises what it ends with."""
        deltas: list[Delta] = []
        opened = await self.provider.open(call)
        while batch := await opened.read():
            deltas.extend(batch)
        return deltas


def said(deltas: list[Delta]) -> tuple[str, str, list[str]]:
    """The reasoning, the text and the complete calls of tools."""
    thought = "".join([delta.text for delta in deltas if isinstance(delta, Reasoning)])
    text = "".join([delta.text for delta in deltas if isinstance(delta, Text)])
    return thought, text, [delta.arguments for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]


ALL = ("Cuento palabras.", TEXT, ['{"q": "río"}', "{}"])


async def bytes_of(reading: Reading, upstream: Upstream) -> bytes:
    """What the answer looks like on the wire."""
    await within(reading.read(reading.call()))
    [stream] = upstream.replay.streams.values()
    return bytes(stream.data)


@pytest.mark.parametrize("resets", [False, True])
async def test_answer_whose_connection_breaks_at_any_byte_is_read_on_to_the_byte(*, resets: bool) -> None:
    async with Upstream(WHOLE) as upstream, Reading(upstream) as reading:
        raw = await bytes_of(reading, upstream)
        places = range(0, len(raw) - len(b"data: [DONE]\n\n"), 7)
        assert any([raw[place - 1 : place] == b"\xc3" for place in places]), "inside of a character too"
        for place in places:
            upstream.script(WHOLE)
            upstream.replay.cuts, upstream.replay.resets = [place], resets
            upstream.replay.attached.clear()
            deltas = await within(reading.read(reading.call()))
            assert said(deltas) == ALL and isinstance(deltas[-1], Finish), place
            assert len(upstream.requests) == 1, "generated once"
            [(name, start)] = upstream.replay.attached
            assert (name, start <= place) == (upstream.headers[0]["x-conversation-id"], True)
            assert resets or start == place, "not a byte is asked for twice"
        assert not upstream.replay.stopped


async def test_connection_that_breaks_again_and_again_is_made_again_while_there_is_news() -> None:
    async with Upstream(WHOLE) as upstream, Reading(upstream) as reading:
        raw = await bytes_of(reading, upstream)
        upstream.replay.cuts = [100] * (len(raw) // 100)
        assert said(await within(reading.read(reading.call()))) == ALL
        assert len(upstream.replay.attached) == len(raw) // 100 and len(upstream.requests) == 2


async def test_answer_without_news_is_given_up_and_stopped() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        upstream.replay.cuts = [300] + [0] * 100
        with pytest.raises(ProviderFailure, match="broke"):
            await within(reading.read(reading.call()))
        await reading.provider.aclose()
        assert len(upstream.replay.attached) == TRIES and len(upstream.replay.stopped) == 1


async def test_answer_that_is_gone_is_the_failure_of_the_break() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        upstream.replay.cuts, upstream.replay.lost = [300], True
        with pytest.raises(ProviderFailure) as caught:
            await within(reading.read(reading.call()))
        assert caught.value.upstream_status is None and len(upstream.replay.attached) == 1


async def test_server_that_keeps_nothing_is_asked_as_ever_and_closing_stops_it() -> None:
    async with Upstream(Reply(TEXT, cut_after=3)) as upstream, Reading(upstream, keeps=False) as reading:
        for _ in range(2):
            with pytest.raises(ProviderFailure):
                await within(reading.read(reading.call()))
        assert all(["x-conversation-id" not in headers for headers in upstream.headers])
        assert len(upstream.requests) == 2 and not upstream.replay.attached


async def test_server_whose_streams_cannot_be_stopped_is_asked_for_none() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        upstream.replay.deaf = True
        await within(reading.read(reading.call()))
        assert "x-conversation-id" not in upstream.headers[0] and not upstream.replay.streams


async def test_server_is_asked_once_whether_it_keeps_streams() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        await within(asyncio.gather(*[reading.read(reading.call()) for _ in range(5)]))
        await within(reading.read(reading.call()))
        assert len(upstream.replay.unknown) == 1
        names = [headers["x-conversation-id"] for headers in upstream.headers]
        assert len(set(names)) == 6 and len(upstream.replay.streams) == 6, "no answer takes the place of another"


@pytest.mark.parametrize("how", ["plain", "prompt"])
async def test_what_is_no_streamed_conversation_is_not_kept(how: str) -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        prompt = Prompt(text="Tell.") if how == "prompt" else None
        await within(reading.read(reading.call(streamed=how == "prompt", prompt=prompt)))
        assert "x-conversation-id" not in upstream.headers[0]


async def test_refused_request_leaves_nothing_to_stop() -> None:
    async with Upstream(Reply(status=400)) as upstream, Reading(upstream) as reading:
        with pytest.raises(ProviderFailure):
            await within(reading.read(reading.call()))
        await reading.provider.aclose()
        assert not upstream.replay.stopped and len(upstream.replay.unknown) == 1, (
            "that is the question whether it keeps them"
        )


async def test_question_whose_connection_breaks_before_the_answer_is_stopped_since_it_may_have_been_heard() -> None:
    async with Upstream(Reply(reset=True)) as upstream, Reading(upstream) as reading:
        with pytest.raises(ProviderFailure):
            await within(reading.read(reading.call()))
        await reading.provider.aclose()
        assert upstream.replay.unknown[1:] == [upstream.headers[0]["x-conversation-id"]]


async def test_error_inside_the_stream_is_not_read_past() -> None:
    error = {"message": "It broke.", "code": "server_error"}
    async with Upstream(Reply(TEXT, error=error, error_after=3)) as upstream, Reading(upstream) as reading:
        with pytest.raises(ProviderFailure, match="It broke"):
            await within(reading.read(reading.call()))
        assert not upstream.replay.attached


async def test_another_process_gets_exactly_what_the_one_before_it_has_not_read() -> None:
    async with Upstream(WHOLE) as upstream, Reading(upstream) as reading:
        raw = await bytes_of(reading, upstream)
        name = upstream.headers[0]["x-conversation-id"]
        end = (await within(reading.read(reading.call(Position("p", name, "1")))))[-1]
        for place in range(1, len(raw), 5):
            earlier = ChatDecoder("p").feed(raw[:place])
            later = await within(reading.read(reading.call(Position("p", name, str(place)))))
            assert said(earlier + later) == ALL, place
            assert later[-1] == end, place
        assert len(upstream.requests) == 1 and not upstream.replay.stopped


async def test_position_tells_how_much_was_read_with_each_batch() -> None:
    gate = asyncio.Semaphore(1)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        opened = await within(reading.provider.open(reading.call()))
        text = ""
        [stream] = upstream.replay.streams.values()
        while batch := await within(opened.read()):
            if isinstance(batch[-1], Finish):
                break
            position = opened.position()
            assert position is not None and position.response_id == stream.name
            text += said(list(batch))[1]
            known = said(ChatDecoder("p").feed(bytes(stream.data[: int(position.cursor)])))[1]
            assert text == known
            for _ in range(1 if text != TEXT else 3):
                gate.release()
        assert text == TEXT


async def test_stream_whose_beginning_has_left_the_ring_is_not_attached_to_by_another_process_but_stopped() -> None:
    async with Upstream(WHOLE) as upstream, Reading(upstream) as reading:
        upstream.replay.ring = 1000
        await within(reading.read(reading.call()))
        name = upstream.headers[0]["x-conversation-id"]
        with pytest.raises(ProviderFailure, match="offset lost"):
            await within(reading.read(reading.call(Position("p", name, "1500"))))
        await reading.provider.aclose()
        assert upstream.replay.stopped == [name] and len(upstream.requests) == 1


async def test_answer_that_is_closed_is_stopped_at_the_server() -> None:
    gate = asyncio.Semaphore(2)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        deltas = await within(reading.provider.open(reading.call()))
        await deltas.read()
        await deltas.aclose()
        await within(upstream.closed.wait())
        await reading.provider.aclose()
        assert upstream.replay.stopped == [upstream.headers[0]["x-conversation-id"]]


async def test_question_that_is_given_up_before_its_first_byte_is_stopped_at_the_server() -> None:
    async with Upstream(Reply(TEXT, gate=asyncio.Semaphore(0))) as upstream, Reading(upstream) as reading:
        opening = asyncio.create_task(reading.provider.open(reading.call()))
        await within(upstream.asked.wait())
        opening.cancel()
        await within(upstream.closed.wait())
        await reading.provider.aclose()
        [stream] = [*upstream.replay.stopped, *upstream.replay.unknown[1:]]
        assert stream == upstream.headers[0]["x-conversation-id"]


async def test_answer_that_is_handed_over_goes_on_at_the_server() -> None:
    gate = asyncio.Semaphore(2)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        call = reading.call()
        deltas = await within(reading.provider.open(call))
        await deltas.read()
        call.course.handed_over = True
        await deltas.aclose()
        await reading.provider.aclose()
        assert not upstream.replay.stopped
        assert deltas.used == Usage(), "whoever goes on with it is told the whole"


async def test_answer_that_nobody_will_read_on_is_stopped_wherever_it_may_be() -> None:
    async with Upstream(Reply(TEXT)) as one, Upstream(Reply(TEXT)) as two, Reading(one) as here, Reading(two) as there:
        await within(there.read(there.call()))
        [name] = two.replay.streams
        candidates = (*here.call().candidates, *there.call().candidates)
        give_up(candidates, Position("another", name, "3"))
        give_up(candidates, Position("p", name, "3"))
        await within(here.provider.aclose())
        await within(there.provider.aclose())
        assert two.replay.stopped == [name] and one.replay.unknown == [name]


async def test_stream_is_not_mistaken_for_a_new_answer_where_none_are_attached_to_any_more() -> None:
    async with Upstream(Reply(TEXT)) as upstream:
        provider = OpenAICompatible("p", upstream.base_url, "k", HTTPTransport("p"), DIALECTS["llamacpp"])
        request = Request("m", (Message("user", (TextPart("Tell."),)),))
        call = Call(request, Scope(), (Candidate(provider, "m"),), upstream=Position("p", "cauce_1", "3"))
        with pytest.raises(ProviderFailure, match="not attached to"):
            await provider.open(call)
        await provider.aclose()
        assert not upstream.requests


async def test_server_that_only_pings_after_its_first_words_is_told_to_stop() -> None:
    piece = b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%s"}}]}'
    pinging = Reply(chunks=(piece % b"Hello", *[piece % b""] * 600), pace=0.02)
    async with Upstream(pinging) as upstream, Reading(upstream) as reading:
        call = reading.call()
        asked = msgspec.structs.replace(call.candidate, timeouts=Timeouts(stalled=0.1))
        with pytest.raises(ProviderFailure, match="nothing of its answer") as failed:
            await within(reading.read(msgspec.structs.replace(call, candidates=(asked,))))
        await reading.provider.aclose()
        assert failed.value.code == "timeout" and upstream.replay.attached == []
        assert upstream.replay.stopped == [upstream.headers[0]["x-conversation-id"]]
