"""The parts of the cache: keys, how answers are written, what a header says."""

import string
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.delta import Delta, Finish, Opaque, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.extra import Extra
from cauce.domain.message import ImagePart, Message, Part, RefusalPart, TextPart, ToolCallPart
from cauce.domain.request import Request, ResponseFormat, Sampling, Scope
from cauce.domain.signature import Signature
from cauce.domain.tool import OpaqueTool, Tool
from cauce.domain.usage import Usage
from cauce.engine.caching.encoding import decode, encode
from cauce.engine.caching.key import Keys
from cauce.engine.caching.worth import may_be_cached
from cauce.ports.cache import CacheControl
from cauce.ports.provider import Call, Candidate
from cauce.server.cache_control import parse_cache_control
from cauce.testing.scripted import ScriptedProvider, answering

PROVIDER = ScriptedProvider("up", answering("hi"))
KEYS = Keys()

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
extras = st.none() | st.builds(Extra, names, st.dictionaries(names, values, max_size=3))
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, names, extras),
    st.builds(RefusalPart, names, extras),
    st.builds(ImagePart, names),
    st.builds(ToolCallPart, names, names, names),
)
messages = st.builds(
    Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(parts, max_size=3).map(tuple)
)
requests = st.builds(
    Request,
    names,
    st.lists(messages, max_size=3).map(tuple),
    st.builds(
        Sampling, st.none() | st.floats(0, 2), st.none() | st.floats(0, 1), max_tokens=st.none() | st.integers(1, 9)
    ),
    extra=extras,
)
scopes = st.builds(Scope, names, names)


def call(request: Request, scope: Scope | None = None, models: tuple[str, ...] = ("m",)) -> Call:
    return Call(request, scope or Scope(), tuple([Candidate(PROVIDER, model) for model in models]))


HELLO = Request("x", (Message("user", (TextPart("hi"),)),), Sampling(temperature=0.0))


@given(requests, scopes, scopes)
def test_tenants_never_share_an_answer(request: Request, one: Scope, other: Scope) -> None:
    same = KEYS.of(call(request, one)) == KEYS.of(call(request, other))
    assert same == (one.tenant == other.tenant)
    by_key = Keys("key")
    assert (by_key.of(call(request, one)) == by_key.of(call(request, other))) == (
        (one.tenant, one.key) == (other.tenant, other.key)
    )


@given(requests, requests)
def test_different_requests_have_different_keys(one: Request, other: Request) -> None:
    def meant(request: Request) -> object:
        # What a client cannot tell apart: a field of its wire that is not there, and none.
        return msgspec.json.encode(
            msgspec.structs.replace(request, extra=request.extra if request.extra and request.extra.data else None)
        )

    assert (KEYS.of(call(one)) == KEYS.of(call(other))) == (meant(one) == meant(other))


@given(requests)
def test_key_is_of_the_request_and_not_of_the_moment(request: Request) -> None:
    again = msgspec.structs.replace(
        request, stream=True, include_usage=True, user="u", metadata={"a": 1}, timeout=3.0, task="t"
    )
    one, other = call(request), msgspec.structs.replace(call(again), request_id="req_9", streamed=False, stream_id="s")
    assert KEYS.of(one) == KEYS.of(other)


@pytest.mark.parametrize(
    "change",
    [
        {"tools": (Tool("f"),)},
        {"tools": (OpaqueTool("w", "k", {}),)},
        {"response_format": ResponseFormat("json_object")},
        {"parallel_tool_calls": False},
        {"extra": Extra("w", {"top_a": 1})},
    ],
)
def test_whatever_shapes_an_answer_is_in_its_key(change: dict[str, Any]) -> None:
    assert KEYS.of(call(HELLO)) != KEYS.of(call(msgspec.structs.replace(HELLO, **change)))


def test_order_of_candidates_makes_no_other_key_and_another_candidate_does() -> None:
    assert KEYS.of(call(HELLO, models=("a", "b"))) == KEYS.of(call(HELLO, models=("b", "a")))
    assert KEYS.of(call(HELLO, models=("a", "b"))) != KEYS.of(call(HELLO, models=("a", "c")))
    assert KEYS.of(call(HELLO, models=("a",))) != KEYS.of(call(HELLO, models=("a", "b")))


def test_order_of_a_schemas_properties_matters_since_models_follow_it() -> None:
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    keys = [
        KEYS.of(call(msgspec.structs.replace(HELLO, tools=(Tool("f", parameters=order),)))) for order in (one, other)
    ]
    assert keys[0] != keys[1]


def test_another_meaning_of_names_makes_other_keys() -> None:
    assert Keys(salt=b"one").of(call(HELLO)) != Keys(salt=b"two").of(call(HELLO))


