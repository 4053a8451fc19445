"""Responses that are kept: recorded on a tape while they pass, or from a log, and the same events made of it again."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Status
from cauce.domain.errors import Conflict
from cauce.domain.stream import Record
from cauce.wire.numbering import START, Cursor, Numbered
from cauce.wire.openai_responses.decode import ResponsesDecoder
from cauce.wire.openai_responses.logged import LoggedProjector
from cauce.wire.openai_responses.render import ResponsesProjector
from cauce.wire.openai_responses.response import Head, head_of

_FAST = 1
_END = b"\n\n"


class _Tape(msgspec.Struct, array_like=True):
    """`logged`: these are the records of a log, from record 1 on. `queued`: as `LoggedProjector` has it."""

    head: Head
    deltas: list[Delta]
    logged: bool = False
    queued: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Tape).decode


class Recorder:
    """A projector that remembers what it projected, if asked to `keep` it. `now` tells the time, in UNIX seconds."""

    def __init__(self, head: Head, now: Callable[[], float], *, keep: bool) -> None:
        self._head = head
        self._now = now
        self._projector = ResponsesProjector(head)
        self._deltas: list[Delta] | None = [] if keep else None

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of `deltas`, ready to be written at once."""
        last = deltas[-1]
        if isinstance(last, Finish):
            deltas = (*deltas[:-1], last.kept(self._now()))
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


def tape_of(head: Head, deltas: list[Delta], *, queued: bool) -> bytes:
    """The tape of a log's records, all of them."""
    return zlib.compress(_encode(_Tape(head, deltas, True, queued)), _FAST)


class After:
    """Records in, the frames that come after the event with number `number` out. Feed it all records, from record 1 on."""

    __slots__ = ("_had", "_numbered")

    def __init__(self, numbered: Numbered, number: int) -> None:
        self._numbered = numbered
        self._had = number + 1

    @property
    def seq(self) -> int:
        """Number of the last record that was fed."""
        return self._numbered.seq

    def feed(self, records: Sequence[Record]) -> bytes:
        """The frames of `records` that its reader has not had, ready to be written at once."""
        frames = self._numbered.feed(records)
        if not self._had:
            return frames
        events = frames.split(_END)[:-1]
        had = min(self._had, len(events))
        self._had -= had
        return b"".join([event + _END for event in events[had:]])

    @property
    def ahead(self) -> int:
        """Events its reader says it has had that have not been fed yet."""
        return self._had


def numbered(head: Head, after: Cursor | int, *, queued: bool) -> Numbered | After:
    """What shows a log to a reader that has had everything up to a cursor, or the event with that number (-1: none)."""
    projector = LoggedProjector(head, queued=queued)
    if isinstance(after, Cursor):
        return Numbered(projector, after)
    return After(Numbered(projector, START), after)


def ahead(tail: int) -> Conflict:
    """The error of a reader who says that it has had what there is not."""
    return Conflict(
        "this response has no such event: drop your copy and read from the start", reason="records_lost", tail=tail
    )


def replay(body: bytes, tape: bytes, after: Cursor | None, number: int) -> bytes:
    """The events of the response `body` after the cursor, which only a tape of a log knows, else after the event with that number (-1: all
    of them).

    Raises `Conflict` if there is no such event.
    """
    if tape:
        played = _decode(zlib.decompress(tape))
    else:
        # It came whole and was never numbered: any numbers will do, as long as they are always the same.
        deltas = ResponsesDecoder("kept").completion(body)
        played = _Tape(head_of(msgspec.json.decode(body, type=dict[str, Any])), deltas)
    if played.logged:
        records = [Record(seq, 0, delta) for seq, delta in enumerate(played.deltas, 1)]
        shown = numbered(played.head, number if after is None else after, queued=played.queued)
        events_after = shown.feed(records)
        if shown.ahead if isinstance(shown, After) else after is not None and after.seq > len(records):
            raise ahead(len(records))
        return events_after
    events = ResponsesProjector(played.head).feed(played.deltas).split(_END)[:-1]
    if number >= len(events):
        raise ahead(len(events))
    return b"".join([event + _END for event in events[number + 1 :]])
