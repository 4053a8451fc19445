"""Answers as bytes: the deltas they came in, so that a stream is replayed as the stream it was, or the vectors.

Plain text, which most deltas are, is a string; any other delta is itself.
"""

from collections.abc import Iterable, Sequence

import msgspec

from cauce.domain.delta import Delta, Finish, Status, Text
from cauce.domain.embedding import Embeddings
from cauce.domain.usage import Usage

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str | Delta]).decode
_decode_vectors = msgspec.msgpack.Decoder(Embeddings).decode


def encode(deltas: Iterable[Delta]) -> tuple[bytes, int] | None:
    """The bytes, and how many deltas they hold; None if they cannot be written. Given again, the answer costs nothing."""
    pieces = [_piece(delta) for delta in deltas if type(delta) is not Status]
    try:
        return _encode(pieces), len(pieces)
    except (OverflowError, ValueError):
        # A number or a string that only JSON can hold.
        return None


def decode(encoded: bytes) -> tuple[Delta, ...] | None:
    """The deltas; None if another version wrote them."""
    try:
        pieces = _decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return tuple([Text(piece) if type(piece) is str else piece for piece in pieces])  # pyright: ignore[reportReturnType]


def encode_vectors(made: Embeddings) -> bytes | None:
    """The same for vectors."""
    try:
        return _encode(msgspec.structs.replace(made, usage=gratis(made.usage)))
    except (OverflowError, ValueError):
        return None


def decode_vectors(encoded: bytes) -> Embeddings | None:
    """The vectors; None if another version wrote them."""
    try:
        return _decode_vectors(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def free(deltas: Sequence[Delta]) -> tuple[Delta, ...]:
    """`deltas` of an answer that nobody pays for: the tokens are told, the cost is none."""
    return tuple([_free(delta) if type(delta) is Finish else delta for delta in deltas])


def _piece(delta: Delta) -> str | Delta:
    if type(delta) is Text:
        plain = delta.extra is None and not delta.choice and not delta.begins and not delta.logprobs
        return delta.text if plain else delta
    return _free(delta) if type(delta) is Finish else delta


def gratis(usage: Usage) -> Usage:
    """`usage` of an answer that nobody pays for."""
    return msgspec.structs.replace(usage, cost=0.0, cost_source="priced")


def _free(finish: Finish) -> Finish:
    return msgspec.structs.replace(finish, usage=gratis(finish.usage))
