"""Writing one stream's log: an answer is opened, its deltas are appended, the end is appended, whatever happens.

    provider socket -> inbox (when it is full we stop reading the socket) -> append

The producer takes everything that waits, joins adjacent text, and has one append in flight at a time. A stream that another process
began is written on in the same way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Status, Text, delta_size
from cauce.domain.errors import CauceError, InternalError, PayloadTooLarge
from cauce.domain.stream import Hold, Upstream
from cauce.domain.usage import Usage
from cauce.engine import ending
from cauce.engine.streams.commits import NEW, Begun, Commits
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import Cancelled, Fenced, Full, StreamLog

INBOX = 256
"""Deltas that wait between the socket and the log before no more are read. A read may give several: those of one read come on top."""

INBOX_SIZE = 256 * 1024
"""Characters of them, in the same way."""

JOINED = 8 * 1024
"""Characters that one record is joined up to: a record is the least that a reader has in its hands, however slow it is."""

WRITTEN = 64 * 1024
"""Characters after which an append takes no more reads out of the inbox: it is one row in the log, which is read as a whole."""

_CLOSING = 2.0
"""Seconds an upstream may take to be closed before the end is written all the same."""

Ending = Callable[[Usage], Finish]
"""The end of a stream, once it is known what it has used."""

logger = logging.getLogger("cauce.streams")


class Producer:
    """The task behind one stream. `run()` returns when the stream's `Finish` is in the log, or the stream is another's."""

    def __init__(self, log: StreamLog, turn: Turn, clock: Clock, hold: Hold, begun: Begun = NEW) -> None:
        """`begun`: what is in the log already, where another process began it."""
        self._log = log
        self._turn = turn
        self._clock = clock
        self._hold = hold
        self._text = begun.text
        """Whether there is text in what was received."""
        self._written_text = begun.text
        """Whether there is in the log."""
        self.commits = Commits(begun)
        self._inbox: deque[tuple[Sequence[Delta], Upstream | None]] = deque()
        self._deltas_in = self._size_in = 0
        """What is in the inbox: deltas, and characters of them."""
        self._room = asyncio.Event()
        self._upstream = begun.upstream
        """How far the provider's own stream has been read with what was taken out of the inbox last."""
        self._noticed: deque[tuple[int, Delta]] = deque()
        """What was noticed, and how many batches had been put into the inbox by then: an attempt comes after what broke before it."""
        self._put_in = self._taken_out = 0
        self._doorbell = asyncio.Event()
        self._end: Ending | None = None
        self._added_up = False
        """Whether the end in the inbox says what all attempts have used, those of other processes too."""
        self._lost = False
        self.leaving = False
        """Whether another process is to go on with the stream."""
        self._call: Call | None = None
        """Without the past of what it goes on with, which may be long."""
        self._goes_on = False
        self._opened: Deltas | None = None
        self._source: asyncio.Task[None] | None = None
        self._closing = False
        """Whether it was cancelled from here."""

    @property
    def hold(self) -> Hold:
        """What it may append to, as far as it knows."""
        return self._hold

    @property
    def used(self) -> Usage:
        """What the whole stream has used by now, as far as can be told."""
        told = self._opened.used if self._opened is not None else None
        newest = self.commits.attempt
        if told is not None and self._goes_on and (newest is None or newest.outcome is None):
            # What goes on with an answer has added its past up, and the bill of the newest attempt is to come.
            return told
        return self.commits.used(told)

    def billed(self, entry: Entry) -> bool:
        """Whether the ledger is to have `entry`, of an attempt for this stream. Once the stream is another's, whoever has it now
        writes down what the attempts came to that its log has as open."""
        if self._lost and self.commits.left_open(entry.n):
            return False
        self.commits.billed(entry)
        # It may be long until the next one begins: whoever took the stream over meanwhile would bill this one once more.
        self._doorbell.set()
        return True

    def notice(self, delta: Status | Attempt) -> None:
        """Have `delta` appended: what is going on before content comes."""
        self._noticed.append((self._put_in, delta))
        self._doorbell.set()

    def cancel(self, cause: str) -> None:
        """End the stream as cancelled, as soon as what was received is written. Closes the upstream. Idempotent."""
        self.end(lambda usage: ending.cancelled(usage, cause))

    def fail(self, error: CauceError) -> None:
        """End the stream with `error` in the same way."""
        self.end(lambda usage: ending.failed(error, usage, text_delivered=self._text))

    def end(self, end: Ending) -> None:
        """End the stream so, as soon as what was received is written. Closes the upstream. Idempotent."""
        if self._end is None and not self.leaving:
            self._end = end
            self._stop()

    def hand_over(self) -> None:
        """Write what was received, and leave the stream to whoever takes it over. Closes the upstream."""
        if self._end is None:
            self.leaving = True
            self._stop()

    def lose(self) -> None:
        """The stream is another's: stop, close the upstream, write nothing more."""
        self._lost = True
        self._stop()

    async def run(self, call: Call) -> None:
        """Open `call` and write its answer to the log. Raises `LogUnavailable`: then the stream is open and nobody writes it."""
        self._goes_on = bool(call.begun)
        self._call = msgspec.structs.replace(call, begun=())
        self._source = asyncio.create_task(self._read(call), name=f"upstream of {self._hold.key.id}")
        del call
        if self._stopping:
            self._stop()
        try:
            ended = False
            while not ended:
                deltas = await self._waiting()
                ended = self._lost or await self._append(deltas)
        except Fenced:
            self.lose()
            logger.info("stream %s is another's now, or has ended", self._hold.key.id)
        except CauceError:
            self.lose()
            raise
        except Exception:
            logger.exception("stream %s: an unexpected error ended it", self._hold.key.id)
            await self._append([ending.failed(_unexpected(), self.used, text_delivered=self._written_text)])
        finally:
            await self._closed()

    @property
    def _stopping(self) -> bool:
        return self._end is not None or self._lost or self.leaving

    def _stop(self) -> None:
        """Close the upstream, and have what follows written."""
        if self._lost or self.leaving:
            self._leave_running()
        if self._source is not None:
            self._closing = True
            self._source.cancel()
        self._doorbell.set()

    def _leave_running(self) -> None:
        """Whoever goes on with the answer may still want the provider's own stream."""
        if self._call is not None:
            self._call.course.handed_over = True

    async def _read(self, call: Call) -> None:
        """Move the answer into the inbox, ending with a `Finish`."""
        try:
            deltas = self._opened = await self._turn.open(call)
            del call
            async with aclosing(deltas):
                while batch := await deltas.read():
                    self._text = self._text or any(isinstance(delta, Text) for delta in batch)
                    await self._put(batch, deltas.position())
        except CauceError as error:
            await self._put_end(error)
        except (Exception, asyncio.CancelledError) as error:
            if self._closing and isinstance(error, asyncio.CancelledError):
                raise
            # Something below was cancelled, and not by us: left at that, the stream would be held, and nobody would write it.
            logger.exception("stream %s: an unexpected error ended it", self._hold.key.id)
            await self._put_end(_unexpected())

    async def _put_end(self, error: CauceError) -> None:
        self._added_up = True
        await self._put([ending.failed(error, self.used, text_delivered=self._text)], self._upstream)

    async def _put(self, batch: Sequence[Delta], position: Upstream | None) -> None:
        """Returns once there is room for another one."""
        self._inbox.append((batch, position))
        self._deltas_in += len(batch)
        self._size_in += sum([delta_size(delta) for delta in batch])
        self._put_in += 1
        self._doorbell.set()
        while self._deltas_in >= INBOX or self._size_in >= INBOX_SIZE:
            self._room.clear()
            await self._room.wait()

    async def _waiting(self) -> list[Delta]:
        """What waits, once something does: all of it, unless that is too much for one append; nothing where only a bill does."""
        while not (self._noticed or self._inbox or self._stopping or self.commits.owes):
            self._doorbell.clear()
            await self._doorbell.wait()
        if self._stopping:
            await self._closed()
        deltas: list[Delta] = []
        size = 0
        while self._noticed or (self._inbox and (size < WRITTEN or self._stopping)):
            if self._noticed and self._noticed[0][0] <= self._taken_out:
                deltas.append(self._noticed.popleft()[1])
                continue
            batch, self._upstream = self._inbox.popleft()
            self._taken_out += 1
            deltas.extend(batch)
            taken = sum([delta_size(delta) for delta in batch])
            size += taken
            self._size_in -= taken
            self._deltas_in -= len(batch)
        self._room.set()
        last = deltas[-1] if deltas else None
        if not isinstance(last, Finish):
            if self._end is not None:
                deltas.append(self._end(self.used))
        else:
            if self.commits.adopted and not self._added_up:
                last = last.using(self.commits.used(last.usage, deltas))
            deltas[-1] = last.kept(self._clock.now())
        return _joined(deltas)

    async def _closed(self) -> None:
        """The upstream is closed, and what it has used is known."""
        source = self._source
        if source is not None and not source.done():
            self._closing = True
            source.cancel()
            try:
                async with self._clock.timeout(_CLOSING):
                    await asyncio.wait({source})
            except TimeoutError:
                logger.warning("stream %s: its upstream takes long to close", self._hold.key.id)

    async def _append(self, deltas: list[Delta]) -> bool:
        """Append `deltas`; whether nothing follows them here."""
        make = self.commits.leaving if self.leaving else self.commits.commit
        commit = make(deltas, self._upstream)
        try:
            self._hold = await self._log.append(self._hold, commit)
        except Cancelled:
            await self._closed()
            head = await self._log.head(self._hold.key)
            cause = (head.cancel_reason if head is not None else None) or ""
            commit = self.commits.commit([ending.cancelled(self.used, cause)])
            self._hold = await self._log.append(self._hold, commit)
        except Full:
            await self._closed()
            error = PayloadTooLarge("the answer is longer than a stream can be")
            commit = self.commits.commit([ending.failed(error, self.used, text_delivered=self._written_text)])
            self._hold = await self._log.append(self._hold, commit)
        self.commits.written(commit)
        self._written_text = self._written_text or any([isinstance(delta, Text) for delta in commit.deltas])
        return self.leaving or commit.finish is not None


def _unexpected() -> InternalError:
    return InternalError("an unexpected error ended the stream")


def _joined(deltas: list[Delta]) -> list[Delta]:
    """`deltas` with adjacent text of one choice made one, up to `JOINED`, and reasoning too; what carries fields of its own stays apart."""
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
            and len(last.text) + len(delta.text) <= JOINED
        ):
            joined[-1] = Text(last.text + delta.text, delta.choice, begins=last.begins)
        elif (
            isinstance(delta, Reasoning)
            and isinstance(last, Reasoning)
            and delta.extra is None
            and last.extra is None
            and not (delta.begins or last.signature)
            and delta.choice == last.choice
            and len(last.text) + len(delta.text) <= JOINED
        ):
            joined[-1] = Reasoning(last.text + delta.text, delta.signature, delta.choice, begins=last.begins)
        else:
            joined.append(delta)
    return joined
