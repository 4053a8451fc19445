"""Streams that nobody writes any more, because the process that did has ended: each gets an honest end."""

import asyncio
import logging

import msgspec

from cauce.domain.delta import Finish, Text
from cauce.domain.errors import Gone, Overloaded
from cauce.domain.stream import Commit, Head, Hold, StreamKey
from cauce.domain.usage import Usage
from cauce.engine import ending
from cauce.ports.stream_log import Cancelled, Fenced, LogUnavailable, StreamLog

_AT_ONCE = 100
_READ = 1000

logger = logging.getLogger("cauce.streams")


def cut_off() -> Overloaded:
    """The error of an answer whose process ended before it did."""
    return Overloaded("the server stopped before the answer was complete: ask again", retry_after=1)


async def end_orphans(log: StreamLog, node: str) -> int:
    """End every stream whose holder is gone, as `node`; returns how many those were. Raises `LogUnavailable`."""
    ended = 0
    while orphans := await log.orphans(_AT_ONCE):
        outcomes = await asyncio.gather(*[_end(log, head, node) for head in orphans], return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if not any(outcomes):
            # All of them are others' now.
            break
        ended += sum([outcome is True for outcome in outcomes])
    if ended:
        logger.warning("ended %d streams that a process before this one left open", ended)
    return ended


async def _end(log: StreamLog, head: Head, node: str) -> bool:
    """Whether it was ours to end."""
    hold = await log.claim(head, node)
    if hold is None:
        return False
    try:
        await _append_end(log, hold, cancelled=head.cancel_requested)
    except Cancelled:
        await _append_end(log, hold, cancelled=True)
    except (Fenced, Gone):
        return False
    except LogUnavailable:
        logger.error("stream %s: its end cannot be written", head.key.id)
        raise
    return True


async def _append_end(log: StreamLog, hold: Hold, *, cancelled: bool) -> None:
    if cancelled:
        finish = ending.cancelled()
    else:
        finish = ending.failed(cut_off(), text_delivered=await _has_text(log, hold.key))
    await log.append(hold, await closing(log, hold.key, finish))


async def closing(log: StreamLog, key: StreamKey, finish: Finish) -> Commit:
    """The commit that ends a stream: its `Finish`, and the bills that are still open."""
    unclosed = [row for row in await log.attempts(key) if row.outcome is None]
    closed = [
        msgspec.structs.replace(row, usage=row.usage or Usage(estimated=True), outcome=finish.outcome)
        for row in unclosed
    ]
    return Commit((finish,), finish.outcome, attempts=tuple(closed))


async def _has_text(log: StreamLog, key: StreamKey) -> bool:
    after = 0
    while records := await log.read(key, after, _READ):
        if any(isinstance(record.delta, Text) for record in records):
            return True
        after = records[-1].seq
    return False
