"""The log of streams on disk, in `streams.db`: what it acknowledges survives the end of the process, however it ends.

    append -> writer thread (one transaction for all that waits) -> acknowledgement -> ring -> readers

Readers get only what is committed: from the ring of newest records while they keep up, else from the file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cauce.domain.stream import (
    TERMINAL,
    Commit,
    Created,
    Erased,
    Head,
    Hold,
    NewStream,
    Renewed,
    State,
    StreamKey,
    StreamLimits,
    Unreadable,
    Whose,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Fenced
from cauce.stores.followed import Followed
from cauce.stores.followed_log import LEASE, FollowedLog, check
from cauce.stores.sqlite.early_cancels import EarlyCancel
from cauce.stores.sqlite.stream_erasing import Delete, Erase, Found
from cauce.stores.sqlite.stream_reading import StreamReading
from cauce.stores.sqlite.stream_retention import Sweep
from cauce.stores.sqlite.stream_tables import Synchronous
from cauce.stores.sqlite.stream_work import Append, Cancel, Claim, Create, FreeAll, Release, Renew, Seen, Settle
from cauce.stores.sqlite.stream_writer import PATIENCE, StreamWriter
from cauce.stores.stream_records import encode, encode_value, records


class StreamLogOptions(msgspec.Struct, frozen=True):
    """`retention` is in seconds; `max_bytes` bounds the file: beyond it the streams that ended first expire early.

    `lease` None: the file is this process's alone, and what another one left open is an orphan at once. `patience` is the seconds
    that a write waits for the disk to take it.
    """

    retention: float = 86_400.0
    max_bytes: int = 4 * 1024 * 1024 * 1024
    lease: float | None = None
    synchronous: Synchronous = "full"
    patience: float = PATIENCE
    limits: StreamLimits = StreamLimits()


_DEFAULT = StreamLogOptions()


class SqliteStreamLog(FollowedLog):
    """See `ports.stream_log.StreamLog`. `node` names this run of this process and nobody else's."""

    def __init__(self, path: Path, clock: Clock, node: str, options: StreamLogOptions = _DEFAULT) -> None:
        """Open the file. Raises `SchemaError`, and `OSError` when the folder cannot be written."""
        self._clock = clock
        self._node = node
        self._options = options
        self.writer = StreamWriter(path, clock, synchronous=options.synchronous, patience=options.patience)
        self._reading = StreamReading(path, clock)
        super().__init__(Followed(self._reading, clock, shared=options.lease is not None))
        self._left = True
        """Whether there may be orphans: at the start, and after a release."""

    @property
    def up(self) -> bool:
        """Whether the disk takes what is written, as far as was tried."""
        return self.writer.up

    async def start(self) -> None:
        """Begin to write."""
        self.writer.start()

    async def stop(self) -> None:
        """Write what waits, and close the file."""
        await self._followed.stop()
        await self.writer.stop()
        self._reading.close()

    async def create(self, new: NewStream) -> Created:
        data, deltas = encode((new.first,))
        retention = self._options.retention if new.retention is None else new.retention

        def committed(made: tuple[int, str | None] | None) -> None:
            if made is not None:
                self._followed.created(new.key, made[0], records(1, 1, deltas), len(data))

        request = encode_value(new.request)
        work = Create(new, request, data, self._node, self._lease_until(), retention, self._clock.now(), committed)
        made = await self.writer.submit(work)
        if made is not None:
            return self._made(new, made[1])
        return await self._attached(new.key)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        live = await self._written(hold)
        data, deltas = encode(commit.deltas)
        check(self._options.limits, live, hold, commit, len(data))

        def committed(_: Hold) -> None:
            self._followed.appended(live, hold, commit, records(hold.tail + 1, hold.epoch, deltas), len(data))

        work = Append(
            live.row,
            hold,
            len(deltas),
            data,
            commit.steps,
            commit.cancels,
            [(row.n, encode_value(row)) for row in commit.attempts],
            None if commit.upstream is None else encode_value(commit.upstream),
            None if commit.finish is None else self._clock.now(),
            self._lease_until(),
            # Whoever finds the stream after this process died knows that it was being read, and how far.
            self._followed.marks.kept(hold.key, hold.tail),
            committed,
        )
        try:
            return await self.writer.submit(work)
        except Fenced:
            self._followed.refused(live, hold)
            raise

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        if await self.head(key) is None and not await self._cancel_early(key, reason):
            return None

        def committed(_: None) -> None:
            self._followed.cancelled(key)

        await self.writer.submit(Cancel(key, reason, committed))
        return await self.head(key)

    async def orphans(self, limit: int) -> Sequence[Head | Unreadable]:
        if self._options.lease is None and not self._left:
            return ()
        orphaned, facts = self._orphaned()
        # What is released while it looks is looked for the next time.
        self._left = False
        try:
            found = await self._reading.orphans(orphaned, facts, limit)
        except BaseException:
            self._left = True
            raise
        self._left = self._left or bool(found)
        return found

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        orphaned, facts = self._orphaned()

        def committed(found: tuple[int, int, State, int, int] | None) -> None:
            if found is not None:
                row, tail, state, size, cancelled = found
                ours = Hold(head.key, head.epoch + 1, tail)
                self._followed.claimed(head.key, row, ours, state, size, cancelled=bool(cancelled))

        work = Claim(head.key, head.epoch, node, self._lease_until(), orphaned, facts, committed)
        found = await self.writer.submit(work)
        return None if found is None else Hold(head.key, head.epoch + 1, found[1])

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        if self._options.lease is None:
            known = [self._known(hold) for hold in holds]
            if None not in known:
                return [one for one in known if one is not None]
        if not holds:
            return ()
        # Once the file has taken nothing for a lease, others go on: whoever holds streams has to hear of that in time.
        work = Renew(holds, self._lease_until(), _nothing)
        renewed: Sequence[Renewed] = await self.writer.submit(work, self._options.lease)
        for hold, one in zip(holds, renewed, strict=True):
            if one.verdict == "lost":
                self._followed.overtaken(hold)
        return renewed

    async def release(self, holds: Sequence[Hold]) -> None:
        await self.writer.submit(Release(holds, _nothing))
        self._left = True
        self._followed.released(holds)

    async def free_all(self) -> None:
        """Every open stream is an orphan at once. For whoever has the file to itself while it starts."""
        await self.writer.submit(FreeAll(_nothing))

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        await self.writer.submit(Seen(keys, self._clock.now(), _nothing))

    async def unseen(self, key: StreamKey) -> float | None:
        seen = await self._reading.seen(key)
        return None if seen is None else self._clock.now() - seen

    async def erase(self, whose: Whose) -> Erased:
        def committed(found: Found) -> None:
            for key in found.open:
                self._followed.cancelled(key)

        found: Found = await self.writer.submit(Erase(whose, committed))
        left = found.rows
        while left:
            left = left[await self.writer.submit(Delete(left, self._clock.now(), _nothing)) :]
        self._followed.forget(found.ended)
        return Erased(found.ended, found.open)

    async def sweep(self, limit: int) -> int:
        def committed(result: tuple[int, list[StreamKey]]) -> None:
            self._followed.forget(result[1])

        work = Sweep(self._clock.now(), limit, self._options.max_bytes, committed)
        count, _ = await self.writer.submit(work)
        return count

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        return await self._reading.unsettled(limit)

    async def settle(self, key: StreamKey) -> None:
        await self.writer.submit(Settle(key, _nothing))

    def _known(self, hold: Hold) -> Renewed | None:
        """How a hold stands, where nobody but this process can change that; None if that must be looked up."""
        live = self._followed.lives.get(hold.key)
        if live is None:
            return None
        if live.epoch != hold.epoch or live.state in TERMINAL:
            return Renewed(hold.key, "lost")
        return Renewed(hold.key, "cancel" if live.cancelled else "kept")

    async def _cancel_early(self, key: StreamKey, reason: str) -> bool:
        """Cancel a stream that was not there. Whether it is now."""

        def committed(there: bool) -> None:
            if there:
                self._followed.cancelled(key)

        return await self.writer.submit(EarlyCancel(key, reason, self._clock.now(), committed))

    def _lease_until(self) -> float:
        return self._clock.now() + (self._options.lease or LEASE)

    def _orphaned(self) -> tuple[str, dict[str, Any]]:
        """In SQL, which open streams nobody holds."""
        if self._options.lease is None:
            return "(node IS NOT :node OR lease_until = 0)", {"node": self._node}
        return "lease_until <= :now", {"now": self._clock.now()}


def _nothing(_: Any) -> None:
    return None
