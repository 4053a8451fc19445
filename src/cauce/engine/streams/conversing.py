"""What is said in conversations is copied to where they are kept, once its stream has ended.

    stream ends -> fold its log -> the user's new messages and the answer -> the conversation -> the stream is settled

A log is delivery and forgets; a conversation is kept. Only what has its end is copied: an answer that is still being given, or that another
process goes on with, is in no conversation. Whoever ended a stream copies it; what did not come about is made up for by a sweep, at the start and every
so often. It may be done by several processes at once: it is in the conversation once.
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.conversation import Standing, Turn
from cauce.domain.delta import Attempt, Finish
from cauce.domain.errors import CauceError, Gone
from cauce.domain.message import Message
from cauce.domain.request import Request, Scope
from cauce.domain.stream import ERASED, Head, StreamKey
from cauce.domain.surviving import surviving
from cauce.engine.compose import collect
from cauce.engine.streams.options import options_of
from cauce.engine.streams.tail import follow, gathered
from cauce.ports.clock import Clock
from cauce.ports.conversations import Conversations
from cauce.ports.provider import Deltas, named
from cauce.ports.stream_log import StreamLog

_SWEEP_EVERY = 30.0
_AT_ONCE = 100
_CATCHING_UP = 2.0
"""Seconds that whoever asks for a conversation waits for what has just ended."""

logger = logging.getLogger("cauce.conversations")


class Said(msgspec.Struct, frozen=True):
    """What was said to a model and what it answered; `standing` is that of the answer, `model` who gave it. Times are UNIX times in seconds.

    `private`: when it was asked, nothing of it was to leave this machine, whatever its model is by now.
    """

    stream_id: str
    request: Request
    answer: Completion
    asked: float
    answered: float
    private: bool
    model: str = ""
    standing: Standing = "complete"

    @property
    def turns(self) -> Sequence[Turn]:
        """The user's new messages, with results of tools among them, and the answer. Nothing where nothing was answered: whoever asks
        again says it again."""
        parts = self.answer.choices[0].parts if self.answer.choices else ()
        if not parts and self.standing != "complete":
            return ()
        # An id may come again once its stream is forgotten: it is another stream then.
        begins = f"{self.stream_id}/{round(self.asked * 1e6)}"
        turns = [
            Turn(f"{begins}/{place}", message, self.asked, stream_id=self.stream_id)
            for place, message in enumerate(new_messages(self.request))
        ]
        answer = Message("assistant", parts)
        return [
            *turns,
            Turn(f"{begins}/{len(turns)}", answer, self.answered, self.standing, self.stream_id, self.model),
        ]


def answered_by(attempts: Sequence[Attempt]) -> str:
    """The model that gave the answer of these attempts; empty if nobody was asked."""
    return named(attempts[-1].provider, attempts[-1].model) if attempts else ""


def new_messages(request: Request) -> Sequence[Message]:
    """What `request` says that came after the newest answer in it; what the system says is nobody's turn."""
    new: list[Message] = []
    for message in reversed(request.messages):
        if message.role == "assistant":
            break
        if message.role in ("user", "tool"):
            new.append(message)
    return new[::-1]


