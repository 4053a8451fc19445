"""Servers that break one rule each, as small subclasses of what is shipped, and the run that has to find it out.

A run without violations says nothing until these are caught. Each names the invariant it must be caught by.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cauce.domain.delta import Finish
from cauce.domain.request import Request
from cauce.domain.stream import AttemptRow, Head, Hold, Record, Renewed, StreamKey
from cauce.engine.recovery import prompt, recovery
from cauce.engine.recovery.rungs import Rungs, rungs
from cauce.engine.streams.bills import Bills, Past
from cauce.engine.streams.producer import Producer
from cauce.engine.streams.streams import Streams
from cauce.engine.streams.tail import READ_AT_ONCE, Waiting
from cauce.engine.streams.takeover import Takeover
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call
from cauce.ports.resilience import RecoverySettings
from cauce.ports.stream_log import Fenced, StreamLog
from cauce.server.leaving import Leaving
from cauce.stores.sqlite.stream_log import SqliteStreamLog
from cauce.stores.sqlite.stream_retention import Sweep
from cauce.stores.sqlite.stream_tables import open_streams
from cauce.stores.sqlite.stream_work import Append
from cauce.stores.sqlite.stream_writer import Refused, StreamWriter, Work
from cauce.testing.chaos import CALM, NodeSettings, Rates, Route
from cauce.testing.chaos.settings import with_streams
from cauce.wire.native.frames import projector
from tests.chaos.mutant import Mutant
from tests.chaos.tool_mutants import BROKEN_CALLS, STALLED, TOOL_MUTANTS
from tests.chaos.way_mutants import WAY_MUTANTS

_LATE = 0.3
"""Seconds that a mutant is late with what it should have done at once."""


class UnfencedAppend(Append):
    """Goes by whatever epoch and tail there are."""

    def apply(self, database: sqlite3.Connection, again: bool) -> Hold:
        found = database.execute("SELECT epoch, tail FROM streams WHERE key = ?", (self.row,)).fetchone()
        mine = self.hold.epoch
        if found is not None:
            self.hold = Hold(self.hold.key, *found)
        written = super().apply(database, again)
        # It says whose they are.
        of = (mine, self.row, written.tail - self.n + 1)
        database.execute("UPDATE segments SET epoch = ? WHERE stream = ? AND first_seq = ?", of)
        return Hold(written.key, mine, written.tail)


class UnfencedLog(SqliteStreamLog):
    """Is not told that somebody else has the stream."""

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        return [Renewed(hold.key, "kept") for hold in holds]


class EagerWriter(StreamWriter):
    """Acknowledges what is in a transaction that it commits later."""

    _due = 0.0

    def _transact(self, batch: list[Any]) -> None:
        if not self.database.in_transaction:
            self.database.execute("BEGIN IMMEDIATE")
            self._due = time.monotonic() + _LATE
        for pending in batch:
            pending.result = pending.work.apply(self.database, pending.again)
        ends = any([getattr(pending.work, "terminal_at", None) is not None for pending in batch])
        others = any([not isinstance(pending.work, Append) for pending in batch])
        if ends or others or time.monotonic() > self._due:
            self.database.execute("COMMIT")
            self._dirty.set()


def _then_nothing(_: Any) -> None:
    return None


class EarlyWriter(StreamWriter):
    """Hands records to readers at once, and writes those of ten appends together."""

    def submit(self, work: Work) -> "asyncio.Future[Any]":
        if not isinstance(work, Append):
            return super().submit(work)
        hold = Hold(work.hold.key, work.hold.epoch, work.hold.tail + work.n)
        work.committed(hold)
        work.committed = _then_nothing
        late: dict[StreamKey, list[Append]] = self.__dict__.setdefault("late", {})
        waiting = late.setdefault(hold.key, [])
        waiting.append(work)
        if len(waiting) >= 10 or work.terminal_at is not None:
            for one in late.pop(hold.key):
                super().submit(one)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answered.set_result(hold)
        return answered


class ApartWriter(StreamWriter):
    """Writes the last records first, and that the stream has ended, and what it cost, a little later."""

    def submit(self, work: Work) -> "asyncio.Future[Any]":
        if not isinstance(work, Append) or work.terminal_at is None or not work.n:
            return super().submit(work)
        after = Hold(work.hold.key, work.hold.epoch, work.hold.tail + work.n)
        end = msgspec.structs.replace(work, hold=after, n=0, data=b"", committed=_then_nothing)
        asyncio.get_running_loop().call_later(5 * _LATE, super().submit, end)
        return super().submit(msgspec.structs.replace(work, steps=(), attempts=(), terminal_at=None))


class LosingWriter(StreamWriter):
    """A store whose answer to a commit is lost now and then: the commit has happened. What is shipped lives with it."""

    def _transact(self, batch: list[Any]) -> None:
        super()._transact(batch)
        if self.commits % 10 == 0:
            raise sqlite3.OperationalError("the answer to a commit was lost")


class RepeatedAppend(Append):
    """Takes an append that is tried again for a new one."""

    def apply(self, database: sqlite3.Connection, again: bool) -> Hold:
        if again:
            [tail] = database.execute("SELECT tail FROM streams WHERE key = ?", (self.row,)).fetchone()
            self.hold = Hold(self.hold.key, self.hold.epoch, tail)
        return super().apply(database, False)


def inclusive(
    stream_id: str, wanted: Any, *, epoch: int = 1, after: int = 0, resumed: bool = False
) -> Any:  # fmt: skip
    """Resumes from the cursor, and not behind it."""
    return projector(stream_id, wanted, epoch=epoch, after=max(0, after - 1), resumed=resumed)


class ClockAppend(Append):
    """Numbers records by the milliseconds of the day."""

    def apply(self, database: sqlite3.Connection, again: bool) -> Hold:
        first = self.hold.tail + 1
        written = super().apply(database, again)
        now = max(written.tail, int(time.time() * 1000) % 86_400_000)
        database.execute("UPDATE streams SET tail = ? WHERE key = ?", (now, self.row))
        moved = (now - self.n + 1, self.row, first)
        database.execute("UPDATE segments SET first_seq = ? WHERE stream = ? AND first_seq = ?", moved)
        return Hold(written.key, written.epoch, now)


class RepeatingStreams(Streams):
    """Asks the model for every request, and looks afterwards whether the stream is there."""

    async def start(self, key: StreamKey, request: Request, scope: Any, request_id: str, *rest: Any) -> Head:
        if await self._log.head(key) is not None:
            call = self._turn.call(request, scope, request_id=request_id, streamed=True)
            self.__dict__.setdefault("again", []).append(asyncio.create_task(self._ask(call)))
        return await super().start(key, request, scope, request_id, *rest)

    async def _ask(self, call: Any) -> None:
        deltas = await self._turn.open(call)
        while await deltas.read():
            pass


class ForgetfulLog(SqliteStreamLog):
    """Keeps a cancel in its memory."""

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        self._followed.cancelled(key)
        return await self.head(key)


async def catching_up(
    log: StreamLog, key: StreamKey, after: int, waiting: Waiting | None = None
) -> AsyncGenerator[Sequence[Record], None]:
    """Replays what there is, and then subscribes to what comes."""
    while batch := await log.read(key, after, READ_AT_ONCE):
        after = batch[-1].seq
        yield batch
        if isinstance(batch[-1].delta, Finish):
            return
    await asyncio.sleep(_LATE / 3)
    head = await log.head(key)
    after = after if head is None or head.ended else max(after, head.tail)
    while True:
        batch = await log.read(key, after, READ_AT_ONCE)
        if batch:
            after = batch[-1].seq
            yield batch
            if isinstance(batch[-1].delta, Finish):
                return
        else:
            await log.wait(key, after)


class LeftOpen(Producer):
    """Reads on at the provider, though the stream is another's."""

    async def _read(self, call: Any) -> None:
        reading = asyncio.create_task(super()._read(call))
        self.__dict__["reading"] = _KEPT.setdefault(id(reading), reading)
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            if self._end is not None or self.leaving:
                reading.cancel()
            raise


