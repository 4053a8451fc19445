"""What keeps the records of streams outside of memory, as `stores.followed` asks for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from cauce.domain.stream import AttemptRow, Head, Record, State, StreamKey, Unreadable
from cauce.stores.live_streams import LiveStream

UNREADABLE = (ValueError, TypeError, KeyError, RecursionError)
"""What reading something stored raises that another version has written, or that is damaged."""

T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """A stream as the store has it. `row` is the store's own name for it, `bytes` those of its records. `head` None: expired."""

    row: int | str
    state: State
    epoch: int
    tail: int
    cancelled: bool
    bytes: int
    head: Head | Unreadable | None


class Shelved(msgspec.Struct, frozen=True):
    """All there is of a stream: see `domain.stream.History`."""

    stored: Stored
    records: tuple[Record, ...] | None
    attempts: tuple[AttemptRow, ...] | None


class Page(msgspec.Struct, frozen=True):
    """Records that follow each other, and how many bytes they are in the store."""

    records: list[Record]
    size: int

    def follows(self, after: int) -> bool:
        """Whether there are some, from `after` on and without holes."""
        records = self.records
        return bool(records) and records[0].seq == after + 1 and records[-1].seq == after + len(records)

    def and_then(self, records: Sequence[Record], size: int, after: int) -> "Page":
        """With those of `records` that come after `after`; all of them are `size` bytes."""
        wanted = [record for record in records if record.seq > after]
        if not wanted:
            return self
        return Page([*self.records, *wanted], self.size + size * len(wanted) // len(records))

    def cut(self, limit: int) -> "Page":
        """The first `limit` of them."""
        if len(self.records) <= limit:
            return self
        return Page(self.records[:limit], self.size * limit // len(self.records))


class Standing(msgspec.Struct, frozen=True):
    """How far a stream has come."""

    tail: int
    epoch: int
    state: State


NOT_THERE = Standing(0, 0, "expired")


class Shelf(Protocol):
    """What keeps the records. Each raises `LogUnavailable`."""

    async def stored(self, key: StreamKey) -> Stored | None:
        """The stream; None if there is none."""
        ...

    async def records(self, live: LiveStream, after: int, limit: int) -> Page:
        """Records after `after`, at most `limit`, and not more than memory should hold."""
        ...

    async def history(self, live: LiveStream) -> Shelved | None:
        """All there is of it, before what others ask; None if there is none."""
        ...

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        """See `ports.stream_log.StreamLog`."""
        ...

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, Standing]:
        """Wait a little; then how those of `waited` stand that may have moved."""
        ...


def all_of(decoded: Callable[[], Sequence[T]]) -> tuple[T, ...] | None:
    """What `decoded` gives; None where it is of another version, or damaged."""
    try:
        return tuple(decoded())
    except UNREADABLE:
        return None
