"""Shortcuts of the chat wire: plain requests and plain answers are read and written just as any other is."""

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from cauce.domain.completion import Choice, Completion
from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.message import TextPart
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.extras import WIRE
from cauce.wire.openai_chat.request import ChatCompletionBody, _parsed, parse_request

_TEXTS = st.text(max_size=6) | st.sampled_from(["", "tools", '"tools"', "río \U0001f600"])
_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 5.0, 128.0, 1e16, 1e300]),
    _TEXTS,
    st.lists(_TEXTS, max_size=2),
    st.dictionaries(_TEXTS, _TEXTS, max_size=1),
)
_KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "model": _TEXTS,
    "temperature": st.floats(-1, 3) | st.integers(-1, 3),
    "top_p": st.floats(0, 1) | st.integers(0, 1),
    "top_k": st.integers(),
    "max_tokens": st.integers(0, 10) | st.sampled_from([5.0, 1e3]),
    "max_completion_tokens": st.integers(0, 10),
    "n": st.integers(0, 130) | st.sampled_from([1.0, 3.0]),
    "stop": _TEXTS | st.lists(_TEXTS, max_size=3),
    "seed": st.integers() | st.floats(),
    "presence_penalty": st.integers(-3, 3),
    "frequency_penalty": st.floats(-3, 3),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(-1, 21),
    "stream": st.booleans(),
    "user": _TEXTS,
}
_MEMBERS = st.one_of([st.tuples(st.just(name), values) for name, values in _KNOWN.items()])
_ANY_MEMBERS = st.tuples(st.sampled_from([*ChatCompletionBody.__struct_fields__, "metadata", "unknown"]), _ODD)
_PLAIN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": _TEXTS}
)
_ANY = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "function", "nobody"]), "content": _TEXTS | _ODD},
    optional={"name": _ODD, "refusal": _ODD, "tool_call_id": _ODD, "unknown": _ODD},
)
_MESSAGES = st.tuples(st.just("messages"), st.lists(_PLAIN, max_size=3) | st.lists(_PLAIN | _ANY, max_size=3) | _ODD)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON of a request, member by member: a member may come twice, and some of the JSON may be none."""
    members = draw(st.lists(_MEMBERS, max_size=6) | st.lists(_ANY_MEMBERS, max_size=5))
    members = draw(st.permutations([*members, *draw(st.lists(_MESSAGES, min_size=1, max_size=2))]))
    said = [f"{json.dumps(name)}:{json.dumps(value, allow_nan=True)}" for name, value in members]
    body = ("{" + ",".join(said) + "}").encode()
    return draw(st.sampled_from([body] * 20 + [body[:-1], body + b" x", b"\xef\xbb\xbf" + body, body[:20] + b"\xff"]))


def outcome(parse: Any, body: bytes) -> Request | tuple[str, str | None]:
    try:
        return parse(body)
    except InvalidRequest as error:
        return error.message, error.field


@given(bodies())
@example(b'{"messages":[{"role":"user","content":"\\ud800"}]}')
@example(b'{"m\\u006fdel":"a","messages":[{"role":"user","content":"x"}]}')
@example(b'{"temperature":1e400,"messages":[{"role":"user","content":"x"}]}')
@example(b'{"messages":[{"role":"user","role":"system","content":"x"}]}')
def test_plain_request_is_read_as_any_other(body: bytes) -> None:
    read, expected = outcome(parse_request, body), outcome(_parsed, body)
    assert read == expected and repr(read) == repr(expected)


_CHUNKS = st.dictionaries(
    st.sampled_from(["id", "system_fingerprint", "usage", "choices", "x"]), st.integers(), max_size=3
)


@given(
    text=_TEXTS,
    reason=st.sampled_from(["stop", "length", "content_filter", "tool_calls", "error"]),
    chunks=st.lists(_CHUNKS, max_size=3),
    usage=st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)
def test_plain_answer_is_written_as_any_other(
    text: str, reason: Any, chunks: list[dict[str, Any]], usage: Usage
) -> None:
    head = Head("chatcmpl_1", "up/m", 1)
    extras = tuple([Extra(WIRE, {"chunk": chunk}) for chunk in chunks])
    plain = Completion((Choice((TextPart(text),), reason, extras=extras),), usage)
    # What nothing is shown of takes the general way.
    other = msgspec.structs.replace(plain, extra=Extra("another wire", {}))
    assert msgspec.json.decode(render_completion(plain, head)) == msgspec.json.decode(render_completion(other, head))