_KEPT: dict[int, Any] = {}


class NoTakeover(Takeover):
    """Looks for nobody's streams never."""

    async def adopt(self, node: str, life: Any) -> int:
        return 0


class PayingTwice(Bills):
    """Has the ledger take what went down with another process twice."""

    def write(self, entry: Entry) -> None:
        super().write(entry)
        super().write(msgspec.structs.replace(entry))


class PayingNothing(Bills):
    """Has the ledger never hear of what went down with another process."""

    def entry(self, past: Past, row: AttemptRow, now: float) -> None:
        return None


def continued_too_late(request: Request, delivered: str) -> Request:
    """Hands the model a beginning that is not what was committed."""
    return prompt.continued(request, delivered[:-3])


def nothing_passes(_: Exception) -> bool:
    """Takes every failure for one that no other attempt can mend."""
    return False


class Tireless(recovery._Answer):
    """Has a budget that nothing uses up."""

    def _has_budget(self) -> bool:
        return True


def unbidden(call: Call, delivered: Any) -> Rungs:
    """Takes every route for one that goes on."""
    willing = [msgspec.structs.replace(one, midstream="continue") for one in call.candidates]
    return rungs(msgspec.structs.replace(call, candidates=tuple(willing)), delivered)


def synced_lazily(path: Path, _: Any) -> sqlite3.Connection:
    """Says that what it acknowledges is synced, and leaves that for later."""
    return open_streams(path, "normal")


