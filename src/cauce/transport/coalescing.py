"""Writes of one turn of the event loop, sent together.

    read, read, read -> write, write, write -> sent, sent, sent

A write to a socket wakes whoever waits at its other end, and disturbs what this process is doing; asyncio does it at once, and so does
uvloop (MagicStack/uvloop#619). Where several connections have been heard of in one turn of the loop, what is written in reply is sent
when the last of them has been replied to, after a millisecond, or when the turn is over. Where one was heard of, its reply is sent at
once. Whoever works for long without letting the loop go on makes these replies wait too, as it does everything else.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, cast
from weakref import WeakKeyDictionary

MOST = 64 * 1024
"""Bytes that wait for others. More are sent at once, so that the socket's own back pressure holds."""

LONGEST = 0.001
"""Seconds that the first reply waits while others are made."""


class Outbox:
    """What the connections of one event loop have to send. `heard` counts inputs that nothing was written after: one makes about one output,
    a request one to a provider, and its answer one to a client. Where that does not hold, the end of the turn begins to count anew.

    `now` is a time in seconds that goes on within a turn, which a loop's own need not.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self.heard = 0
        self._now = now
        self._since = 0.0
        self._due: list[Coalescing] = []
        self._waits = False

    def post(self, one: "Coalescing") -> None:
        """Have `one` send what it has, now or with the others of this turn."""
        due = self._due
        due.append(one)
        self.heard -= 1
        if self.heard <= 0:
            self.heard = 0
            self._send()
        elif len(due) == 1:
            self._since = self._now()
            if not self._waits:
                # Not remembered: a loop is let go of when nobody else has it.
                asyncio.get_running_loop().call_soon(self._turn_is_over)
                self._waits = True
        elif self._now() - self._since > LONGEST:
            self._send()

    def _turn_is_over(self) -> None:
        self._waits = False
        # Nothing is due where all were replied to: what has been heard of since is of the next turn.
        if self._due:
            self.heard = 0
            self._send()

    def _send(self) -> None:
        due, self._due = self._due, []
        for one in due:
            one.send()


_outboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """The one of `loop`: connections to clients and to providers share it."""
    outbox = _outboxes.get(loop)
    if outbox is None:
        outbox = _outboxes[loop] = Outbox()
    return outbox


class Coalescing(asyncio.Transport):
    """`transport`, as seen by a protocol: only `write` waits. Whatever ends it sends first what was written."""

    __slots__ = (
        "_due",
        "_outbox",
        "_transport",
        "can_write_eof",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: asyncio.BaseTransport, outbox: Outbox) -> None:
        # uvloop's transports are no subclasses of asyncio's, only alike.
        socket = cast(asyncio.Transport, transport)
        self._transport = socket
        self._outbox = outbox
        self._due = b""
        self.can_write_eof = socket.can_write_eof
        self.get_extra_info = socket.get_extra_info
        self.is_closing = socket.is_closing
        self.pause_reading = socket.pause_reading
        self.resume_reading = socket.resume_reading

    def write(self, data: Any) -> None:
        waits = self._due
        self._due = waits + data
        if not waits:
            self._outbox.post(self)
        if len(self._due) > MOST:
            self.send()

    def write_eof(self) -> None:
        self.send()
        self._transport.write_eof()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() + len(self._due)

    def close(self) -> None:
        self.send()
        self._transport.close()

    def abort(self) -> None:
        self.send()
        self._transport.abort()

    def send(self) -> None:
        """Hand what was written to the socket."""
        due, self._due = self._due, b""
        if due and not self.is_closing():
            try:
                self._transport.write(due)
            except (RuntimeError, MemoryError):
                # Closed, or its writing end is: the others have theirs to send.
                self._transport.abort()
