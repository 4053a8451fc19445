"""The log a stream is written to and read from.

Rules every adapter keeps: sequence numbers are dense from 1 and assigned inside the append; an append is conditional on the
epoch and tail of its `Hold`; nothing follows a terminal record; what `read` returns has been committed.
"""

from collections.abc import Sequence
from typing import Protocol

from cauce.domain.stream import Commit, Created, Head, Hold, NewStream, Record, StreamKey


class Fenced(Exception):
    """The hold is stale: somebody else owns the stream, or it has ended. Close the upstream and write nothing more."""


class Cancelled(Exception):
    """A cancel was requested: only the `Finish` of a cancelled stream may still be appended."""


class StreamLog(Protocol):
    async def create(self, new: NewStream) -> Created:
        """Create the stream with record 1, `Status("accepted")`, or say that the key is known."""
        ...

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        """Append in one step; returns the hold for the next. Raises `Fenced`, `Cancelled`."""
        ...

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        """Records after sequence number `after`, at most `limit`; empty at the tail. Raises `Gone` once expired."""
        ...

    async def wait(self, key: StreamKey, after: int) -> None:
        """Return when the tail is past `after`: at once if it is already, so no wake-up is lost."""
        ...

    async def head(self, key: StreamKey) -> Head | None:
        """The stream's head, or None if the key is unknown."""
        ...

    async def request_cancel(self, key: StreamKey) -> Head | None:
        """Set the cancel flag (nothing changes on an ended stream). Returns the head after it, None if unknown."""
        ...

    def attach(self, key: StreamKey) -> int:
        """A new reader is here; returns its number. Raises `Gone` once expired."""
        ...

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """`reader` has been sent records up to `seq`. Counts only for the reader that attached last; best effort."""
        ...

    async def sweep(self) -> int:
        """Forget streams whose retention is over; returns how many."""
        ...