class SweepsOpen(Sweep):
    """Takes what was made a second ago for old, ended or not."""

    def apply(self, database: sqlite3.Connection, again: bool) -> Any:
        database.execute("UPDATE streams SET due = 1 WHERE created < ? AND terminal_at IS NULL", (self.now - 1,))
        return super().apply(database, again)


class TimedAppend(UnfencedAppend):
    """Goes by the lease: whoever has one by his own clock may write."""

    def apply(self, database: sqlite3.Connection, again: bool) -> Hold:
        found = database.execute("SELECT lease_until FROM streams WHERE key = ?", (self.row,)).fetchone()
        if found is not None and found[0] < time.time():
            raise Refused(Fenced())
        return super().apply(database, again)


_ONE_NODE = {
    "streams": 16,
    "pieces": 90,
    "pause": 25,
    "length": 1200,
    "spread": 1.0,
    "seconds": 20.0,
    "rates": msgspec.structs.replace(CALM, drop=1.0),
}
_TWO_NODES = {**_ONE_NODE, "nodes": 2, "streams": 10, "pieces": 110, "pause": 60, "seconds": 14.0}
_POWER = {**_ONE_NODE, "seconds": 40.0, "harm": {"power loss": 2}, "wires": ("openai-chat",)}
_LOSES = {
    **_POWER,
    "wires": (),
    "loses": True,
    "harm": {"power loss": 4},
    "pieces": 200,
    "length": 2600,
    "window": (0.3, 0.6),
}
_LOG = "cauce.stores.sqlite.stream_log"

_KILLED = {**_ONE_NODE, "spread": 0.3, "rates": CALM, "harm": {"kill": 1}, "window": (0.4, 0.6)}

