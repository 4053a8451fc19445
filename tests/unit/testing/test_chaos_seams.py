"""What a run says of calls of tools and of answers that begin anew: each rule is broken by hand; and what it reads on each wire."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from cauce.domain.delta import Attempt as Asked
from cauce.domain.delta import Delta, Finish, Restart, Status, Text, ToolCall
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.stream import Head, Record, StreamKey
from cauce.server.wires import WIRES
from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.bounds import Bounds
from cauce.testing.chaos.calls import TOOL, arguments, call_id, maker
from cauce.testing.chaos.invariants import judge
from cauce.testing.chaos.oracle import INPUT_TOKENS
from cauce.testing.chaos.reader import Frame, Reader, Wire
from cauce.testing.chaos.shown import KEEPING, Shown, shown
from cauce.testing.chaos.story import Story
from cauce.testing.chaos.text import nonce, written
from cauce.wire.numbering import START

FIRST, SECOND = nonce(0), nonce(1)
TEXT, OTHER = written(60, FIRST), written(60, SECOND)
OTHERS: tuple[Wire, ...] = ("openai-chat", "openai-responses", "anthropic", "ui")

Told = tuple[str, Any, dict[str, Any]]


def asked(*, again: bool = False) -> Told:
    return ("error", "it broke", {"retrying": True}) if again else ("status", "", {"status": "attempt"})


def piece(text: str, call: str = "call_0", mark: str = "piece") -> Told:
    return "tool_call", {"call_id": call, "name": TOOL, "arguments": text}, {"mark": mark}


def called(number: int, name: str, call: str = "") -> list[Told]:
    call, whole = call or call_id(number), arguments(number, name)
    return [piece("", call), piece(whole[:50], call), piece(whole[50:], call)]


def ready(number: int, name: str, call: str = "") -> Told:
    return piece(arguments(number, name), call or call_id(number), "ready")


def completed(text: str, reason: str = "tool_calls", **usage: int) -> Told:
    return "complete", text, {"finish_reason": reason, "usage": {"input_tokens": INPUT_TOKENS, **usage}}


def told(*log: Told, calls: int = 0, restarts: bool = False) -> Story:
    frames = [
        Frame(
            str(seq),
            b"data: " + msgspec.json.encode({"seq": seq, "type": kind, "data": data, "epoch": 1, **beside}),
            seq,
        )
        for seq, (kind, data, beside) in enumerate([("start", "", {}), *log], 1)
    ]
    story = Story("s", 60, 0.0, calls, restarts, state="completed", tail=len(frames))
    for one in (reader := Reader("s", "reader", lambda: 0), replay := Reader("s", "replay", lambda: 0)):
        one.frames, one.ended_at = frames, frames[-1].at
    story.readers, story.replays = [reader], [replay]
    story.attempts = [
        Attempt("s", 0, "n0", "open", 1.0, served=len(TEXT), tokens=4, called=calls, told=True, whole=True, closed=9.0)
    ]
    return story


def with_second(story: Story, **given: Any) -> Story:
    """The first attempt broke, and another one came."""
    story.attempts[0].whole = story.attempts[0].told = False
    second: dict[str, Any] = {
        "served": len(TEXT),
        "called": story.calls,
        "told": True,
        "whole": True,
        "closed": 9.0,
        **given,
    }
    story.attempts.append(Attempt("s", 1, "n0", second.pop("kind", "open"), 2.0, **second))
    return story


def broken(story: Story) -> set[str]:
    return {violation.invariant for violation in judge(story, Bounds(slack=60.0))}


def said(story: Story) -> str:
    return "\n".join([violation.message for violation in judge(story, Bounds(slack=60.0))])


def test_arguments_tell_who_wrote_them_and_joined_ones_are_of_nobody() -> None:
    one, other = arguments(1, FIRST), arguments(1, SECOND)
    assert maker(one) == (1, FIRST)
    inside = range(one.index(FIRST) + 1, one.rindex(FIRST) + 1)
    assert {maker(one[:at] + other[at:]) for at in inside} == {None}


def test_calls_that_came_whole_break_nothing() -> None:
    log = [asked(), ("content", TEXT, {}), *called(0, FIRST), *called(1, FIRST), ready(0, FIRST), ready(1, FIRST)]
    assert broken(told(*log, completed(TEXT, output_tokens=4), calls=2)) == set()


def gone_on(*between: Told, call: str = "call_0_2") -> Story:
    """A call breaks, `between` follows, and it comes again as `call`."""
    log = [
        asked(),
        ("content", TEXT, {}),
        *called(0, FIRST)[:2],
        *between,
        *called(0, SECOND, call),
        ready(0, SECOND, call),
    ]
    return with_second(told(*log, completed(TEXT), calls=1), kind="prefill", prefix=TEXT.rstrip())


def test_call_that_broke_and_comes_again_under_another_id_breaks_nothing() -> None:
    assert broken(gone_on(piece("", mark="abandoned"), asked(again=True))) == set()


def test_call_that_broke_and_was_not_given_up_is_found() -> None:
    assert broken(gone_on(asked(again=True))) == {"I8"}


def test_calls_of_an_answer_that_is_read_on_at_its_provider_go_on_where_they_stopped() -> None:
    kind, data, beside = asked(again=True)
    attached: Told = (kind, data, {**beside, "strategy": "attach"})
    first, second = called(0, FIRST), called(1, FIRST)
    log = [asked(), ("content", TEXT, {}), *first, *second[:2], attached, second[2], ready(0, FIRST), ready(1, FIRST)]
    assert "I8" not in broken(told(*log, completed(TEXT, output_tokens=4), calls=2))
    lost = [*first[:2], attached, asked(again=True), *called(0, SECOND, "x"), ready(0, SECOND, "x")]
    story = with_second(told(asked(), ("content", TEXT, {}), *lost, completed(TEXT), calls=1), kind="prefill")
    assert "I8" in broken(story) and "was not given up" in said(story)


def test_call_that_goes_on_after_it_was_given_up_is_found() -> None:
    story = gone_on(piece("", mark="abandoned"), asked(again=True), call="call_0")
    assert broken(story) == {"I8"} and "goes on" in said(story)


def test_call_whose_arguments_are_of_two_attempts_is_found() -> None:
    whole = arguments(0, FIRST)[:80] + arguments(0, SECOND)[80:]
    log = [asked(), ("content", TEXT, {}), piece(whole), piece(whole, mark="ready")]
    story = told(*log, completed(TEXT, output_tokens=4), calls=1)
    assert "I8" in broken(story) and "no attempt wrote" in said(story)


def test_call_that_is_not_what_its_pieces_are_is_found() -> None:
    log = [asked(), ("content", TEXT, {}), *called(0, FIRST)[:2], ready(0, FIRST)]
    assert broken(told(*log, completed(TEXT, output_tokens=4), calls=1)) == {"I8"}


def test_call_that_its_attempt_did_not_write_to_its_end_is_found() -> None:
    story = told(
        asked(), ("content", TEXT, {}), *called(0, FIRST), ready(0, FIRST), completed(TEXT, output_tokens=4), calls=1
    )
    story.attempts[0].called = 0
    assert broken(story) == {"I8"}


def test_attempt_after_a_call_that_is_whole_is_found() -> None:
    log = [asked(), ("content", TEXT, {}), *called(0, FIRST), ready(0, FIRST), asked(again=True)]
    story = with_second(told(*log, *called(0, SECOND, "x"), ready(0, SECOND, "x"), completed(TEXT), calls=1))
    assert broken(story) == {"I8"}
    assert "asked again" in said(story) and "made twice" in said(story)


def test_answer_that_ends_with_its_whole_calls_says_so() -> None:
    log = [asked(), ("content", TEXT, {}), *called(0, FIRST), ready(0, FIRST)]
    cut = ("status", "", {"status": "seam", "quality": "cut_after_call"})
    story = told(*log, cut, completed(TEXT, output_tokens=4), calls=1)
    story.attempts[0].whole = story.attempts[0].told = False
    assert broken(story) == set()
    story = told(*log, completed(TEXT, output_tokens=4), calls=1)
    story.attempts[0].whole = story.attempts[0].told = False
    assert broken(story) == {"I8"} and "no attempt came to its end" in said(story)
    assert broken(told(*log, completed(TEXT, "stop", output_tokens=4), calls=1)) == {"I8"}
    assert broken(told(*log, completed(TEXT, output_tokens=4), calls=2)) == {"I8"}


def begun_anew(*between: Told, whole: str = OTHER) -> Story:
    log = [asked(), ("content", TEXT[:30], {}), asked(again=True), *between, ("content", OTHER, {})]
    return with_second(told(*log, completed(whole, "stop"), restarts=True))


def back(first: int | None) -> Told:
    return "status", "it broke", {"status": "restart"} | ({} if first is None else {"from_seq": first})


def test_answer_that_begins_anew_breaks_nothing() -> None:
    assert broken(begun_anew(back(1))) == set()


def test_answer_that_does_not_say_from_where_it_begins_anew_is_found() -> None:
    assert broken(begun_anew(back(None))) == {"I14"}
    assert "I14" in broken(begun_anew(back(5)))
    assert "I14" in broken(begun_anew())


def test_end_that_holds_what_was_taken_back_is_found() -> None:
    assert broken(begun_anew(back(1), whole=TEXT[:30] + OTHER)) == {"I3", "I14"}


def test_text_taken_back_from_readers_who_cannot_take_that_is_found() -> None:
    story = begun_anew(back(1))
    story.restarts = False
    assert broken(story) == {"I14"}
    story.may_restart = True
    assert broken(story) == set()


def test_answer_that_may_begin_anew_may_be_gone_on_with() -> None:
    log = [asked(), ("content", TEXT[:30], {}), asked(again=True), ("content", OTHER[30:], {})]
    story = told(*log, completed(TEXT[:30] + OTHER[30:], "stop"))
    story.may_restart = True
    assert broken(with_second(story, kind="prefill", prefix=TEXT[:30])) == set()


def test_answer_that_is_gone_on_with_though_it_is_to_begin_anew_is_found() -> None:
    log = [asked(), ("content", TEXT[:30], {}), asked(again=True), ("content", OTHER[30:], {})]
    story = told(*log, completed(TEXT[:30] + OTHER[30:], "stop"), restarts=True)
    assert broken(with_second(story, kind="prefill", prefix=TEXT[:30].rstrip())) == {"I14"}


def test_call_that_was_whole_and_is_taken_back_is_found() -> None:
    log = [asked(), ("content", TEXT, {}), *called(0, FIRST), ready(0, FIRST), asked(again=True), back(1)]
    story = told(*log, ("content", OTHER, {}), completed(OTHER), calls=1, restarts=True)
    assert {"I8", "I14"} <= broken(with_second(story))


def on(wire: Wire, *deltas: Delta) -> Shown:
    """What a reader of `wire` is shown of a log."""
    request = Request("m", (Message("user", (TextPart("hello"),)),))
    head = Head(StreamKey("", "s"), request, b"", 1.0, "completed", 1, len(deltas) + 2)
    log: Sequence[Delta] = (
        Status("accepted", facts={"model": "m", "created": 1}),
        Asked(1, "p", "m", "primary"),
        *deltas,
    )
    frames = WIRES[wire].project(head, START).feed([Record(seq, 1, delta) for seq, delta in enumerate(log, 1)])
    found: list[Frame] = []
    for block in frames.split(b"\n\n")[:-1]:
        lines = [line for line in block.split(b"\n") if not line.startswith((b"id:", b"retry:"))]
        found.append(Frame("", b"\n".join(lines), 0.0))
    return shown(wire, found)


CALL = (ToolCall(0, "a", TOOL, '{"x":'), ToolCall(0, "a", TOOL, "1}"), ToolCall(0, "a", TOOL, '{"x":1}', "ready"))
BROKEN = (ToolCall(0, "b", TOOL, '{"x'), ToolCall(0, "b", TOOL, "", "abandoned"))
CALLED = [("a", TOOL, '{"x":1}')]


@pytest.mark.parametrize("wire", OTHERS)
def test_text_and_whole_calls_are_read_on_each_wire(wire: Wire) -> None:
    again = [msgspec.structs.replace(call, index=1) for call in CALL]
    found = on(wire, Text("Let "), Text("me"), *BROKEN, *again, Finish("tool_calls"))
    assert (found.text, found.reason, found.incomplete, found.wrong) == ("Let me", "tool_calls", False, [])
    assert [(call.call_id, call.name, call.arguments) for call in found.calls] == CALLED


@pytest.mark.parametrize("wire", OTHERS)
def test_what_is_taken_back_is_read_as_each_wire_has_it(wire: Wire) -> None:
    found = on(wire, Text("One"), Restart(1, "it broke"), Text("Two"), *CALL, Finish("tool_calls"))
    if wire in KEEPING:
        assert (found.text, found.calls, found.incomplete) == ("One", [], True)
    else:
        assert (found.text, found.incomplete, found.wrong) == ("Two", False, [])
        assert [call.call_id for call in found.calls] == ["a"]


def test_whole_response_that_holds_what_was_taken_back_is_found() -> None:
    done = {"type": "response.completed", "response": {"output": [{"type": "message", "content": [{"text": "One"}]}]}}
    assert shown("openai-responses", [Frame("", b"data: " + msgspec.json.encode(done), 0.0)]).wrong
