"""Answers that the provider makes in the background, over a fake one: what is cut is read on, what nobody wants is cancelled."""

import asyncio

import msgspec
import pytest

from cauce.domain.delta import Delta, Finish, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Upstream as Position
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Candidate, Timeouts
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.openai_responses.background import TRIES
from cauce.providers.openai_responses.provider import OpenAIResponses
from cauce.testing.upstream import Reply, Upstream
from cauce.transport import HTTPTransport
from tests.http import within

pytestmark = pytest.mark.anyio

TEXT = " ".join([f"palabra{place}ñ" for place in range(20)])


class Reading:
    """A provider in front of `upstream`, and calls to it."""

    def __init__(self, upstream: Upstream) -> None:
        self.provider = OpenAIResponses(
            "p", upstream.base_url, "k", HTTPTransport("p"), DIALECTS["openai"], background=True
        )

    async def __aenter__(self) -> "Reading":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.aclose()

    def call(self, position: Position | None = None, *, streamed: bool = True) -> Call:
        request = Request("m", (Message("user", (TextPart("Tell."),)),))
        return Call(request, Scope(), (Candidate(self.provider, "m"),), upstream=position, streamed=streamed)

    async def read(self, call: Call) -> tuple[list[Delta], list[Position | None]]:
        """All deltas, and the position behind each batch. Raises what it ends with."""
        deltas: list[Delta] = []
        positions: list[Position | None] = []
        opened = await self.provider.open(call)
        while batch := await opened.read():
            deltas.extend(batch)
            positions.append(opened.position())
        return deltas, positions


def text_of(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas if isinstance(delta, Text)])


@pytest.mark.parametrize("reset", [False, True])
async def test_answer_whose_connection_breaks_after_any_delta_is_read_on_exactly(*, reset: bool) -> None:
    async with Upstream() as upstream, Reading(upstream) as reading:
        for place in range(21):
            upstream.script(Reply(TEXT, cut_after=place, reset=reset))
            deltas, _ = await within(reading.read(reading.call()))
            assert text_of(deltas) == TEXT and isinstance(deltas[-1], Finish), place
            [asked] = upstream.requests
            assert asked["background"] is True and asked["store"] is True and asked["stream"] is True
        assert len(upstream.background.attached) == 21 and not upstream.background.cancelled
        assert all(["stream=true&starting_after=" in target for target in upstream.background.attached])


async def test_calls_of_tools_go_on_where_the_connection_broke() -> None:
    async with Upstream() as upstream, Reading(upstream) as reading:
        for place in range(7):
            upstream.script(Reply("Now.", tool_calls=(("find", '{"q": "río"}'), ("find", "{}")), cut_after=place))
            deltas, _ = await within(reading.read(reading.call()))
            calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
            assert [call.arguments for call in calls if call.mark == "ready"] == ['{"q": "río"}', "{}"], place


async def test_connection_that_breaks_again_and_again_is_made_again_while_there_is_news() -> None:
    async with Upstream(Reply(TEXT, cut_after=1)) as upstream, Reading(upstream) as reading:
        upstream.background.cuts = [1] * 15
        deltas, _ = await within(reading.read(reading.call()))
        assert text_of(deltas) == TEXT and len(upstream.background.attached) == 16


async def test_answer_without_news_is_given_up_and_cancelled() -> None:
    async with Upstream(Reply(TEXT, cut_after=3)) as upstream, Reading(upstream) as reading:
        upstream.background.cuts = [0] * 100
        with pytest.raises(ProviderFailure):
            await within(reading.read(reading.call()))
        await reading.provider.aclose()
        assert len(upstream.background.attached) == TRIES
        assert upstream.background.cancelled == ["resp_fake_1"]


async def test_answer_that_the_provider_ended_in_an_error_is_neither_read_on_nor_cancelled() -> None:
    error = {"message": "It broke.", "code": "server_error"}
    async with Upstream(Reply(TEXT, error=error, error_after=3)) as upstream, Reading(upstream) as reading:
        with pytest.raises(ProviderFailure, match="It broke"):
            await within(reading.read(reading.call()))
        await reading.provider.aclose()
        assert not upstream.background.attached and not upstream.background.cancelled


