"""Numbers on the frames of a logged stream, so that a reader can go on where it was cut off: the same for every wire.

A record of the log gives no frame, one, or several. The last frame of record N carries `id: N`, the j-th of the others `id: N.j`.
Whoever sends one of these back has had everything up to that frame, and gets the next. A part of a record that is none on this wire
was had on another: the whole record is sent, since nobody knows what of it was shown there.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.stream import Record

RETRY_MS = 1000
"""Milliseconds a client should wait before it reconnects."""

_CURSOR = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?")
_END = b"\n\n"


class Projector(Protocol):
    """Deltas in, a wire's frames out: a fold without clock or randomness."""

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The frames of `deltas`, ready to be written at once."""
        ...


class Cursor(msgspec.Struct, frozen=True):
    """The last frame a reader has had: the `frame`-th of record `seq`, or all of that record (0). 0 of record 0: nothing yet."""

    seq: int = 0
    frame: int = 0

    @property
    def folded(self) -> int:
        """The last record it has had all frames of."""
        return self.seq - 1 if self.frame else self.seq

    def later(self, other: "Cursor") -> bool:
        """Whether its reader has had more than that of `other`."""
        return (self.folded, self.frame) > (other.folded, other.frame)


START = Cursor()


def parse_cursor(text: str) -> Cursor | None:
    """The cursor `text` says, `N` or `N.j`; None if it says none."""
    match = _CURSOR.fullmatch(text)
    return None if match is None else Cursor(int(match[1]), int(match[2] or 0))


class Numbered:
    """Records in, numbered frames out. Feed it all records, from record 1 on: those its reader has had are folded only.

    `retry`: the very first frame says how long a client should wait before it reconnects. It is a field of that frame and no block
    of its own, since some SDKs take every block for JSON.
    """

    __slots__ = ("_after", "_projector", "_retry", "_seq")

    def __init__(self, projector: Projector, after: Cursor = START, *, retry: int = RETRY_MS) -> None:
        """`retry` is in milliseconds; 0 says nothing of it."""
        self._projector = projector
        self._after = after
        self._retry = b"retry: %d\n" % retry if retry else b""
        self._seq = 0

    @property
    def seq(self) -> int:
        """Number of the last record that was fed."""
        return self._seq

    def feed(self, records: Sequence[Record]) -> bytes:
        """The frames of `records` that lie after the cursor, ready to be written at once."""
        out: list[bytes] = []
        seen = self._after.folded
        for record in records:
            self._seq = seq = record.seq
            frames = self._projector.feed((record.delta,))
            if not frames:
                continue
            retry, self._retry = self._retry, b""
            if seq <= seen:
                continue
            if frames.find(_END) == len(frames) - 2:
                # What nearly every record is: one frame.
                out.append(b"id: %d\n%b%b" % (seq, retry, frames))
                continue
            self._several(frames, retry, out)
        return b"".join(out)

    def _several(self, frames: bytes, retry: bytes, out: list[bytes]) -> None:
        blocks = frames.removesuffix(_END).split(_END)
        had = self._after.frame if self._seq == self._after.seq else 0
        if had >= len(blocks):
            # Its reader had so many frames of it on another wire.
            had = 0
        for place, block in enumerate(blocks, 1):
            number = b"%d" % self._seq if place == len(blocks) else b"%d.%d" % (self._seq, place)
            if place > had:
                out.append(b"id: %b\n%b%b\n\n" % (number, retry if place == 1 else b"", block))


class Unnumbered:
    """The same without numbers, for wires whose clients know none: they read from the start, or not at all."""

    __slots__ = ("_projector", "_seq")

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._seq = 0

    @property
    def seq(self) -> int:
        """Number of the last record that was fed."""
        return self._seq

    def feed(self, records: Sequence[Record]) -> bytes:
        """The frames of `records`."""
        self._seq = records[-1].seq
        return self._projector.feed([record.delta for record in records])
