"""The log a stream is written to and read from.

Rules every adapter keeps: sequence numbers are dense from 1 and assigned inside the append; an append is conditional on the
epoch and tail of its `Hold`, in the transaction that writes; records, state and bills of one commit appear together or not at
all; nothing follows a terminal record; what `read` returns has been committed.
"""

from collections.abc import Sequence
from typing import Protocol

from cauce.domain.errors import Gone, Overloaded
from cauce.domain.stream import (
    Commit,
    Created,
    Erased,
    Head,
    History,
    Hold,
    NewStream,
    Record,
    Renewed,
    StreamKey,
    Unreadable,
    Whose,
)

EARLY = 60.0
"""Seconds that the cancel of an unknown stream is remembered: it may have overtaken what makes the stream."""

MOST_EARLY = 500
"""Such cancels that are remembered of one principal; beyond them the oldest ones go."""


class Fenced(Exception):
    """The hold is stale: somebody else owns the stream, or it has ended. Close the upstream and write nothing more."""


class Cancelled(Exception):
    """A cancel was requested: only the `Finish` of a cancelled stream may still be appended, alone but for bills."""


class Full(Exception):
    """The stream has reached its limits: only its `Finish` may still be appended."""


class LogUnavailable(Overloaded):
    """What was to be written has not been acknowledged for too long. It may have been written all the same.

    The stream stays open and can be taken over once its log writes again.
    """


def unreadable(key: StreamKey) -> Gone:
    """What whoever reads a stream gets that is in the log in another form than this version knows."""
    return Gone(f"stream {key.id!r} cannot be read: another version of Cauce has written it, or it is damaged")


class StreamLog(Protocol):
    async def create(self, new: NewStream) -> Created:
        """Create the stream (T1) with record 1, `Status("accepted")`, or say that the key is known. One whose cancel came before it is
        made with its cancel flag set, in the same transaction.

        Raises `Gone` once it has expired, `LogUnavailable`.
        """
        ...

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        """Append in one step; returns the hold for the next. One append of a hold at a time.

        Raises `Fenced`, `Cancelled`, `Full`, `LogUnavailable`, and ValueError for a state the table does not allow: nothing is
        written then, except perhaps at `LogUnavailable`.
        """
        ...

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        """Records after sequence number `after`, at most `limit`; empty at the tail. Raises `Gone` once expired.

        Of what another node appends, this one hears in `wait`.
        """
        ...

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        """Whether the tail is past `after`, within `seconds` (None: as long as it takes): at once if it is already, so no
        wake-up is lost. Raises `Gone` once expired."""
        ...

    async def hears(self, key: StreamKey, seq: int) -> bool:
        """Whether record `seq` is in the log. Where this process has not heard yet that it is, it returns once it has.

        What is appended is there before whoever appended it hears so, and others may have shown it meanwhile. Raises `Gone` once expired.
        """
        ...

    async def head(self, key: StreamKey) -> Head | None:
        """The stream's head, or None if the key is unknown. Raises `Gone` once expired."""
        ...

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        """Of `principal`'s open streams of `group` the one that was created last, None if there is none."""
        ...

    async def history(self, key: StreamKey) -> History:
        """All there is of the stream, for who has claimed it: readers wait for that, so no herd of them is in front of it.

        Raises `Gone` once expired or unknown, `LogUnavailable`.
        """
        ...

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        """Set the cancel flag for good (nothing changes on an ended stream). Returns the head after it.

        None if the stream is unknown: the cancel is remembered for `EARLY` seconds then, wherever the stream is made. Raises `Gone` once
        expired, `LogUnavailable`.
        """
        ...

    async def orphans(self, limit: int) -> Sequence[Head | Unreadable]:
        """Open streams whose holder is gone, the oldest first; also those that this version cannot read."""
        ...

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        """Take over an orphan (T6), for `node`: of several that try, one gets the hold. None: it is no orphan any more."""
        ...

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        """Say that their holder still works, for streams that are silent: an append says it too. One answer for each hold."""
        ...

    async def release(self, holds: Sequence[Hold]) -> None:
        """Give up holds: their streams are orphans at once. Stale ones are passed over."""
        ...

    def attach(self, key: StreamKey) -> int:
        """A new reader is here; returns its number."""
        ...

    def detach(self, key: StreamKey, reader: int) -> None:
        """`reader`, which was attached, has left."""
        ...

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        """`reader` has been sent records up to `seq`. Counts only for the reader that attached last; best effort.

        The next append writes down where it is, for whoever takes the stream over: at its tail, while the reader is here and keeps up.
        """
        ...

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        """There are readers of these now, for the process that writes them. Those that have ended or are unknown are passed over."""
        ...

    async def unseen(self, key: StreamKey) -> float | None:
        """Seconds since `seen` was last told of the stream; None if it never was. By the log's own clock."""
        ...

    async def erase(self, whose: Whose) -> Erased:
        """Delete those of the streams that have ended, requests, records and bills, and have them expire by that (T10). Cancel the others,
        which are deleted once they have ended, whoever holds them: by `sweep`, if nobody erases them again before.

        What was begun is gone on with by `sweep` or by the next call, should it be cut short. What has expired stays so. Raises
        `LogUnavailable`.
        """
        ...

    async def sweep(self, limit: int) -> int:
        """Have streams expire whose retention is over (T10), and delete what is left of those before, `limit` of each at most.

        Returns how much there was to do: 0 when nothing was due.
        """
        ...

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        """Streams that have ended and whose answers are not known to be where they are to be kept, the oldest first. Those that were made
        `settled` and those that have expired are not among them. Raises `LogUnavailable`."""
        ...

    async def settle(self, key: StreamKey) -> None:
        """The answer of this stream, which has ended, is where it is to be kept. Nothing changes on one that is open or unknown. Raises
        `LogUnavailable`."""
        ...


class Startable(StreamLog, Protocol):
    """A log with what it needs around its work."""

    async def start(self) -> None:
        """Begin. Raises `LogUnavailable` where its server does not answer yet."""
        ...

    async def stop(self) -> None:
        """Write what waits, and let go."""
        ...
