"""OpenAI's embeddings in both directions."""

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import InvalidRequest, ProviderFailure
from cauce.domain.usage import Usage
from cauce.wire.openai_embeddings import MOST_INPUTS, parse_answer, parse_request, render_answer, render_request

encode = msgspec.json.encode


def parsed(**body: Any) -> EmbeddingRequest:
    return parse_request(encode({"model": "m", **body})).request


@pytest.mark.parametrize(
    ("given_", "inputs"),
    [
        ("a text", ("a text",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a", [1, 2]], ("a", (1, 2))),
    ],
)
def test_inputs_of_every_kind_are_read(given_: Any, inputs: tuple[Any, ...]) -> None:
    assert parsed(input=given_).inputs == inputs


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "a", "dimensions": 3, "user": "u"},
        {"model": "m", "input": ["a", "b"], "input_type": "query"},
        {"model": "m", "input": [1, 2]},
        {"model": "m", "input": [[1, 2], [3]]},
    ],
)
def test_what_a_client_sends_arrives_upstream_unchanged(body: dict[str, Any]) -> None:
    assert render_request(parse_request(encode(body)).request, "m") == body


def test_upstreams_are_asked_in_their_own_words() -> None:
    asked = parse_request(encode({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 2}))
    assert asked.base64
    body = {"model": "real", "input": "a", "output_dimension": 2}
    assert render_request(asked.request, "real", "output_dimension", packs=False) == body
    assert render_request(asked.request, "real", "output_dimension") == {**body, "encoding_format": "base64"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": ["a", ""]}, "input[1]"),
        ({"model": "m", "input": ["a", 5]}, "input[1]"),
        ({"model": "m", "input": [1, -2]}, "input"),
        ({"model": "m", "input": [1, "a"]}, "input"),
        ({"model": "m", "input": [[]]}, "input[0]"),
        ({"model": "m", "input": [True]}, "input[0]"),
        ({"model": "m", "input": ["a"] * (MOST_INPUTS + 1)}, "input"),
        ({"model": "m", "input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"model": "m", "input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_mistake_names_its_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(encode(body))
    assert caught.value.field == field


def test_as_many_inputs_as_the_wire_allows_are_taken() -> None:
    assert len(parsed(input=["a"] * MOST_INPUTS).inputs) == MOST_INPUTS


def entry(index: int, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def test_answer_is_read_in_the_order_of_its_inputs() -> None:
    body = {
        "data": [entry(1, [0.5]), entry(0, [0.25])],
        "model": "real",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    got = parse_answer(encode(body), EmbeddingRequest("m", ("a", "b")), "up")
    assert got.vectors == ((0.25,), (0.5,))
    assert (got.model, got.usage.input_tokens, got.usage.output_tokens) == ("real", 7, 0)


def test_answer_in_base64_is_read_too() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()
    got = parse_answer(encode({"data": [entry(0, packed)]}), EmbeddingRequest("m", ("a",)), "up")
    assert got.vectors == ((0.5, -0.25),)


def test_tokens_that_nobody_reports_are_estimated() -> None:
    got = parse_answer(
        encode({"data": [entry(0, [1.0]), entry(1, [1])]}), EmbeddingRequest("m", ("abcdefgh", (1, 2, 3))), "up"
    )
    assert got.usage == Usage(6, estimated=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"data": {}}',
        b'{"data": [1]}',
        b'{"data": []}',
        b'{"data": [{"embedding": [1.0], "index": 3}]}',
        b'{"data": [{"embedding": ["a"]}]}',
        b'{"data": [{"embedding": "***"}]}',
        b'{"data": [{"embedding": "AAA="}]}',
        b'{"data": [{"embedding": {}}]}',
        b'{"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}',
    ],
)
def test_broken_answer_is_a_failure(body: bytes) -> None:
    with pytest.raises(ProviderFailure):
        parse_answer(body, EmbeddingRequest("m", ("a",)), "up")


vectors = st.lists(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=4,
).map(tuple)


@given(vectors, st.booleans())
def test_answer_reads_back_as_it_was_written(made: tuple[tuple[float, ...], ...], as_base64: bool) -> None:
    body = render_answer(Embeddings(made, Usage(3), "m"), "m", as_base64=as_base64)
    got = parse_answer(body, EmbeddingRequest("m", ("a",) * len(made)), "up")
    assert got.vectors == made and got.usage.input_tokens == 3
