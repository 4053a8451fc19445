"""Writes of one turn of the event loop, sent together.

    read, read, read -> write, write, write -> sent, sent, sent

A write to a socket wakes whoever waits at its other end, and disturbs what this process is doing; asyncio does it at once, and so does
uvloop (MagicStack/uvloop#619). Where several connections have been heard of in one turn of the loop, what is written in reply is sent
when the last of them has been replied to, or when the turn is over: a whole answer costs a fifth less then. Where one was heard of,
its reply is sent at once.
"""

import asyncio
from typing import Any, cast
from weakref import WeakKeyDictionary

MOST = 64 * 1024
"""Bytes that wait for others. More are sent at once, so that the socket's own back pressure holds."""


class Outbox:
    """What the connections of one event loop have to send. `heard` counts those that something has come from, and that were not written to since.

    One input makes about one output: a request becomes one to a provider, its answer one to a client.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._due: list[Coalescing] = []
        self._waits = False

    def post(self, one: "Coalescing") -> None:
        """Have `one` send what it has, now or with the others of this turn."""
        self._due.append(one)
        self.heard -= 1
        if self.heard <= 0:
            self._send()
        elif not self._waits:
            self._waits = True
            # Not remembered: a loop is let go of when nobody else has it.
            asyncio.get_running_loop().call_soon(self._turn_is_over)

    def _turn_is_over(self) -> None:
        self._waits = False
        self._send()

    def _send(self) -> None:
        due, self._due = self._due, []
        self.heard = 0
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
            except RuntimeError:
                # Closed, or its writing end is: the others have theirs to send.
                self._transport.abort()
