"""Records of a stream as bytes, for the logs that keep them outside of memory.

Format 1 is a JSON array with one member per record: a string for plain text, an array of one string for plain reasoning, and an
object with its `type` for everything else. Plain: choice 0 and nothing beside the text.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Delta, Reasoning, Text
from cauce.domain.message import Message
from cauce.domain.request import Request
from cauce.domain.stream import AttemptRow, Record, Upstream

FORMAT = 1

_Member = str | tuple[str] | Delta

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Member]).decode
_decode_request = msgspec.json.Decoder(Request).decode
_decode_attempt = msgspec.json.Decoder(AttemptRow).decode
_decode_upstream = msgspec.json.Decoder(Upstream).decode


def encode(deltas: Sequence[Delta]) -> tuple[bytes, Sequence[Delta]]:
    """`deltas` as bytes, and as they will be read again. In a text whose two halves of a surrogate pair came apart they are one
    character; half a pair, which UTF-8 has no bytes for, becomes U+FFFD."""
    members = [_member(delta) for delta in deltas]
    try:
        return _encode(members), deltas
    except UnicodeEncodeError:
        data = _encode(_scalars(msgspec.to_builtins(members)))
        return data, decode(data)


def decode(data: bytes, format: int = FORMAT) -> list[Delta]:
    """What `encode` was given. Raises ValueError where it is of another `format`, or damaged."""
    if format != FORMAT:
        raise ValueError(f"records of format {format} cannot be read")
    return [_delta(member) for member in _decode(data)]


def records(first: int, epoch: int, deltas: Sequence[Delta]) -> list[Record]:
    """`deltas` with the sequence numbers from `first` on."""
    return [Record(seq, epoch, delta) for seq, delta in enumerate(deltas, first)]


def encode_value(value: Request | Message | AttemptRow | Upstream) -> bytes:
    """The value as bytes: JSON that `decode_request`, `decode_attempt` and `decode_upstream` read."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_scalars(msgspec.to_builtins(value)))


def decode_request(data: bytes) -> Request:
    """See `encode_value`."""
    return _decode_request(data)


def decode_attempt(data: bytes) -> AttemptRow:
    """See `encode_value`."""
    return _decode_attempt(data)


def decode_upstream(data: bytes | str) -> Upstream:
    """See `encode_value`."""
    return _decode_upstream(data)


def _member(delta: Delta) -> _Member:
    if type(delta) is Text:
        if not (delta.choice or delta.extra or delta.begins or delta.logprobs):
            return delta.text
    elif type(delta) is Reasoning and not (delta.choice or delta.extra or delta.begins or delta.signature):
        return (delta.text,)
    return delta


def _delta(member: _Member) -> Delta:
    if type(member) is str:
        return Text(member)
    if type(member) is tuple:
        return Reasoning(member[0])
    return member  # pyright: ignore[reportReturnType]


def _scalars(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_scalars(name): _scalars(member) for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [_scalars(member) for member in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