async def test_event_that_comes_again_is_shown_once() -> None:
    async with Upstream() as upstream, Reading(upstream) as reading:
        upstream.background.repeats = True
        for place in range(1, 21):
            upstream.script(Reply(TEXT, cut_after=place))
            deltas, _ = await within(reading.read(reading.call()))
            assert text_of(deltas) == TEXT, place


async def test_another_process_gets_exactly_what_the_one_before_it_has_not_read() -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        opening = asyncio.create_task(reading.provider.open(reading.call()))
        positions: list[Position] = []
        gate.release()
        opened = await within(opening)
        while batch := await within(opened.read()):
            if isinstance(batch[-1], Finish):
                break
            position = opened.position()
            assert position is not None
            positions.append(position)
            gate.release()
        assert len(positions) == len(TEXT.split(" "))
        for _ in range(1000):
            gate.release()
        for position in positions:
            after, _ = await within(reading.read(reading.call(position)))
            assert before(position) + text_of(after) == TEXT, position
            assert after[-1] == batch[-1]
        assert len(upstream.requests) == 1


def before(position: Position) -> str:
    """The text that had come at `position`: a word is an event, and four others open the answer."""
    words = TEXT.split(" ")[: max(0, int(position.cursor) - 3)]
    return TEXT if len(words) == len(TEXT.split(" ")) else "".join([f"{word} " for word in words])


async def test_answer_that_is_not_there_any_more_is_a_failure_of_the_provider() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        with pytest.raises(ProviderFailure):
            await within(reading.read(reading.call(Position("p", "resp_gone", "3"))))
        assert not upstream.requests


async def test_answer_that_is_closed_is_cancelled_at_the_provider() -> None:
    gate = asyncio.Semaphore(2)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        deltas = await within(reading.provider.open(reading.call()))
        await deltas.read()
        await deltas.aclose()
        await within(upstream.closed.wait())
        await reading.provider.aclose()
        assert upstream.background.cancelled == ["resp_fake_1"]


async def test_answer_that_is_handed_over_goes_on_at_the_provider() -> None:
    gate = asyncio.Semaphore(2)
    async with Upstream(Reply(TEXT, gate=gate)) as upstream, Reading(upstream) as reading:
        call = reading.call()
        deltas = await within(reading.provider.open(call))
        await deltas.read()
        call.course.handed_over = True
        await deltas.aclose()
        await reading.provider.aclose()
        assert not upstream.background.cancelled
        assert deltas.used == Usage(), "whoever goes on with it is told the whole"


async def test_plain_answer_is_not_made_in_the_background() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        await within(reading.read(reading.call(streamed=False)))
        assert "background" not in upstream.requests[0]


async def test_answer_that_nobody_will_read_on_is_cancelled_there() -> None:
    async with Upstream(Reply(TEXT)) as upstream, Reading(upstream) as reading:
        reading.provider.give_up(Position("another", "resp_2", "3"))
        reading.provider.give_up(Position("p", "resp_fake_1", "3"))
        await within(reading.provider.aclose())
        assert upstream.background.cancelled == ["resp_fake_1"]


async def test_answer_that_only_sends_signs_of_life_after_its_first_words_is_given_up_and_cancelled() -> None:
    created = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_fake_1","status":"in_progress"}}'
    words = (
        b'{"type":"response.output_text.delta","sequence_number":1,"output_index":0,"content_index":0,"delta":"Hello"}'
    )
    alive = b'{"type":"keepalive","sequence_number":2}'
    async with Upstream(Reply(chunks=(created, words, *[alive] * 600), pace=0.02)) as upstream:
        async with Reading(upstream) as reading:
            call = reading.call()
            asked = msgspec.structs.replace(call.candidate, timeouts=Timeouts(stalled=0.1))
            with pytest.raises(ProviderFailure, match="nothing of its answer") as failed:
                await within(reading.read(msgspec.structs.replace(call, candidates=(asked,))))
        assert failed.value.code == "timeout" and upstream.background.attached == []
        assert upstream.background.cancelled == ["resp_fake_1"]
