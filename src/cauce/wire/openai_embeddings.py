"""OpenAI's embeddings, as client and as server speak them.

Upstreams are asked for numbers, which all of them know, unless the client wants base64 and the upstream has it: less work,
and a quarter of the bytes.
"""

import array
import base64
import binascii
import sys
from typing import Annotated, Any, Literal, cast

import msgspec

from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import InvalidRequest, ProviderFailure
from cauce.domain.extra import Extra
from cauce.domain.tokens import estimate_tokens
from cauce.domain.usage import Usage
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.openai_chat.extras import member
from cauce.wire.openai_chat.usage import parse_usage

WIRE = "openai_embeddings"

MOST_INPUTS = 2048
"""Inputs of one request (OpenAI, API reference, "Create embeddings")."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


class EmbeddingsBody(msgspec.Struct):
    """Body of `POST /v1/embeddings`. `input` is a text, tokens, or a list of either."""

    input: str | list[Any]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """What a client asks for, and whether it wants base64 of float32 (little-endian) in place of numbers."""

    request: EmbeddingRequest
    base64: bool


_FORMAT = "encoding_format"
_FIELDS = frozenset(EmbeddingsBody.__struct_fields__)


def parse_request(body: bytes) -> Asked:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    embeddings = check(raw, EmbeddingsBody)
    unknown = rest(raw, _FIELDS)
    as_base64 = embeddings.encoding_format == "base64"
    if as_base64:
        unknown[_FORMAT] = "base64"
    task = unknown.get("task")
    request = EmbeddingRequest(
        embeddings.model,
        _inputs(embeddings.input),
        embeddings.dimensions,
        embeddings.user,
        task if isinstance(task, str) else None,
        Extra(WIRE, unknown) if unknown else None,
    )
    return Asked(request, as_base64)


def _inputs(given: str | list[Any]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (_text(given, "input"),)
    if not given:
        raise InvalidRequest("input: must hold at least one text", field="input")
    if type(given[0]) is int:
        return (_tokens(given, "input"),)
    if len(given) > MOST_INPUTS:
        raise InvalidRequest(
            f"input: holds {len(given)} texts, more than {MOST_INPUTS}: send several requests", field="input"
        )
    return tuple([_input(one, f"input[{place}]") for place, one in enumerate(given)])


def _input(one: Any, path: str) -> str | tuple[int, ...]:
    if isinstance(one, str):
        return _text(one, path)
    if isinstance(one, list):
        return _tokens(cast(list[Any], one), path)
    raise InvalidRequest(f"{path}: must be a string or an array of token ids", field=path)


def _text(text: str, path: str) -> str:
    if not text:
        raise InvalidRequest(f"{path}: must not be empty", field=path)
    return text


def _tokens(tokens: list[Any], path: str) -> tuple[int, ...]:
    if not tokens or not all([type(token) is int and token >= 0 for token in tokens]):
        raise InvalidRequest(f"{path}: must hold token ids only, and at least one", field=path)
    return tuple(tokens)


def render_request(
    request: EmbeddingRequest, model: str, dimensions: str = "dimensions", *, packs: bool = True
) -> dict[str, Any]:
    """The body that asks an upstream of this wire for `model`.

    `dimensions` is its name for the length of a vector; `packs`: it has base64.
    """
    inputs: list[Any] = [one if isinstance(one, str) else list(one) for one in request.inputs]
    # One text is sent as such: not all servers take lists.
    body: dict[str, Any] = {"model": model, "input": inputs[0] if len(inputs) == 1 else inputs}
    if request.dimensions is not None:
        body[dimensions] = request.dimensions
    if request.user is not None:
        body["user"] = request.user
    if request.extra is not None and request.extra.wire == WIRE:
        body.update(request.extra.data)
    if not packs:
        body.pop(_FORMAT, None)
    return body


def parse_answer(body: bytes, request: EmbeddingRequest, provider: str) -> Embeddings:
    """The vectors in `body`, in the order of the inputs of `request`. Raises `ProviderFailure`."""
    try:
        value = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(provider, f"sent invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise _broken(provider, "sent JSON that is not an object")
    answer = cast(dict[str, Any], value)
    data: Any = answer.get("data")
    if not isinstance(data, list):
        raise _broken(provider, "sent no list of embeddings")
    vectors: dict[int, tuple[float, ...]] = {}
    for place, entry in enumerate(cast(list[Any], data)):
        match entry:
            case {"embedding": embedding}:
                index = cast(dict[str, Any], entry).get("index")
                vectors[index if isinstance(index, int) else place] = _vector(embedding, provider)
            case _:
                raise _broken(provider, "sent an entry without an embedding")
    if vectors.keys() != set(range(len(request.inputs))):
        raise _broken(provider, f"sent {len(vectors)} embeddings for {len(request.inputs)} inputs")
    model = answer.get("model")
    return Embeddings(
        tuple([vectors[index] for index in range(len(request.inputs))]),
        _usage(answer, request),
        model if isinstance(model, str) else "",
    )


def _vector(embedding: Any, provider: str) -> tuple[float, ...]:
    if isinstance(embedding, str):
        return _unpacked(embedding, provider)
    try:
        return msgspec.convert(embedding, tuple[float, ...])
    except msgspec.ValidationError as error:
        raise _broken(provider, f"sent an embedding of an unknown shape: {error}") from error


def _usage(answer: dict[str, Any], request: EmbeddingRequest) -> Usage:
    usage = parse_usage(member(answer, "usage"))
    if usage.input_tokens:
        return msgspec.structs.replace(usage, output_tokens=0)
    counts = [estimate_tokens(one) if isinstance(one, str) else len(one) for one in request.inputs]
    return Usage(sum(counts), estimated=True)


def render_answer(embeddings: Embeddings, model: str, *, as_base64: bool) -> bytes:
    """The answer, as JSON. `model` is the name the client asked for."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
        for index, vector in enumerate(embeddings.vectors)
    ]
    tokens = embeddings.usage.input_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": model, "usage": usage})


def _packed(vector: tuple[float, ...]) -> str:
    """`vector` as base64 of float32, little-endian: what the SDKs ask for."""
    values = array.array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")


def _unpacked(packed: str, provider: str) -> tuple[float, ...]:
    values = array.array("f")
    try:
        values.frombytes(binascii.a2b_base64(packed, strict_mode=True))
    except (binascii.Error, ValueError) as error:
        raise _broken(provider, f"sent an embedding that is no base64 of numbers: {error}") from error
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)


def _broken(provider: str, what: str) -> ProviderFailure:
    return ProviderFailure(f"{provider}: {what}", failure="transient", provider=provider, shape=True)