def test_vectors_and_answers_are_told_apart() -> None:
    asked = EmbeddingRequest("x", ("hi",))

    def key(asked: EmbeddingRequest, scope: Scope | None = None) -> bytes | None:
        return KEYS.of(msgspec.structs.replace(call(HELLO, scope), embedding=asked))

    assert key(asked) not in (None, KEYS.of(call(HELLO)), key(asked, Scope("other")))
    assert key(asked) == key(msgspec.structs.replace(asked, user="u", timeout=3.0))
    assert key(asked) != key(msgspec.structs.replace(asked, dimensions=8))
    assert KEYS.of(msgspec.structs.replace(call(HELLO), embedding=asked, private=True)) not in (None, key(asked))


def test_request_that_only_json_can_hold_has_no_key() -> None:
    assert KEYS.of(call(msgspec.structs.replace(HELLO, extra=Extra("w", {"seed": 2**70})))) is None


logprobs = st.builds(TokenLogprob, names, st.floats(-9, 0), st.none() | st.tuples(st.integers(0, 255)))
pieces: st.SearchStrategy[Delta] = st.one_of(
    st.builds(Text, names, st.integers(0, 3), extras, st.booleans(), st.lists(logprobs, max_size=2).map(tuple)),
    st.builds(Text, names),
    st.builds(Reasoning, names, st.none() | st.builds(Signature, names, names)),
    st.builds(Refusal, names),
    st.builds(ToolCall, st.integers(0, 3), names, names, names, st.sampled_from(["piece", "ready"])),
    st.builds(Citation, st.none() | names, st.none() | names),
    st.builds(Opaque, names, st.dictionaries(names, values, max_size=2)),
)


@given(st.lists(pieces, max_size=6), st.integers(0, 10_000), extras)
def test_answer_is_read_as_it_was_written(deltas: list[Delta], tokens: int, extra: Extra | None) -> None:
    usage = Usage(tokens, 5, cost=0.3, cost_source="reported", extra=extra)
    written = encode([*deltas, Finish("stop", usage, extra=extra)])
    assert written is not None
    free = Usage(tokens, 5, cost=0.0, cost_source="priced", extra=extra)
    assert decode(written[0]) == (*deltas, Finish("stop", free, extra=extra))
    assert written[1] == len(deltas) + 1


def test_plain_text_takes_little_more_than_itself() -> None:
    written = encode([Text("hello ")] * 100)
    assert written is not None and len(written[0]) < 100 * 8


@given(st.binary(max_size=40))
@example(b"\x91\xa1\x80")
def test_what_nobody_wrote_is_no_answer_and_no_error(junk: bytes) -> None:
    decode(junk)


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("", CacheControl()),
        ("no-cache", CacheControl(read=False)),
        ("No-Store", CacheControl(store=False)),
        ("max-age=0", CacheControl(read=False, max_age=0.0)),
        ("max-age=60", CacheControl(wanted=True, max_age=60.0)),
        (' max-age = "60" ', CacheControl(wanted=True, max_age=60.0)),
        ("max-age=-1", CacheControl()),
        ("max-age=1.5", CacheControl()),
        ("max-age=٣", CacheControl()),
        ("max-age=1, max-age=2", CacheControl(wanted=True, max_age=1.0)),
        ("max-stale", CacheControl(wanted=True, max_stale=float("inf"))),
        ("max-stale=5", CacheControl(wanted=True, max_stale=5.0)),
        ("max-stale=x", CacheControl()),
        ("min-fresh=5", CacheControl(wanted=True, min_fresh=5.0)),
        ("stale-if-error=5", CacheControl(wanted=True, stale_if_error=5.0)),
        ("only-if-cached", CacheControl(wanted=True, only_cached=True)),
        ("no-transform, private", CacheControl()),
    ],
)
def test_header_says(header: str, meant: CacheControl) -> None:
    assert parse_cache_control(header) == meant


def test_absurd_ages_are_only_long_ones() -> None:
    said = parse_cache_control("max-age=" + "9" * 5000)
    assert said.max_age is not None and 0 < said.max_age < float("inf")


@given(st.text(string.printable, max_size=60))
def test_no_header_breaks_the_reading_of_it(header: str) -> None:
    parse_cache_control(header)


def test_no_store_and_kept_conversations_are_never_cached() -> None:
    wanted = CacheControl(wanted=True, max_age=60.0)
    assert may_be_cached(msgspec.structs.replace(call(HELLO), cache=wanted))
    assert not may_be_cached(msgspec.structs.replace(call(HELLO), cache=CacheControl(store=False, wanted=True)))
    kept = msgspec.structs.replace(HELLO, conversation_id="c")
    assert not may_be_cached(msgspec.structs.replace(call(kept), cache=wanted))
