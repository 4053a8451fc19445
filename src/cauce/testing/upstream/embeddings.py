"""OpenAI's embeddings. Gemini's are with the rest of its wire; Anthropic has none."""

import base64
import struct
from typing import Any, cast

from cauce.testing.upstream import chat
from cauce.testing.upstream.reply import Ask, Reply, Wire


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A vector for each input: the scripted ones in turn, cut to `dimensions`, as floats or as base64 of float32."""
    encode = _base64 if ask.body.get("encoding_format") == "base64" else list[float]
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector(reply, index, ask.body.get("dimensions")))}
        for index in range(inputs(ask.body["input"]))
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": ask.body["model"]}
    tokens = reply.tokens
    if tokens is None:
        return body if reply.usage is None else {**body, "usage": reply.usage}
    return {**body, "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input}}


def vector(reply: Reply, index: int, dimensions: int | None) -> tuple[float, ...]:
    """The vector of the input number `index`."""
    scripted = reply.embedding[index % len(reply.embedding)]
    return scripted if dimensions is None else scripted[:dimensions]


def inputs(given: object) -> int:
    """How many texts are asked about: a list of numbers is one, told as tokens."""
    if not isinstance(given, list):
        return 1
    listed = cast(list[object], given)
    return 1 if listed and isinstance(listed[0], int) else len(listed)


def _base64(values: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


WIRE = Wire(plain, chat.failure)
