"""A stream as one row of a database: which columns are read of it, and what they say."""

from collections.abc import Sequence
from typing import Any

from cauce.domain.stream import Head, Record, StreamKey, Unreadable
from cauce.stores.shelf import UNREADABLE, Shelved, Stored, all_of
from cauce.stores.stream_records import decode, decode_attempt, decode_request, decode_upstream, records

COLUMNS = """key, principal, id, request, request_hash, created, state, epoch, tail, cancel_requested, terminal_at, reader_mark,
    cancel_reason, wire, policy, upstream, bytes"""

SEGMENT = "first_seq, epoch, format, data"

_READ_ALONG = -1
"""The mark of a stream whose newest reader had all there was when it was written last: it has that, too, for all that is known."""


def stored(found: tuple[Any, ...]) -> Stored:
    """The stream of which `found` are the `COLUMNS`."""
    row, principal, id, request, digest, created, state, epoch, tail, cancelled, terminal_at, mark, *rest = found
    reason, wire, policy, upstream, size = rest
    head: Head | Unreadable | None = None
    key = StreamKey(principal, id)
    if state != "expired":
        try:
            head = Head(
                key,
                decode_request(request),
                digest,
                created,
                state,
                epoch,
                tail,
                bool(cancelled),
                terminal_at,
                tail if mark == _READ_ALONG else mark,
                reason,
                wire,
                policy,
                None if upstream is None else decode_upstream(upstream),
            )
        except UNREADABLE:
            head = Unreadable(key, created, state, epoch, bool(cancelled), reason)
    return Stored(row, state, epoch, tail, bool(cancelled), size, head)


def of_segment(first: int, epoch: int, format: int, data: bytes) -> list[Record]:
    """The records of a `SEGMENT`. Raises `UNREADABLE`."""
    return records(first, epoch, decode(data, format))


def shelved(
    found: tuple[Any, ...], segments: Sequence[tuple[int, int, int, bytes]], bills: Sequence[tuple[bytes]]
) -> Shelved:
    """All of the stream of which `found` are the `COLUMNS`: of its segments the `SEGMENT`, of its bills the data."""
    return Shelved(
        stored(found),
        all_of(lambda: [record for segment in segments for record in of_segment(*segment)]),
        all_of(lambda: [decode_attempt(data) for (data,) in bills]),
    )
