"""The log of streams on disk, in `streams.db`: what it acknowledges survives the end of the process, however it ends.

    append -> writer thread (one transaction for all that waits) -> acknowledgement -> ring -> readers

Readers get only what is committed: from the ring of newest records while they keep up, else from the file.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cauce.domain.delta import Status
from cauce.domain.errors import Gone
from cauce.domain.stream import (
    TERMINAL,
    AttemptRow,
    Commit,
    Created,
    Head,
    Hold,
    NewStream,
    Record,
    Renewed,
    State,
    StreamKey,
    StreamLimits,
)
from cauce.ports.clock import Clock
from cauce.ports.stream_log import Fenced, Full, LogUnavailable
from cauce.stores.live_streams import LiveStream, LiveStreams, Marks
from cauce.stores.sqlite.stream_reading import Stored, StreamReading
from cauce.stores.sqlite.stream_tables import Synchronous
from cauce.stores.sqlite.stream_work import Append, Cancel, Claim, Create, Release, Renew, Sweep
from cauce.stores.sqlite.stream_writer import PATIENCE, StreamWriter
from cauce.stores.stream_records import encode, encode_value, records

LEASE = 10.0
"""Seconds that a node may be silent before others take over its streams, where several share one file."""

_POLL = 0.025
"""Seconds between looks whether another process has written."""


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


class SqliteStreamLog:
    """See `ports.stream_log.StreamLog`. `node` names this run of this process and nobody else's."""

    def __init__(self, path: Path, clock: Clock, node: str, options: StreamLogOptions = _DEFAULT) -> None:
        """Open the file. Raises `SchemaError`, and `OSError` when the folder cannot be written."""
        self._clock = clock
        self._node = node
        self._options = options
        self.writer = StreamWriter(path, clock, synchronous=options.synchronous, patience=options.patience)
        self._reading = StreamReading(path)
        self._lives = LiveStreams()
        self._marks = Marks()
        self._watch: asyncio.Task[None] | None = None
        self._left = True
        """Whether there may be orphans: at the start, and after a release."""

    async def start(self) -> None:
        """Begin to write."""
        self.writer.start()

    async def stop(self) -> None:
        """Write what waits, and close the file."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.writer.stop()
        self._reading.close()

    async def create(self, new: NewStream) -> Created:
        first = Status("accepted", facts={"model": new.request.model, "created": int(new.created)})
        data, deltas = encode((first,))
        retention = self._options.retention if new.retention is None else new.retention

        def committed(row: int | None) -> None:
            if row is None:
                return
            live = LiveStream(new.key, row, 0, 1, "queued")
            live.held = True
            live.committed(records(1, 1, deltas), len(data))
            self._lives.put(live)

        request = encode_value(new.request)
        work = Create(new, request, data, self._node, self._lease_until(), retention, committed)
        if await self.writer.submit(work) is not None:
            return Created(self._fresh(new), Hold(new.key, 1, 1))
        head = await self.head(new.key)
        if head is None:
            raise LogUnavailable("the stream was deleted just now: try again", retry_after=1)
        return Created(head, None)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        live = self._lives.get(hold.key)
        if live is None:
            try:
                live = await self._look(hold.key)
            except Gone as error:
                raise Fenced from error
        data, deltas = encode(commit.deltas)
        finish = commit.finish
        limits = self._options.limits
        if finish is None and (live.stored + len(data) > limits.bytes or hold.tail + len(deltas) > limits.records):
            raise Full
        now = self._clock.now()
        steps = commit.steps

        def committed(_: Hold) -> None:
            live.epoch = hold.epoch
            if steps:
                live.state = steps[-1]
            live.committed(records(hold.tail + 1, hold.epoch, deltas), len(data))
            if finish is not None:
                self._lives.ended(live)

        work = Append(
            live.row,
            hold,
            len(deltas),
            data,
            steps,
            [(row.n, encode_value(row)) for row in commit.attempts],
            None if commit.upstream is None else encode_value(commit.upstream),
            None if finish is None else now,
            now + (self._options.lease or LEASE),
            # Whoever finds the stream after this process died knows that it was being read.
            None if self._marks.get(hold.key) is None else -1,
            committed,
        )
        try:
            return await self.writer.submit(work)
        except Fenced:
            if live.epoch == hold.epoch and live.tail == hold.tail:
                # As far as was known here it was right: another process has the stream.
                live.held = False
            self._lives.settle(live)
            raise

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        live = self._lives.get(key) or await self._look(key)
        if (newest := live.newest(after, limit)) is not None:
            return newest
        tail = live.tail
        with _translated():
            found = await self._reading.records(live.row, after, limit)
        if not found:
            self._lives.gone(key)
            raise _expired(key)
        # A commit that this process has not heard of yet is not there yet.
        return found if found[-1].seq <= tail else [record for record in found if record.seq <= tail]

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        live = self._lives.get(key) or await self._look(key)
        if live.tail > after:
            return True
        self._lives.put(live)
        live.waiting += 1
        try:
            self._watch_others()
            async with self._clock.timeout(seconds):
                while live.tail <= after:
                    if live.gone:
                        raise _expired(key)
                    await live.more()
        except TimeoutError:
            return False
        finally:
            live.waiting -= 1
            self._lives.settle(live)
        return True

    async def head(self, key: StreamKey) -> Head | None:
        with _translated():
            stored = await self._reading.stored(key)
        return None if stored is None else self._marked(stored, key)

    async def attempts(self, key: StreamKey) -> Sequence[AttemptRow]:
        live = self._lives.get(key) or await self._look(key)
        with _translated():
            return await self._reading.attempts(live.row)

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        with _translated():
            stored = await self._reading.stored(key)
        if stored is None:
            return None
        live = self._lives.get(key)

        def committed(_: None) -> None:
            if live is not None and live.key == key:
                live.cancelled = True

        await self.writer.submit(Cancel(stored.row, reason, committed))
        return await self.head(key)

    async def orphans(self, limit: int) -> Sequence[Head]:
        if self._options.lease is None and not self._left:
            return ()
        orphaned, facts = self._orphaned()
        with _translated():
            found = await self._reading.orphans(orphaned, facts, limit)
        self._left = bool(found)
        return found

    async def claim(self, head: Head, node: str) -> Hold | None:
        key = head.key
        orphaned, facts = self._orphaned()

        def committed(found: tuple[int, int, State, int, int] | None) -> None:
            if found is not None:
                row, tail, state, size, cancelled = found
                live = self._lives.get(key) or LiveStream(key, row, tail, head.epoch, state)
                live.moved(tail)
                live.held = True
                live.epoch, live.state, live.stored, live.cancelled = head.epoch + 1, state, size, bool(cancelled)
                self._lives.put(live)

        work = Claim(key, head.epoch, node, self._lease_until(), orphaned, facts, committed)
        found = await self.writer.submit(work)
        return None if found is None else Hold(key, head.epoch + 1, found[1])

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        if self._options.lease is None:
            known = [self._known(hold) for hold in holds]
            if None not in known:
                return [one for one in known if one is not None]
        return await self.writer.submit(Renew(holds, self._lease_until(), _nothing)) if holds else ()

    async def release(self, holds: Sequence[Hold]) -> None:
        await self.writer.submit(Release(holds, _nothing))
        self._left = True

    def attach(self, key: StreamKey) -> int:
        return self._marks.attach(key)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        self._marks.mark(key, reader, seq)

    async def sweep(self, limit: int) -> int:
        def committed(result: tuple[int, list[StreamKey]]) -> None:
            for key in result[1]:
                self._lives.gone(key)
                self._marks.forget(key)

        work = Sweep(self._clock.now(), limit, self._options.max_bytes, committed)
        count, _ = await self.writer.submit(work)
        return count

    def _known(self, hold: Hold) -> Renewed | None:
        """How a hold stands, where nobody but this process can change that; None if that must be looked up."""
        live = self._lives.get(hold.key)
        if live is None:
            return None
        if live.epoch != hold.epoch or live.state in TERMINAL:
            return Renewed(hold.key, "lost")
        return Renewed(hold.key, "cancel" if live.cancelled else "kept")

    def _lease_until(self) -> float:
        return self._clock.now() + (self._options.lease or LEASE)

    def _orphaned(self) -> tuple[str, dict[str, Any]]:
        """In SQL, which open streams nobody holds."""
        if self._options.lease is None:
            return "(node IS NOT :node OR lease_until = 0)", {"node": self._node}
        return "lease_until <= :now", {"now": self._clock.now()}

    async def _look(self, key: StreamKey) -> LiveStream:
        """The stream as the file has it now. Raises `Gone`."""
        with _translated():
            stored = await self._reading.stored(key)
        if stored is None or stored.head is None:
            raise _expired(key)
        live = self._lives.get(key)
        if live is None:
            live = LiveStream(key, stored.row, stored.tail, stored.epoch, stored.state)
            live.stored = stored.bytes
            live.cancelled = stored.cancelled
        return live

    def _marked(self, stored: Stored, key: StreamKey) -> Head:
        if stored.head is None:
            raise _expired(key)
        mark = self._marks.get(key)
        return stored.head if mark is None else msgspec.structs.replace(stored.head, reader_mark=mark)

    def _fresh(self, new: NewStream) -> Head:
        return Head(
            new.key, new.request, new.request_hash, new.created, "queued", 1, 1, wire=new.wire, policy=new.policy
        )

    def _watch_others(self) -> None:
        """Look whether other processes write what somebody here waits for, as long as somebody does."""
        if self._options.lease is not None and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._look_around(), name="streams of other processes")

    async def _look_around(self) -> None:
        version = -1
        while waited := self._lives.waited_for():
            with contextlib.suppress(sqlite3.Error):
                now = await self._reading.moved(version)
                if now != version:
                    tails = await self._reading.tails([live.row for live in waited])
                    version = now
                    for live in waited:
                        tail, state = tails.get(live.row, (0, "expired"))
                        if state == "expired":
                            self._lives.gone(live.key)
                            continue
                        live.moved(tail)
                        if state in TERMINAL:
                            self._lives.ended(live)
            await self._clock.sleep(_POLL)


@contextlib.contextmanager
def _translated() -> Generator[None, None, None]:
    """Errors of the file while it is read become `LogUnavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise LogUnavailable("streams cannot be read now: try again", retry_after=1) from error


def _expired(key: StreamKey) -> Gone:
    return Gone(f"stream {key.id!r} has expired")


def _nothing(_: Any) -> None:
    return None
