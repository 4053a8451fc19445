"""Writes of one turn of the event loop, sent together when it is over.

    write, write -> what is due -> (next turn) one write to the socket

A write to a socket wakes whoever waits at its other end, and costs the same whatever its size; uvloop and asyncio do it at once. Many
answers are made in one turn: written one after the other at its end, they cost a fifth less of a whole request, and two pieces for one
connection become one. What is more than `MOST` is written at once, so that the socket's own back pressure holds.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

MOST = 64 * 1024
"""Bytes that wait for the end of a turn."""


class Coalescing(asyncio.Transport):
    """`transport`, as seen by a protocol: only `write` waits. Whatever ends it sends first what was written."""

    __slots__ = (
        "_call_soon",
        "_due",
        "_transport",
        "can_write_eof",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop) -> None:
        # uvloop's transports are no subclasses of asyncio's, only alike.
        socket = cast(asyncio.Transport, transport)
        self._transport = socket
        self._call_soon: Callable[..., object] = loop.call_soon
        self._due = b""
        self.can_write_eof = socket.can_write_eof
        self.get_extra_info = socket.get_extra_info
        self.is_closing = socket.is_closing
        self.pause_reading = socket.pause_reading
        self.resume_reading = socket.resume_reading

    def write(self, data: Any) -> None:
        if not self._due:
            self._call_soon(self._send)
        self._due += data
        if len(self._due) > MOST:
            self._send()

    def write_eof(self) -> None:
        self._send()
        self._transport.write_eof()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() + len(self._due)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._send()
        self._transport.abort()

    def _send(self) -> None:
        due, self._due = self._due, b""
        if due and not self.is_closing():
            self._transport.write(due)
