"""Writing one stream's log: an answer is opened, its deltas are appended, the end is appended, whatever happens.

    provider socket -> inbox (bounded: when it is full we stop reading the socket) -> append

The producer takes everything that waits, joins adjacent text, and has one append in flight at a time.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Status, Text
from cauce.domain.errors import CauceError, InternalError, PayloadTooLarge
from cauce.domain.stream import AttemptRow, Commit, Hold, State
from cauce.engine import ending
from cauce.engine.turn import Turn
from cauce.ports.provider import Call
from cauce.ports.stream_log import Cancelled, Fenced, Full, StreamLog

INBOX = 64
"""Batches that may wait between the socket and the log."""

logger = logging.getLogger("cauce.streams")


class Producer:
    """The task behind one stream. `run()` returns when the stream's `Finish` is in the log or the stream is another's."""

    def __init__(self, log: StreamLog, turn: Turn, hold: Hold) -> None:
        self._log = log
        self._turn = turn
        self._hold = hold
        self._inbox: asyncio.Queue[Sequence[Delta]] = asyncio.Queue(INBOX)
        self._noticed: list[Delta] = []
        self._doorbell = asyncio.Event()
        self._state: State = "queued"
        self._attempt: AttemptRow | None = None
        self._unbilled: dict[int, AttemptRow] = {}
        """Rows that no append has taken yet."""
        self._end: Finish | None = None
        self._lost = False
        self._source: asyncio.Task[None] | None = None

    @property
    def hold(self) -> Hold:
        """What it may append to, as far as it knows."""
        return self._hold

    def notice(self, delta: Status | Attempt) -> None:
        """Have `delta` appended: what is going on before content comes."""
        self._noticed.append(delta)
        self._doorbell.set()

    def end(self, finish: Finish) -> None:
        """End the stream so, as soon as what was received is written. Closes the upstream. Idempotent."""
        if self._end is None:
            self._end = finish
            if self._source is not None:
                self._source.cancel()
            self._doorbell.set()

    def lose(self) -> None:
        """The stream is another's: stop, close the upstream, write nothing more."""
        self._lost = True
        self.end(ending.cancelled())

    async def run(self, call: Call) -> None:
        """Open `call` and write its answer to the log. Raises `LogUnavailable`: then the stream is open and nobody writes it."""
        self._source = asyncio.create_task(self._read(call), name=f"upstream of {self._hold.key.id}")
        if self._end is not None:
            self._source.cancel()
        try:
            ended = False
            while not ended:
                deltas = await self._waiting()
                ended = self._lost or await self._append(deltas)
        except Fenced:
            logger.info("stream %s is another's now, or has ended", self._hold.key.id)
        except CauceError:
            raise
        except Exception:
            logger.exception("stream %s: an unexpected error ended it", self._hold.key.id)
            await self._append([ending.failed(_unexpected(), text_delivered=True)])
        finally:
            self._source.cancel()
            await asyncio.gather(self._source, return_exceptions=True)

    async def _read(self, call: Call) -> None:
        """Move the answer into the inbox, ending with a `Finish`."""
        delivered = False
        try:
            deltas = await self._turn.open(call)
            async with aclosing(deltas):
                while batch := await deltas.read():
                    await self._put(batch)
                    delivered = delivered or any(isinstance(delta, Text) for delta in batch)
        except CauceError as error:
            await self._put([ending.failed(error, text_delivered=delivered)])
        except Exception:
            logger.exception("stream %s: an unexpected error ended it", self._hold.key.id)
            await self._put([ending.failed(_unexpected(), text_delivered=delivered)])

    async def _put(self, batch: Sequence[Delta]) -> None:
        await self._inbox.put(batch)
        self._doorbell.set()

    async def _waiting(self) -> list[Delta]:
        """Everything that waits, once something does."""
        while not self._noticed and self._inbox.empty() and self._end is None:
            self._doorbell.clear()
            await self._doorbell.wait()
        deltas, self._noticed = self._noticed, []
        while not self._inbox.empty():
            deltas.extend(self._inbox.get_nowait())
        if self._end is not None and not (deltas and isinstance(deltas[-1], Finish)):
            deltas.append(self._end)
        return _joined(deltas)

    async def _append(self, deltas: list[Delta]) -> bool:
        """Append `deltas`; whether the stream has ended with them."""
        commit = self._commit(deltas)
        try:
            self._hold = await self._log.append(self._hold, commit)
        except Cancelled:
            commit = self._commit([ending.cancelled()])
            self._hold = await self._log.append(self._hold, commit)
        except Full:
            error = PayloadTooLarge("the answer is longer than a stream can be")
            commit = self._commit([ending.failed(error, text_delivered=True)])
            self._hold = await self._log.append(self._hold, commit)
        self._unbilled.clear()
        self._state = commit.state or self._state
        return commit.finish is not None

    def _commit(self, deltas: list[Delta]) -> Commit:
        """`deltas` with the state they lead to and the bills they open and close."""
        last = deltas[-1]
        self._bill(deltas)
        attempts = tuple(self._unbilled.values())
        if not isinstance(last, Finish):
            state: State = self._state if _only_status(deltas) else "running"
            return Commit(tuple(deltas), state if state != self._state else None, attempts=attempts)
        # An answer that is there at once: the stream still runs before it completes.
        through: tuple[State, ...] = ("running",) if last.outcome == "completed" and self._state == "queued" else ()
        return Commit(tuple(deltas), last.outcome, through, attempts)

    def _bill(self, deltas: list[Delta]) -> None:
        """Open and close the rows of attempts that begin and end in `deltas`."""
        rows = self._unbilled
        for delta in deltas:
            row = self._attempt
            if isinstance(delta, Attempt):
                if row is not None and row.outcome is None:
                    rows[row.n] = msgspec.structs.replace(row, outcome="failed")
                self._attempt = AttemptRow(delta.n, delta.provider, delta.model, delta.step, delta.strategy)
                rows[delta.n] = self._attempt
            elif isinstance(delta, Finish) and row is not None:
                self._attempt = rows[row.n] = msgspec.structs.replace(row, usage=delta.usage, outcome=delta.outcome)


def _unexpected() -> InternalError:
    return InternalError("an unexpected error ended the stream")


def _joined(deltas: list[Delta]) -> list[Delta]:
    """`deltas` with adjacent text of one choice made one; text that carries fields of its own stays apart."""
    joined: list[Delta] = []
    for delta in deltas:
        last = joined[-1] if joined else None
        if (
            isinstance(delta, Text)
            and isinstance(last, Text)
            and delta.extra is None
            and last.extra is None
            and not (delta.begins or delta.logprobs or last.logprobs)
            and delta.choice == last.choice
        ):
            joined[-1] = Text(last.text + delta.text, delta.choice, begins=last.begins)
        else:
            joined.append(delta)
    return joined


def _only_status(deltas: list[Delta]) -> bool:
    return all(isinstance(delta, Status) for delta in deltas)