class Conversing:
    """See the module. `hear` is to be told of each stream of a conversation that has ended here."""

    def __init__(self, log: StreamLog, conversations: Conversations, clock: Clock) -> None:
        self._log = log
        self._conversations = conversations
        self._clock = clock
        self._ended: asyncio.Queue[StreamKey] = asyncio.Queue()
        self._left_alone: set[StreamKey] = set()
        """Those that this version cannot read: another may."""
        self._tasks: list[asyncio.Task[None]] = []

    def hear(self, key: StreamKey) -> None:
        """That stream is not written here any more, mostly since it has ended."""
        self._ended.put_nowait(key)

    def start(self) -> None:
        """Begin, with what a process before this one has left."""
        self._tasks = [asyncio.create_task(self._settle_ended()), asyncio.create_task(self._sweep_forever())]

    async def stop(self) -> None:
        """Settle what has ended, and stop. What takes too long is left to the next process."""
        if self._tasks:
            await self.caught_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Settle what has ended and is not settled, and forget what is over. Raises `CauceError` while log or store do not answer."""
        before: Sequence[StreamKey] = ()
        while True:
            limit = _AT_ONCE + len(self._left_alone)
            found = await self._log.unsettled(limit)
            self._left_alone.intersection_update(found)
            for key in found:
                if key not in self._left_alone and not await self._settle_now(key):
                    return
            if len(found) < limit or found == before:
                break
            before = found
        while await self._conversations.sweep(_AT_ONCE):
            await self._clock.sleep(0)

    async def say(self, scope: Scope, said: Said) -> None:
        """Keep what was said outside of the log. It is told in the server's log where it cannot be: who asked has an answer all the same."""
        try:
            await self._keep(scope, said)
        except CauceError as error:
            logger.error("%s: it is not kept in its conversation: %s", said.stream_id, error.message)

    async def caught_up(self) -> None:
        """Return once what has ended here by now is kept, or cannot be for now: whoever has read an answer finds it."""
        try:
            async with self._clock.timeout(_CATCHING_UP):
                await self._ended.join()
        except TimeoutError:
            logger.warning("what has ended is slow to be kept in conversations")

    async def _settle_ended(self) -> None:
        while True:
            key = await self._ended.get()
            await self._settle_now(key)
            self._ended.task_done()

    async def _sweep_forever(self) -> None:
        told = False
        while True:
            try:
                await self.sweep()
                told = False
            except CauceError as error:
                if not told:
                    logger.error("what has ended is not kept in conversations for now: %s", error.message)
                told = True
            except Exception:
                logger.exception("what has ended is not kept in conversations for now: an unexpected error")
            await self._clock.sleep(_SWEEP_EVERY)

    async def _settle_now(self, key: StreamKey) -> bool:
        """Whether log and store answered. If not, the sweep comes back to it."""
        try:
            await self._settle(key)
        except Gone as error:
            logger.error("%s: it is not kept in its conversation", error.message)
            self._left_alone.add(key)
        except CauceError as error:
            logger.error("stream %s is not kept in its conversation for now: %s", key.id, error.message)
            return False
        except Exception:
            # One that cannot be kept must not keep others from it.
            logger.exception("stream %s cannot be kept in its conversation", key.id)
            self._left_alone.add(key)
        return True

    async def _settle(self, key: StreamKey) -> None:
        """Copy the stream's answer, if it has its end. Raises `CauceError`."""
        head = await self._log.head(key)
        if head is None or not head.ended:
            return
        options = options_of(head)
        wanted = head.state != "failed" and head.cancel_reason != ERASED
        if options.scope is not None and head.request.conversation_id and wanted:
            await self._keep(options.scope, await self._said(head, private=options.private))
        await self._log.settle(key)

    async def _said(self, head: Head, *, private: bool) -> Said:
        records = await gathered(follow(self._log, head.key, 0))
        deltas = [record.delta for record in surviving(records)]
        finish = deltas[-1]
        assert isinstance(finish, Finish), "a stream ends with its Finish"
        standing: Standing = "complete"
        if finish.outcome in ("incomplete", "cancelled"):
            standing = finish.outcome
        model = answered_by([delta for delta in deltas if isinstance(delta, Attempt)])
        answer = await collect(Deltas(None, deltas))
        answered = head.created if head.terminal_at is None else head.terminal_at
        return Said(head.key.id, head.request, answer, head.created, answered, private, model, standing)

    async def _keep(self, scope: Scope, said: Said) -> None:
        request, turns = said.request, said.turns
        # What must not leave this machine goes nowhere that others see.
        if turns and request.conversation_id and not (said.private and self._conversations.shared):
            # By the name that it is erased by.
            scope = Scope(scope.tenant, scope.key, scope.known_as(request.user))
            await self._conversations.keep(scope, request.conversation_id, turns, said.asked)
