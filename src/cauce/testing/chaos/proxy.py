"""A TCP proxy that hurts connections: it delays, resets, cuts, throttles them, or leaves them half open. It knows no protocol."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from cauce.testing.chaos.faults import Faults, Wire
from cauce.testing.listening import Listening

_AT_ONCE = 65_536
_THROTTLED = 1024
"""Bytes a second of a connection that is throttled, for `_THROTTLED_FOR` seconds; then it is reset, or it would last for ever."""

_THROTTLED_FOR = 3
_HALF_OPEN_FOR = 8.0
"""Seconds that a half open connection is held before it is reset: nobody may have to wait for longer."""

_NOW = struct.pack("ii", 1, 0)
"""SO_LINGER: what is unsent is dropped, and the other side gets a reset."""


class Proxy(Listening):
    """Between whoever connects to `port` and 127.0.0.1:`target()`. Faults hit what flows back to whoever connected."""

    def __init__(self, side: str, target: Callable[[], int], faults: Faults) -> None:
        """`side` names it in the schedule: `client…` or `upstream…`."""
        super().__init__()
        self._side = side
        self._target = target
        self._faults = faults
        self._count = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = self._faults.wire(self._side, self._count)
        self._count += 1
        if wire.fault != "none":
            self._faults.count(f"{self._side.partition(' ')[0]} {wire.fault}")
        try:
            if wire.fault == "latency":
                await asyncio.sleep(wire.seconds)
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            reset(writer)
            return
        there = asyncio.create_task(_pump(reader, up_writer))
        back = asyncio.create_task(_hurt(up_reader, writer, wire))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            if there.done() and not back.done():
                # Whoever asked has left, or has said all it had to say and closed: nobody in here reads answers after that.
                back.cancel()
            how = "reset"
            if back.done() and not back.cancelled() and back.exception() is None:
                how = back.result()
            if how == "reset":
                reset(writer)
        finally:
            # All of it before the first wait, which is where the run's end may find us.
            for task in (there, back):
                task.cancel()
            for one in (up_writer, writer):
                one.close()
            await asyncio.gather(there, back, up_writer.wait_closed(), writer.wait_closed(), return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_AT_ONCE):
            writer.write(data)
            await writer.drain()


async def _hurt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> str:
    """Carry what flows back; returns how the connection is to end: `close` or `reset`."""
    left = wire.after
    hits = wire.fault in ("reset", "cut", "throttle", "half-open")
    try:
        while data := await reader.read(_AT_ONCE):
            if wire.fault == "latency":
                await asyncio.sleep(wire.seconds / 10)
            if hits and len(data) >= left:
                writer.write(data[:left])
                await writer.drain()
                return await _end(data[left:], writer, wire)
            left -= len(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        return "reset"
    return "close"


async def _end(rest: bytes, writer: asyncio.StreamWriter, wire: Wire) -> str:
    match wire.fault:
        case "throttle":
            for second in range(_THROTTLED_FOR):
                writer.write(rest[second * _THROTTLED : (second + 1) * _THROTTLED])
                await writer.drain()
                await asyncio.sleep(1)
            return "reset"
        case "half-open":
            await asyncio.sleep(_HALF_OPEN_FOR)
            return "reset"
        case "cut":
            return "close"
        case _:
            return "reset"


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
    writer.transport.abort()
