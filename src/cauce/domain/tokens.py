"""Tokens estimated from characters, for where nobody has counted.

A text is weighed by the kinds of its characters. The weights are those that fit the counts of OpenAI's `o200k_base` best, over 29
languages, code, JSON and figures (`docs/decisions/0020-token-counting.md`); other vocabularies differ by a factor.
"""

from math import ceil
from typing import Any

import msgspec

from cauce.domain.document import pages_of, text_of
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import Request
from cauce.domain.tool import Tool

CHARACTERS_PER_TOKEN = 4
"""A common rule of thumb for English (OpenAI, "What are tokens and how to count them")."""

PER_MESSAGE = 4.0
"""Around each message (OpenAI Cookbook, "How to count tokens with tiktoken": three, and its role)."""

PER_TOOL = 8.0
"""Around each tool, beside its name, description and schema (the same page: seven to start it, more for its properties)."""

PER_IMAGE = 1000.0
"""In the midst of what one of 1024 x 1024 pixels is: 765 (OpenAI), 1032 (Gemini: four tiles), 1398 (Anthropic)."""

PER_SMALL_IMAGE = 85.0
"""OpenAI's detail `low`, whatever the size (its guide "Images and vision")."""

PER_PAGE = 2000.0
"""A page of a document (Anthropic, "PDF support": 1,500 to 3,000 tokens each). One at an address is taken to have one."""

_WEIGHTS: tuple[tuple[float, bytes], ...] = (
    (0.26, b"abcdefghijklmnopqrstuvwxyz"),
    (0.35, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    (0.9, b"0123456789"),
    (0.67, b"\t\n\r"),
    (0.41, b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    (1.29, bytes(range(0xC2, 0xCC))),  # signs of Latin-1, Latin letters with accents
    (0.37, bytes(range(0xCC, 0xE0))),  # Greek, Cyrillic, Hebrew, Arabic
    (0.41, bytes((0xE0, 0xE1))),  # Indic scripts, Thai, Georgian
    (1.78, bytes((0xE2,))),  # dashes, quotation marks, symbols
    (0.73, bytes((0xE3, 0xEE, 0xEF))),  # kana, full width
    (0.99, bytes(range(0xE4, 0xEA))),  # Han
    (0.82, bytes(range(0xEA, 0xEE))),  # Hangul
    (0.93, bytes(range(0xF0, 0xF5))),  # emoji
)
"""Tokens per character, and the first bytes in UTF-8 of the characters it holds for. Spaces weigh nothing: they go with a word."""

_OF_ASCII = 5


def _kinds() -> bytes:
    table = bytearray(256)
    for kind, (_, bytes_) in enumerate(_WEIGHTS, 1):
        for byte in bytes_:
            table[byte] = kind
    return bytes(table)


_KINDS = _kinds()
_ALL = tuple([(bytes((kind,)), weight) for kind, (weight, _) in enumerate(_WEIGHTS, 1)])
_ASCII = _ALL[:_OF_ASCII]

_encode = msgspec.json.Encoder().encode


def weigh_text(text: str) -> float:
    """Tokens of `text`, roughly."""
    kinds = text.encode("utf-8", "replace").translate(_KINDS)
    weight = 0.0
    for kind, each in _ASCII if text.isascii() else _ALL:
        weight += kinds.count(kind) * each
    return weight


def weigh(request: Request) -> float:
    """Input tokens of `request`, roughly: messages, tools, the schema of the answer, and a flat figure per image and page."""
    texts: list[str] = []
    weight = PER_MESSAGE * len(request.messages) + PER_TOOL * len(request.tools)
    if request.prompt is not None:
        # Its text is what the messages say.
        weight += request.prompt.tokens
        texts.append(request.prompt.suffix or "")
    for message in request.messages:
        for part in message.parts:
            if type(part) is TextPart:
                texts.append(part.text)
            else:
                weight += _weigh_part(part, texts)
    for tool in request.tools:
        match tool:
            case Tool(name, description, parameters):
                texts += [name, description or "", _json(parameters)]
            case _:
                texts.append(_json(tool.data))
    if request.response_format is not None:
        texts.append(_json(request.response_format.schema))
    return weight + weigh_text("".join(texts))


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, roughly."""
    return ceil(weigh_text(text))


def estimate_input_tokens(request: Request) -> int:
    """Input tokens of `request`, roughly, where nothing is known of the model."""
    return ceil(weigh(request))


def is_text(request: Request) -> bool:
    """Whether `request` is made of text, calls and functions alone: what can be counted from its characters."""
    counted = (TextPart, ReasoningPart, RefusalPart, ToolCallPart)
    if request.prompt is not None and request.prompt.tokens:
        return False
    return all([isinstance(tool, Tool) for tool in request.tools]) and all(
        [isinstance(part, counted) for message in request.messages for part in message.parts]
    )


def _weigh_part(part: Part, texts: list[str]) -> float:
    """What `part` weighs that is no text; texts go to `texts`."""
    match part:
        case TextPart(text) | ReasoningPart(text) | RefusalPart(text):
            texts.append(text)
        case ToolCallPart(_, name, arguments):
            texts += (name, arguments)
        case ImagePart(_, detail):
            return PER_SMALL_IMAGE if detail == "low" else PER_IMAGE
        case DocumentPart(url):
            text = text_of(url)
            return max(PER_PAGE, weigh_text(text)) if text is not None else PER_PAGE * pages_of(url)
        case OpaquePart(_, data):
            texts.append(_json(data))
    return 0.0


def _json(value: dict[str, Any] | None) -> str:
    return _encode(value).decode() if value is not None else ""
