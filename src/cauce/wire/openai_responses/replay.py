"""Streamed responses that are kept: recorded on a tape while they pass, and the same events made of it again."""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Attempt, Delta, Status
from cauce.wire.openai_responses.decode import ResponsesDecoder
from cauce.wire.openai_responses.render import ResponsesProjector
from cauce.wire.openai_responses.response import Head, head_of

_FAST = 1


class _Tape(msgspec.Struct, array_like=True):
    head: Head
    deltas: list[Delta]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Tape).decode


class Recorder:
    """A projector that remembers what it projected, if asked to `keep` it."""

    def __init__(self, head: Head, *, keep: bool) -> None:
        self._head = head
        self._projector = ResponsesProjector(head)
        self._deltas: list[Delta] | None = [] if keep else None

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of `deltas`, ready to be written at once."""
        if self._deltas is not None:
            self._deltas.extend(deltas)
        return self._projector.feed(deltas)

    @property
    def response(self) -> dict[str, Any] | None:
        """The whole response, once it has ended."""
        return self._projector.response

    def tape(self) -> bytes:
        """What was projected, for `replay`."""
        told: list[Delta] = [delta for delta in self._deltas or () if not isinstance(delta, Status | Attempt)]
        return zlib.compress(_encode(_Tape(self._head, told)), _FAST)


def replay(body: bytes, tape: bytes, after: int) -> bytes:
    """The events of the response `body` whose sequence number is greater than `after`."""
    if tape:
        played = _decode(zlib.decompress(tape))
    else:
        # It came whole and was never numbered: any numbers will do, as long as they are always the same.
        deltas = ResponsesDecoder("kept").completion(body)
        played = _Tape(head_of(msgspec.json.decode(body, type=dict[str, Any])), deltas)
    events = ResponsesProjector(played.head).feed(played.deltas).split(b"\n\n")[:-1]
    return b"".join([event + b"\n\n" for event in events[after + 1 :]])
