"""Embeddings of this wire: one content, or several in one request."""

from typing import Any, TypeVar

import msgspec

from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import InvalidRequest
from cauce.domain.message import TextPart
from cauce.wire.fields import check, decode_object
from cauce.wire.gemini.names import camel
from cauce.wire.gemini.parts import parse_contents

_encode = msgspec.json.Encoder().encode

T = TypeVar("T")

MOST = 2048
"""Texts one request may hold."""


class EmbedContentBody(msgspec.Struct, rename="camel"):
    """Body of `:embedContent`, and one member of `:batchEmbedContents`."""

    content: dict[str, Any] | str
    model: str | None = None
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int | None = None


class BatchEmbedContentsBody(msgspec.Struct):
    """Body of `:batchEmbedContents`."""

    requests: list[EmbedContentBody]


def parse_embed(body: bytes, model: str) -> EmbeddingRequest:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    return _request([_checked(body, EmbedContentBody)], model)


def parse_embed_all(body: bytes, model: str) -> EmbeddingRequest:
    """The requests in `body`, which must ask alike. Raises `InvalidRequest` naming the field."""
    requests = _checked(body, BatchEmbedContentsBody).requests
    if not 0 < len(requests) <= MOST:
        raise InvalidRequest(f"requests: must hold 1 to {MOST} members", field="requests")
    for index, one in enumerate(requests):
        if (one.output_dimensionality, one.task_type) != (requests[0].output_dimensionality, requests[0].task_type):
            raise InvalidRequest(
                f"requests[{index}]: outputDimensionality and taskType must be those of the first member",
                field=f"requests[{index}]",
            )
    return _request(requests, model)


def _checked(body: bytes, shape: type[T]) -> T:
    try:
        return check(camel(decode_object(body)), shape, strict=False)
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error


def _request(asked: list[EmbedContentBody], model: str) -> EmbeddingRequest:
    first = asked[0]
    return EmbeddingRequest(
        model,
        tuple([_text(one.content, index) for index, one in enumerate(asked)]),
        first.output_dimensionality,
        task=first.task_type,
    )


def _text(content: dict[str, Any] | str, index: int) -> str:
    if isinstance(content, str):
        return content
    said = parse_contents([{**content, "role": "user"}])[0]
    if any([not isinstance(part, TextPart) for part in said.parts]):
        raise InvalidRequest("content.parts: only texts become vectors here", field=f"requests[{index}].content.parts")
    return said.text


def render_embedding(made: Embeddings) -> bytes:
    """The answer of `:embedContent`."""
    return _encode({"embedding": {"values": made.vectors[0]}})


def render_embeddings(made: Embeddings) -> bytes:
    """The answer of `:batchEmbedContents`."""
    return _encode({"embeddings": [{"values": vector} for vector in made.vectors]})
