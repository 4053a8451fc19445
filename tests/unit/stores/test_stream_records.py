"""Records as bytes: what comes back is what went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.delta import (
    Attempt,
    Delta,
    Failed,
    Finish,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
)
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage
from cauce.engine import ending
from cauce.stores.stream_records import FORMAT, decode, encode
from cauce.wire.native.frames import NativeProjector

WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.none() | st.builds(Extra, WORDS, st.dictionaries(WORDS, JSON, max_size=2))
SIGNATURE = st.none() | st.builds(Signature, WORDS, WORDS, st.none() | WORDS)
CHOICE = st.integers(0, 3)
LOGPROB = st.builds(TokenLogprob, WORDS, st.floats(-20, 0), st.none() | st.tuples(st.integers(0, 255)))
DELTAS: st.SearchStrategy[Delta] = st.one_of(
    st.builds(Text, WORDS),
    st.builds(Text, WORDS, CHOICE, EXTRA, st.booleans(), st.tuples(LOGPROB)),
    st.builds(Reasoning, WORDS),
    st.builds(Reasoning, WORDS, SIGNATURE, CHOICE, EXTRA, st.booleans()),
    st.builds(Refusal, WORDS, CHOICE, EXTRA),
    st.builds(
        ToolCall,
        CHOICE,
        WORDS,
        WORDS,
        WORDS,
        st.sampled_from(["piece", "ready", "abandoned"]),
        CHOICE,
        EXTRA,
        SIGNATURE,
    ),
    st.builds(ToolResult, WORDS, WORDS, WORDS, st.none() | WORDS),
    st.builds(Citation, st.none() | WORDS, st.none() | WORDS),
    st.builds(Status, WORDS, WORDS, st.dictionaries(WORDS, JSON, max_size=2)),
    st.builds(
        Attempt,
        CHOICE,
        WORDS,
        WORDS,
        st.sampled_from(["primary", "fallback", "cache", "offline"]),
        strategy=st.sampled_from(["open", "cache", "shared", "stale"]),
        deployment=WORDS,
        missed=st.booleans(),
        age=st.none() | CHOICE,
    ),
    st.builds(Restart, CHOICE, WORDS),
    st.builds(Opaque, WORDS, st.dictionaries(WORDS, JSON, max_size=2)),
    st.builds(
        Finish,
        st.sampled_from(["stop", "length", "cancelled", "error"]),
        st.builds(Usage, CHOICE, CHOICE, cost=st.floats(0, 10)),
        error=st.none() | st.builds(Failed, st.just("overloaded"), WORDS),
    ),
)


@given(st.lists(DELTAS, max_size=6))
def test_what_is_read_is_what_was_written(deltas: list[Delta]) -> None:
    data, written = encode(deltas)
    assert decode(data) == list(written) == deltas


@given(st.lists(st.text(max_size=6), max_size=5))
def test_any_text_can_be_written_and_both_sides_agree_on_what_it_is(words: list[str]) -> None:
    data, written = encode([Text(word, choice=number) for number, word in enumerate(words)])
    assert decode(data) == list(written)
    data.decode("utf-8")


def test_surrogate_pair_within_a_text_is_one_character_and_half_of_one_is_the_sign_for_that() -> None:
    whole, high, low = "a\ud83d\ude00b", "ñ\ud83d", "\ude00c"
    _, written = encode([Text(whole), Reasoning(high), Text(low), Text("\ude00\ud83d")])
    assert written == [Text("a😀b"), Reasoning("ñ\ufffd"), Text("\ufffdc"), Text("\ufffd\ufffd")]


def test_end_with_an_error_is_shown_in_the_same_bytes_before_and_after_it_is_written() -> None:
    end = ending.failed(ending.cut_off(), text_delivered=True)
    shown = [NativeProjector("s").feed([finish]) for finish in (end, *decode(encode([end])[0]))]
    assert b'"retry_after"' in shown[0] and shown[0] == shown[1]


def test_records_of_another_format_cannot_be_read() -> None:
    data, _ = encode([Text("a")])
    assert decode(data, FORMAT) == [Text("a")]
    with pytest.raises(ValueError, match="format 2"):
        decode(data, 2)


def test_attempts_of_earlier_versions_say_what_the_cache_gave_and_not_how_old_it_was() -> None:
    kept = '[{"type":"attempt","n":2,"provider":"up","model":"m","level":"LEVEL","step":1,"strategy":"STRATEGY"}]'
    told: list[tuple[str, int | None]] = []
    for level, strategy in (("cache", "stale"), ("cache", "cache"), ("offline", "shared"), ("primary", "open")):
        (attempt,) = decode(kept.replace("LEVEL", level).replace("STRATEGY", strategy).encode())
        assert isinstance(attempt, Attempt)
        told.append((attempt.cache, attempt.age))
    assert told == [("stale", None), ("hit", None), ("hit", None), ("none", None)]


def test_plain_text_takes_little_more_than_itself() -> None:
    data, _ = encode([Text("río "), Reasoning("why"), Text("abajo")])
    assert data == '["río ",["why"],"abajo"]'.encode()