_ALL = (
    Mutant(
        "no fence",
        "an append is conditional on epoch and tail",
        ("I1", "I3", "I4"),
        {f"{_LOG}:Append": UnfencedAppend, "cauce.bootstrap.streaming:SqliteStreamLog": UnfencedLog},
        {**_TWO_NODES, "pause": 80, "seconds": 11.0, "harm": {"stop": 1}, "window": (0.1, 0.3)},
    ),
    Mutant(
        "acknowledge before the commit",
        "what is acknowledged is committed",
        ("I1",),
        {f"{_LOG}:StreamWriter": EagerWriter},
        {**_ONE_NODE, "harm": {"kill": 1}},
    ),
    Mutant(
        "deliver before the commit",
        "a record reaches readers after its commit",
        ("I1",),
        {f"{_LOG}:StreamWriter": EarlyWriter},
        {**_ONE_NODE, "harm": {"kill": 1}, "seconds": 10.0},
    ),
    Mutant(
        "end apart from its state",
        "the end, its state and its bills are one transaction",
        ("I5", "I7"),
        {f"{_LOG}:StreamWriter": ApartWriter},
        {**_ONE_NODE, "pieces": 40, "spread": 3.0, "streams": 40, "harm": {"kill": 4}},
    ),
    Mutant(
        "resume from the cursor, not behind it",
        "what a reader has had it is not sent again",
        ("I1",),
        {"cauce.server.wires:native_projector": inclusive},
        _ONE_NODE,
    ),
    Mutant(
        "number records by the clock",
        "sequence numbers are dense, and made in the append",
        ("I1",),
        {f"{_LOG}:Append": ClockAppend},
        {**_ONE_NODE, "streams": 4, "seconds": 6.0},
    ),
    Mutant(
        "ask again for a repeated request",
        "the id of a stream is an idempotency key",
        ("I7",),
        {"cauce.bootstrap.streaming:Streams": RepeatingStreams},
        {**_ONE_NODE, "rates": msgspec.structs.replace(CALM, duplicate=1.0)},
    ),
    Mutant(
        "pay twice for what went down",
        "an attempt that went down with its server is billed once",
        ("I7",),
        {"cauce.bootstrap.running:Bills": PayingTwice},
        _KILLED,
    ),
    Mutant(
        "pay nothing for what went down",
        "an attempt that went down with its server is billed",
        ("I7",),
        {"cauce.bootstrap.running:Bills": PayingNothing},
        _KILLED,
    ),
    Mutant(
        "keep a cancel in memory",
        "a cancel is durable, and reaches every node",
        ("I6",),
        {"cauce.bootstrap.streaming:SqliteStreamLog": ForgetfulLog},
        {**_TWO_NODES, "rates": msgspec.structs.replace(CALM, cancel=1.0), "pause": 30},
    ),
    Mutant(
        "catch up, then subscribe",
        "replay and live are one loop",
        ("I2",),
        {"cauce.engine.streams.streams:follow": catching_up},
        _ONE_NODE,
    ),
    Mutant(
        "take a retried append for a new one",
        "what was not acknowledged is tried again as it is, and applied once",
        ("I3",),
        {f"{_LOG}:StreamWriter": LosingWriter, f"{_LOG}:Append": RepeatedAppend},
        _ONE_NODE,
    ),
    Mutant(
        "leave the upstream open when fenced",
        "whoever is fenced off closes its upstream",
        ("I9",),
        {"cauce.engine.streams.producing:Producer": LeftOpen},
        {**_TWO_NODES, "pieces": 150, "pause": 80, "seconds": 20.0, "harm": {"stop": 1}, "window": (0.05, 0.1)},
    ),
    Mutant(
        "leave orphans alone",
        "a stream whose node is gone is taken over in time",
        ("I11",),
        {"cauce.engine.streams.streams:Takeover": NoTakeover},
        {**_TWO_NODES, "pause": 40, "seconds": 9.0, "harm": {"kill": 1}, "window": (0.1, 0.3)},
    ),
    Mutant(
        "hand over less than was committed",
        "a provider goes on with exactly what was committed",
        ("I3",),
        {"cauce.engine.recovery.recovery:continued": continued_too_late},
        {**_ONE_NODE, "rates": Rates(1.0, 0, 0, 0, 0, 0)},
    ),
    Mutant(
        "give up at the first failure",
        "an answer that breaks is gone on with",
        ("I12",),
        {"cauce.engine.recovery.recovery:_passes": nothing_passes},
        {**_ONE_NODE, "rates": Rates(0.7, 0, 0, 0, 0, 0)},
    ),
    Mutant(
        "say that it is synced",
        "what is acknowledged survives a power cut",
        ("I1",),
        {"cauce.stores.sqlite.stream_writer:open_streams": synced_lazily},
        {**_ONE_NODE, "harm": {"power loss": 1}},
    ),
    Mutant(
        "fence by the clock",
        "clocks decide who goes on, never who may write",
        ("I3",),
        {f"{_LOG}:Append": TimedAppend, "cauce.bootstrap.streaming:SqliteStreamLog": UnfencedLog},
        {**_TWO_NODES, "pause": 40, "seconds": 11.0, "harm": {"move the clock": 2}, "window": (0.1, 0.5)},
    ),
    Mutant(
        "sweep what is open",
        "only what has ended is swept",
        ("I1",),
        {f"{_LOG}:Sweep": SweepsOpen},
        {**_ONE_NODE, "streams": 6, "seconds": 3.0},
    ),
    Mutant(
        "cancel what its reader leaves",
        "leaving is not cancelling",
        ("I6",),
        {"cauce.server.routes.streams:_STAYING": Leaving("cancel")},
        {**_ONE_NODE, "streams": 8, "steady": ()},
    ),
    Mutant(
        "go on for ever",
        "an answer is gone on with as often as [recovery] attempts says",
        ("I15",),
        {"cauce.engine.recovery.recovery:_Answer": Tireless},
        {**_ONE_NODE, "rates": Rates(0.7, 0, 0, 0, 0, 0)},
        msgspec.structs.replace(NodeSettings(), recovery=RecoverySettings(attempts=1)),
    ),
    Mutant(
        "go on where the route forbids it",
        'midstream = "fail" ends an answer where it breaks',
        ("I15",),
        {"cauce.engine.recovery.recovery:rungs": unbidden},
        {**_ONE_NODE, "rates": Rates(0.7, 0, 0, 0, 0, 0)},
        msgspec.structs.replace(NodeSettings(), routes=(Route("fail"),)),
    ),
)

LOSING = Mutant("answers of the store are lost", "", (), {f"{_LOG}:StreamWriter": LosingWriter}, _ONE_NODE)
"""No mutant: what the retried append is to be told apart from. It breaks nothing."""

POWER = Mutant("power loss", "", (), {}, _POWER)
POWER_NORMAL = Mutant(
    "power loss with what is not synced",
    "",
    (),
    {},
    _LOSES,
    with_streams(synchronous="normal"),
)
"""No mutants either: the shipped server, which loses nothing, and, told not to wait for the disk, says what it has lost."""

NONE = Mutant("none", "", (), {})
"""The shipped server."""

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (*_ALL, *TOOL_MUTANTS, *WAY_MUTANTS, BROKEN_CALLS, STALLED, LOSING, POWER, POWER_NORMAL, NONE)
}
CATCHABLE = (*_ALL, *TOOL_MUTANTS, *WAY_MUTANTS)
"""Those that a run has to find."""
