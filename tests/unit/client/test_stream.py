"""What a stream makes of what a server may say and a network may do; time stands still."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from cauce.client import CallFailed, Progress, Reconnect, Stream, Unreachable
from cauce.client.connect import Connection
from cauce.client.stream import cancel
from cauce.domain.delta import Attempt, Delta, Finish, Restart, Status, Text, ToolCall
from cauce.domain.errors import DeadlineExceeded
from cauce.domain.message import ToolCallPart
from cauce.testing.clock import FakeClock
from tests.http import within
from tests.unit.client.scripted import (
    START,
    Answered,
    ScriptedTransport,
    complete,
    frame,
    lost,
    refusal,
    session,
    streamed,
)

pytestmark = pytest.mark.anyio

RESUME = "GET /s/resume?after=2&epoch=1"


async def all_of(stream: Stream) -> list[Delta]:
    return [delta async for delta in stream]


def stream_of(*reactions: Any, **asked: Any) -> tuple[Stream, ScriptedTransport]:
    transport = ScriptedTransport(*reactions)
    return streamed(session(transport, FakeClock()), **asked), transport


async def test_start_is_repeated_until_a_frame_has_come_then_the_stream_is_resumed() -> None:
    stream, transport = stream_of(
        lost(),
        Answered(b"retry: 1000\nid: 0\n\n"),
        Answered(START, frame(2, "content", "a "), b'data: {"id"', error=lost()),
        refusal(503, "overloaded"),
        Answered(b"<html>", status=502),
        Answered(frame(2, "content", "a "), frame(3, "content", "b"), complete(4, "a b")),
    )
    deltas = await all_of(stream)
    assert [type(delta) for delta in deltas] == [Status, Text, Text, Finish]
    assert stream.text == "a b" and stream.cursor == 4 and stream.request_id == "req_1"
    assert transport.asked == ["POST /s", "POST /s", "POST /s", RESUME, RESUME, RESUME]
    assert transport.sent[0].headers["X-Cauce-Restart"] == "accept"


async def test_restart_takes_back_text_and_tool_calls_from_its_record_on() -> None:
    def call(seq: int, mark: str, call_id: str = "c1") -> bytes:
        return frame(seq, "tool_call", {"call_id": call_id, "name": "f", "arguments": "{}"}, mark=mark)

    stream, _ = stream_of(
        Answered(
            START + frame(2, "content", "keep ") + frame(3, "content", "lose ") + call(4, "piece") + call(5, "ready"),
            frame(6, "status", "it broke", status="restart", from_seq=3) + frame(7, "content", "win"),
            call(8, "ready", "c2") + call(9, "ready", "c3") + call(10, "abandoned", "c3") + complete(11, "keep win"),
        )
    )
    seen = [stream.text async for delta in stream if isinstance(delta, Text | Restart)]
    assert seen == ["keep ", "keep lose ", "keep ", "keep win"]
    answer = await stream.answer()
    assert answer.tool_calls == (ToolCallPart("c2", "f", "{}"),) and answer.text == "keep win"


async def test_progress_follows_what_goes_on() -> None:
    told: list[Progress] = []
    asking = {"provider": "a", "model": "a/b", "level": "primary"}
    stream, _ = stream_of(
        Answered(
            frame(None, "start", "", resumed=True) + START + frame(2, "status", "Place 3", status="waiting", place=3),
            frame(3, "status", "Asking a/b", status="attempt", **asking),
            frame(
                4, "error", "it broke", retrying=True, retry_count=1, error_code="timeout", strategy="open", **asking
            ),
            b": hb 1\n" + frame(5, "thinking", "hm") + frame(6, "content", '{"a', partial={"a": ""}),
            frame(7, "tool_call", {"call_id": "c", "name": "f", "arguments": ""}, mark="piece"),
            frame(8, "brand_new", "what", more=1) + complete(9, '{"a', parsed={"a": 1}),
        ),
        on_progress=told.append,
    )
    deltas = await all_of(stream)
    assert [type(delta) for delta in deltas[1:5]] == [Status, Attempt, Attempt, type(deltas[4])]
    assert isinstance(deltas[6], ToolCall)
    assert told == [
        Progress("connecting"),
        Progress("open"),
        Progress("waiting", place=3),
        Progress("retrying", attempt=1, reason="it broke"),
        Progress("thinking"),
        Progress("answering"),
        Progress("calling"),
        Progress("done", outcome="completed"),
    ]
    assert (stream.reasoning, stream.partial) == ("hm", {"a": 1})
    assert (await stream.answer()).parsed == {"a": 1}


async def test_waits_double_to_their_bound_and_then_it_is_told() -> None:
    clock, told = FakeClock(), list[Progress]()
    transport = ScriptedTransport(Answered(START))
    reconnect = Reconnect(attempts=5, base=1, most=4)
    stream = streamed(session(transport, clock, reconnect), told.append)
    reading = asyncio.ensure_future(all_of(stream))
    for wait in (1, 2, 4, 4, 4):
        await within(clock.until_waiting())
        assert told[-1].phase == "reconnecting" and told[-1].wait == wait
        clock.advance(wait)
        await asyncio.sleep(0)
    with pytest.raises(Unreachable, match="refused"):
        await reading
    assert len(transport.asked) == 6


async def test_only_tries_that_bring_nothing_count_and_fewer_where_nobody_was_ever_there() -> None:
    pieces = [Answered(START), *[Answered(frame(seq, "content", "x")) for seq in range(2, 31)]]
    transport = ScriptedTransport(*pieces, Answered(complete(31, "x" * 29)))
    stream = streamed(session(transport, FakeClock(), Reconnect(attempts=1, base=0, most=0)))
    assert (await stream.answer()).text == "x" * 29 and len(transport.asked) == 31
    hopeless, tried = stream_of()
    with pytest.raises(Unreachable):
        await hopeless.answer()
    assert len(tried.asked) == 1 + Reconnect().unreached


async def test_retry_after_is_kept_and_one_that_is_too_long_is_told_at_once() -> None:
    clock = FakeClock()
    transport = ScriptedTransport(
        refusal(429, "rate_limited", retry_after=7),
        Answered(b"<html>", status=503, headers={"retry-after": "9"}),
        Answered(START, complete(2, "")),
    )
    stream = streamed(session(transport, clock))
    reading = asyncio.ensure_future(stream.answer())
    for wait in (7, 9):
        await within(clock.until_waiting())
        assert stream.progress.wait == wait
        clock.advance(wait)
        await asyncio.sleep(0)
    await reading
    patient, tried = stream_of(refusal(429, "rate_limited", retry_after=61), ours=True)
    with pytest.raises(CallFailed) as caught:
        await patient.answer()
    await patient.aclose()
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 61)
    assert tried.asked == ["POST /s"], "there is nothing to cancel"


async def test_frame_that_does_not_follow_is_asked_for_again() -> None:
    stream, transport = stream_of(
        Answered(START, frame(3, "content", "b")),
        Answered(frame(2, "content", "a"), frame(3, "content", "b"), complete(4, "ab")),
    )
    assert [delta.text for delta in await all_of(stream) if isinstance(delta, Text)] == ["a", "b"]
    assert transport.asked == ["POST /s", "GET /s/resume?after=1&epoch=1"]


async def test_what_is_no_frame_is_a_broken_connection() -> None:
    stream, _ = stream_of(Answered(b"data: <html>\n\n"), Answered(START, frame(2, "content", "x") + complete(3, "x")))
    assert (await stream.answer()).text == "x"


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not_found"), (410, "gone"), (401, "unauthorized"), (409, "conflict"), (402, "quota_exceeded")],
)
async def test_error_that_does_not_pass_is_told_at_once(status: int, code: str) -> None:
    stream, transport = stream_of(refusal(status, code), body=None, after=3)
    with pytest.raises(CallFailed) as caught:
        await stream.answer()
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (code, status, "req_1")
    with pytest.raises(CallFailed):
        await stream.answer()
    assert len(transport.asked) == 1


async def test_stream_that_the_server_lost_begins_again_and_its_text_with_it() -> None:
    def drop() -> Answered:
        return refusal(409, "conflict", tail=1, epoch=2)

    stream, transport = stream_of(
        Answered(START, frame(2, "content", "old")),
        drop(),
        Answered(START, frame(2, "content", "new"), complete(3, "new")),
    )
    deltas = await all_of(stream)
    assert [type(delta) for delta in deltas] == [Status, Text, Restart, Status, Text, Finish]
    assert stream.text == "new" and transport.asked[1:] == [RESUME, "GET /s/resume?after=0"]
    never, _ = stream_of(Answered(START), drop(), drop(), drop())
    with pytest.raises(CallFailed):
        await never.answer()


async def test_stream_that_is_over_is_looked_up_for_its_answer_only() -> None:
    stream, transport = stream_of(Answered(status=204), Answered(complete(7, "all of it")), body=None, after=7, epoch=1)
    assert await all_of(stream) == []
    assert (await stream.answer()).text == "all of it"
    assert transport.asked == ["GET /s/resume?after=7&epoch=1", "GET /s/resume?after=6&epoch=1"]
    odd, _ = stream_of(Answered(status=204), Answered(status=204), body=None, after=7)
    with pytest.raises(Unreachable):
        await odd.answer()


async def test_server_that_does_not_answer_is_given_up_after_the_idle_time() -> None:
    async def silence() -> Answered:
        await asyncio.Event().wait()
        raise AssertionError

    clock = FakeClock()
    transport = ScriptedTransport(silence, Answered(START, complete(2, "")))
    stream = streamed(session(transport, clock, Reconnect(base=0, most=0, idle=30)))
    reading = asyncio.ensure_future(stream.answer())
    await within(clock.until_waiting())
    clock.advance(30)
    await reading
    assert transport.sent[0].idle == 30 and len(transport.asked) == 2


async def test_time_of_the_whole_stream_is_over_while_it_reconnects() -> None:
    clock = FakeClock()
    transport = ScriptedTransport(Answered(START), Answered(), Answered())
    stream = streamed(session(transport, clock, Reconnect(base=6, most=6)), total=10.0)
    reading = asyncio.ensure_future(stream.answer())
    await within(clock.until_waiting())
    clock.advance(6)
    with pytest.raises(Unreachable, match="cut off"):
        await reading
    assert [one.total for one in transport.sent] == [10.0, 4.0]
    late = streamed(session(ScriptedTransport(), clock), total=0.0)
    with pytest.raises(DeadlineExceeded):
        await late.answer()


async def test_cancel_is_repeated_until_it_is_heard_and_nothing_is_begun_after_it() -> None:
    stream, transport = stream_of(lost(), refusal(503, "overloaded"), refusal(404, "not_found"))
    await stream.cancel()
    deltas = await all_of(stream)
    assert deltas == [Finish("cancelled", outcome="cancelled")]
    assert (await stream.answer()).finish_reason == "cancelled"
    assert transport.asked == ["DELETE /s"] * 3
    refused = session(ScriptedTransport(refusal(401, "unauthorized")), FakeClock())
    with pytest.raises(CallFailed):
        await cancel(refused, "s")
    with pytest.raises(Unreachable):
        await cancel(session(ScriptedTransport(), FakeClock()), "s")


async def test_cancel_that_nobody_heard_changes_nothing_and_may_be_repeated() -> None:
    reconnect = Reconnect(base=0, most=0, unreached=0)
    transport = ScriptedTransport(lost(), Answered(START), Answered(b"{}"))
    stream = streamed(session(transport, FakeClock(), reconnect), ours=True)
    with pytest.raises(Unreachable):
        await stream.cancel()
    assert isinstance(await anext(stream), Status), "it is begun"
    await stream.aclose()
    assert transport.asked == ["DELETE /s", "POST /s", "DELETE /s"], "leaving stops it"


async def test_reader_that_waits_no_longer_for_a_delta_reads_on_where_it_was() -> None:
    more = asyncio.Event()

    class Slow(Answered):
        async def chunks(self) -> AsyncGenerator[bytes, None]:
            async for piece in super().chunks():
                yield piece
            await more.wait()

    transport = ScriptedTransport(Slow(START, frame(2, "content", "a")), Answered(complete(3, "a")))
    stream = streamed(session(transport, FakeClock()))
    assert [type(await anext(stream)) for _ in range(2)] == [Status, Text]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [type(delta) for delta in await all_of(stream)] == [Finish] and stream.text == "a"
    assert transport.asked == ["POST /s", RESUME]


async def test_start_that_was_lost_while_its_cancel_was_heard_is_not_sent_again() -> None:
    started, broken = asyncio.Event(), asyncio.Event()

    async def start() -> Answered:
        started.set()
        await broken.wait()
        raise lost()

    transport = ScriptedTransport(start, refusal(404, "not_found"))
    stream = streamed(session(transport, FakeClock(), Reconnect(attempts=0)))
    reading = asyncio.ensure_future(all_of(stream))
    await started.wait()
    await stream.cancel()
    broken.set()
    assert await reading == [Finish("cancelled", outcome="cancelled")]
    assert transport.asked == ["POST /s", "DELETE /s"]


async def test_leaving_closes_the_connection_and_cancels_only_what_is_ours() -> None:
    for ours in (True, False):
        incoming = Answered(START, frame(2, "content", "a"), frame(3, "content", "b"))
        stream, transport = stream_of(incoming, Answered(b"{}"), ours=ours)
        async with stream:
            await anext(stream)
        assert incoming.closed
        assert transport.asked == ["POST /s", "DELETE /s"][: 2 if ours else 1]
        with pytest.raises(Unreachable, match="left before its end"):
            await stream.answer()
    untouched, transport = stream_of(ours=True)
    await untouched.aclose()
    assert transport.asked == []


async def test_what_becomes_of_an_abandoned_stream_is_said_with_its_start_only() -> None:
    said = {"X-Cauce-On-Disconnect": "grace:120"}
    stream, transport = stream_of(lost(), Answered(START), Answered(complete(2, "")), headers=said)
    await stream.answer()
    assert [one.headers.get("X-Cauce-On-Disconnect") for one in transport.sent] == ["grace:120", "grace:120", None]
    assert all([one.headers["X-Cauce-Restart"] == "accept" for one in transport.sent])


@pytest.mark.parametrize(
    ("timeout", "own", "whole", "stream"),
    [
        ({}, None, 600.0, None),
        ({"timeout": 30.0}, None, 30.0, 30.0),
        ({"timeout": None}, None, None, None),
        ({}, 2.0, 7.0, 7.0),
    ],
    ids=["nobody says", "the client says", "no bound", "the call says"],
)
def test_stream_is_cut_by_no_default(
    timeout: dict[str, Any], own: float | None, whole: float | None, stream: float | None
) -> None:
    connection = Connection("http://cauce", None, **timeout)
    assert connection.total(own, streamed=False) == whole
    assert connection.total(own, streamed=True) == stream
