"""Tokens estimated from the kinds of characters."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.message import DocumentPart, ImagePart, Message, OpaquePart, Part, TextPart, ToolCallPart
from cauce.domain.request import Request, ResponseFormat
from cauce.domain.tokens import (
    PER_IMAGE,
    PER_MESSAGE,
    PER_PAGE,
    estimate_input_tokens,
    estimate_tokens,
    is_text,
    weigh,
    weigh_text,
)
from cauce.domain.tool import OpaqueTool, Tool


def asking(*parts: Part, **fields: object) -> Request:
    return Request("m", (Message("user", parts),), **fields)  # pyright: ignore[reportArgumentType]


# Counts of o200k_base, made once with tiktoken.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The quick brown fox jumps over the lazy dog, and nobody knows why it does so every single morning.", 21),
        ("El veloz murciélago hindú comía feliz cardillo y kiwi mientras la cigüeña tocaba el saxofón.", 28),
        ("我们今天去北京吃饭，然后回家睡觉。你明天想做什么？", 19),
        ("def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)\n", 24),
        ("Сегодня мы поедем в город, а вечером вернёмся домой и будем смотреть фильм.", 20),
    ],
)
def test_estimate_is_within_a_third_for_many_scripts(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.34)


@given(st.text(), st.text())
def test_texts_weigh_what_they_weigh_together(first: str, second: str) -> None:
    assert weigh_text(first + second) == pytest.approx(weigh_text(first) + weigh_text(second))


def test_half_of_a_surrogate_pair_is_no_error() -> None:
    assert weigh_text("a\ud83d") > 0


def test_nothing_weighs_nothing() -> None:
    assert (weigh_text(""), estimate_input_tokens(Request("m", ()))) == (0.0, 0)


def test_tools_and_the_schema_of_the_answer_count() -> None:
    bare = weigh(asking(TextPart("hi")))
    schema = {"type": "object", "properties": {"city": {"type": "string", "description": "a city"}}}
    tool = Tool("look_up_the_weather", "tells the weather", schema)
    with_tool = weigh(asking(TextPart("hi"), tools=(tool,)))
    with_more = weigh(asking(TextPart("hi"), tools=(tool,), response_format=ResponseFormat("json_schema", "x", schema)))
    assert with_tool > bare + 30
    assert with_more > with_tool + 15
    assert weigh(asking(TextPart("hi"), tools=(OpaqueTool("w", "search", {"type": "web_search"}),))) > bare + 8


def test_images_have_a_flat_figure_whatever_their_bytes() -> None:
    small = weigh(asking(ImagePart("data:image/png;base64,AAAA")))
    assert small == weigh(asking(ImagePart("data:image/png;base64," + "A" * 100_000))) == PER_IMAGE + PER_MESSAGE
    assert weigh(asking(ImagePart("https://x/y.png", "low"))) < small < weigh(asking(DocumentPart("https://x/y.pdf")))


def test_documents_weigh_what_is_known_of_them_and_a_page_at_least() -> None:
    def weight(url: str) -> float:
        return weigh(asking(DocumentPart(url))) - PER_MESSAGE

    told = "The river rises in the mountains. " * 600
    assert weight(f"data:text/plain,{told}") == pytest.approx(weigh_text(told)) and weigh_text(told) > PER_PAGE
    assert weight("data:text/plain,Short.") == weight("https://x/y.pdf") == PER_PAGE
    page = "/Type /Page ".ljust(300)
    assert weight("data:application/pdf;base64," + b64encode((page * 90).encode()).decode()) == 90 * PER_PAGE


def test_calls_and_their_results_count() -> None:
    assert weigh(asking(ToolCallPart("call_1", "look_up", '{"city": "Cuenca"}'))) > PER_MESSAGE + 7


def test_only_text_calls_and_functions_can_be_counted_from_characters() -> None:
    assert is_text(asking(TextPart("hi"), ToolCallPart("c", "f", "{}"), tools=(Tool("f"),)))
    assert not is_text(asking(ImagePart("https://x/y.png")))
    assert not is_text(asking(OpaquePart("w", {"type": "x"})))
    assert not is_text(asking(TextPart("hi"), tools=(OpaqueTool("w", "search", {}),)))
