"""The native wire in both directions."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import (
    Attempt,
    Delta,
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import ImagePart, Message, TextPart, ToolCallPart
from cauce.domain.request import Request, ResponseFormat, Sampling
from cauce.domain.tool import Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.wire.native.decode import NativeDecoder
from cauce.wire.native.frames import NativeProjector, priming
from cauce.wire.native.request import parse_request, render_request

text = st.text(max_size=8)
name = st.text(min_size=1, max_size=5)
usages = st.builds(
    Usage, *[st.integers(0, 99)] * 5, cost=st.floats(0, 1), cost_source=st.sampled_from(["reported", "unpriced"])
)
bare_usages = st.builds(Usage, *[st.integers(0, 99)] * 5)
pieces = st.lists(
    st.one_of(
        text.map(Text),
        text.map(Reasoning),
        st.builds(
            Status, st.sampled_from(["waiting", "seam"]), text, st.fixed_dictionaries({"place": st.integers(0, 9)})
        ),
        st.builds(Restart, st.integers(1, 9), text),
        st.builds(ToolResult, name, name, text, st.none() | name),
    ),
    max_size=8,
)
endings = st.one_of(
    st.builds(Finish, st.sampled_from(["stop", "length", "tool_calls", "content_filter"]), usages),
    st.builds(
        Finish,
        st.just("cancelled"),
        bare_usages,
        outcome=st.just("cancelled"),
        cause=st.sampled_from(["", "abandoned", "unattended"]),
    ),
    st.builds(
        Finish,
        st.just("error"),
        bare_usages,
        outcome=st.just("failed"),
        error=st.builds(Failed, st.sampled_from(["timeout", "overloaded"]), name, st.none() | st.floats(0, 60)),
    ),
)
OPENING: list[Delta] = [
    Status("accepted", facts={"model": "auto", "created": 5}),
    Attempt(1, "up", "a/b", "primary"),
    Attempt(2, "offline", "", "offline", strategy="fallback", reason="it broke", reason_code="timeout"),
    ToolCall(0, "c1", "f", '{"x"'),
    ToolCall(1, "c2", "g", "{}"),
    ToolCall(0, "c1", "f", '{"x": 1}', "ready"),
]


def stream(middle: list[Delta], end: Finish) -> list[Delta]:
    """A whole stream. Where it fails after text, it is incomplete."""
    if end.outcome == "failed" and kept_text([*OPENING, *middle]):
        end = msgspec.structs.replace(end, outcome="incomplete")
    return [*OPENING, *middle, end]


def kept_text(deltas: list[Delta]) -> str:
    """The text of `deltas` that was not taken back."""
    kept: list[tuple[int, str]] = []
    for seq, delta in enumerate(deltas, 1):
        if isinstance(delta, Text):
            kept.append((seq, delta.text))
        elif isinstance(delta, Restart):
            kept = [piece for piece in kept if piece[0] < delta.from_seq]
    return "".join([text for _, text in kept])


@given(pieces)
def test_whole_text_has_nothing_that_was_taken_back(middle: list[Delta]) -> None:
    deltas = [*OPENING, *middle]
    end = Finish("stop")
    *_, last = NativeProjector("s").feed([*deltas, end]).decode().strip().split("\n\n")
    assert msgspec.json.decode(last.partition("data: ")[2])["data"] == kept_text(deltas)


def pieces_of(raw: bytes, draw: st.DataObject) -> list[bytes]:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    return [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


@given(pieces, endings, st.data())
def test_stream_reads_back_as_it_was_written_whatever_its_split(
    middle: list[Delta], end: Finish, draw: st.DataObject
) -> None:
    deltas = stream(middle, end)
    raw = priming(0) + NativeProjector("s").feed(deltas)
    decoder = NativeDecoder()
    assert [delta for piece in pieces_of(raw, draw) for delta in decoder.feed(piece)] == deltas
    assert decoder.cursor == len(deltas)


@given(pieces, endings, st.integers(0, 16), st.integers(1, 16))
def test_resumed_reader_gets_the_same_bytes_as_one_that_never_left(
    middle: list[Delta], end: Finish, after: int, batch: int
) -> None:
    deltas = stream(middle, end)
    after = min(after, len(deltas))
    whole = NativeProjector("s").feed(deltas)
    projector = NativeProjector("s", after=after)
    rest = b"".join([projector.feed(deltas[place : place + batch]) for place in range(0, len(deltas), batch)])
    assert whole.endswith(rest)
    assert rest.count(b"\ndata: ") == len(deltas) - after


@given(st.binary(max_size=80))
def test_no_bytes_end_in_anything_but_deltas_or_a_typed_error(raw: bytes) -> None:
    for body in (raw, b"data: " + raw + b"\n\n", b'data: {"type":"complete","data":"",' + raw + b"}\n\n"):
        try:
            NativeDecoder().feed(body)
        except ProviderFailure:
            continue


def test_resumed_start_is_told_from_the_first() -> None:
    frames = NativeProjector("s", after=1, resumed=True).feed([Status("accepted"), Text("a")])
    assert NativeDecoder().feed(frames) == [Status("resumed", facts={"resumed": True}), Text("a")]


def test_what_a_broken_connection_left_half_said_is_dropped() -> None:
    raw = NativeProjector("s").feed([Status("accepted"), Text("a"), Text("b")])
    decoder = NativeDecoder()
    first = decoder.frames(raw[:-5])
    assert [(frame.seq, frame.delta, frame.told["type"]) for frame in first] == [
        (1, Status("accepted"), "start"),
        (2, Text("a"), "content"),
    ]
    decoder.reconnected()
    after = NativeProjector("s", after=decoder.cursor).feed([Status("accepted"), Text("a"), Text("b")])
    assert decoder.feed(after) == [Text("b")] and decoder.cursor == 3


def test_frame_of_a_newer_server_is_no_error() -> None:
    (delta,) = NativeDecoder().feed(b'data: {"id":"s","seq":1,"type":"new","data":"x"}\n\n')
    assert delta == Status("new", "x")


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029", "\n", "\r", '"', "\\", "ñ", "😀"])
def test_every_character_stays_on_its_line(character: str) -> None:
    frames = NativeProjector("s").feed([Text(f"a{character}b")])
    assert len(frames.decode().splitlines()) == 3
    assert NativeDecoder().feed(frames) == [Text(f"a{character}b")]


requests = st.builds(
    Request,
    model=text,
    messages=st.lists(
        st.one_of(
            st.builds(Message, st.sampled_from(["system", "user"]), text.map(lambda one: (TextPart(one),))),
            st.builds(Message, st.just("user"), st.tuples(name.map(TextPart), name.map(ImagePart))),
            st.builds(Message, st.just("assistant"), st.tuples(st.builds(ToolCallPart, name, name, text))),
            st.builds(Message, st.just("tool"), text.map(lambda one: (TextPart(one),)), st.none(), name),
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 2),
        top_k=st.none() | st.integers(1, 9),
        max_tokens=st.none() | st.integers(1, 99),
        stop=st.lists(name, max_size=2).map(tuple),
        seed=st.none() | st.integers(0, 9),
    ),
    tools=st.lists(st.builds(Tool, name, st.none() | text), max_size=2).map(tuple),
    tool_choice=st.sampled_from([None, ToolChoice("required"), ToolChoice("tool", "f")]),
    response_format=st.sampled_from([None, ResponseFormat("json_schema", "n", {"type": "object"}, True)]),
    stream=st.booleans(),
    user=st.none() | name,
    task=st.none() | name,
    conversation_id=st.none() | st.from_regex(r"[!-.0-~ñ]{1,200}", fullmatch=True),
    fallbacks=st.lists(name, max_size=2).map(tuple),
    timeout=st.none() | st.floats(0.1, 99),
    metadata=st.none() | st.dictionaries(name, text, max_size=2),
)


@given(requests)
def test_request_reads_back_as_it_was_written(request: Request) -> None:
    assert parse_request(msgspec.json.encode(render_request(request))) == request


def test_text_that_a_restart_took_back_is_not_in_the_whole() -> None:
    deltas = [
        Status("accepted"),
        Text("kept "),
        Attempt(1, "up", "m", "primary"),
        Text("wrong"),
        Refusal("no"),
        Restart(4, "reset"),
        Text("worse"),
        Restart(7, "reset"),
        Text("right"),
        Finish("stop"),
    ]
    frames = NativeProjector("s").feed(deltas)
    assert b'"type":"complete","data":"kept right"' in frames
