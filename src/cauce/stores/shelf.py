"""What keeps the records of streams outside of memory, as `stores.followed` asks for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.stream import AttemptRow, Head, Record, State, StreamKey
from cauce.stores.live_streams import LiveStream

UNREADABLE = (ValueError, TypeError, KeyError, RecursionError)
"""What reading something stored raises that another version has written, or that is damaged."""

T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """A stream as the store has it. `row` is the store's own name for it, `bytes` those of its records. `head` None: expired, or
    `unreadable`."""

    row: int | str
    state: State
    epoch: int
    tail: int
    cancelled: bool
    bytes: int
    head: Head | None
    unreadable: bool = False
    name: str = ""
    """Its id."""


class Shelved(msgspec.Struct, frozen=True):
    """All there is of a stream: see `domain.stream.History`."""

    stored: Stored
    deltas: tuple[Delta, ...] | None
    attempts: tuple[AttemptRow, ...] | None


class Shelf(Protocol):
    """What keeps the records. Each raises `LogUnavailable`."""

    async def stored(self, key: StreamKey) -> Stored | None:
        """The stream; None if there is none."""
        ...

    async def records(self, live: LiveStream, after: int, limit: int) -> list[Record]:
        """Records after `after`, at most `limit`, and not more than memory should hold."""
        ...

    async def history(self, live: LiveStream) -> Shelved | None:
        """All there is of it, before what others ask; None if there is none."""
        ...

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        """See `ports.stream_log.StreamLog`."""
        ...

    async def news(self, waited: Sequence[LiveStream]) -> Mapping[StreamKey, tuple[int, State]]:
        """Wait a little; then tail and state of those of `waited` that may have moved."""
        ...


def all_of(decoded: Callable[[], Sequence[T]]) -> tuple[T, ...] | None:
    """What `decoded` gives; None where it is of another version, or damaged."""
    try:
        return tuple(decoded())
    except UNREADABLE:
        return None
