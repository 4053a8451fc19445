"""Answers that the oracle keeps while it says them, as llama.cpp's server does: who was cut off reads on from any byte, until it is stopped.

What breaks is the connection, and now and then the answer is not there for who comes back. It is said to its end all the same.
"""

import asyncio
from typing import Protocol

import msgspec

from cauce.testing.chaos.faults import Faults

_CUT = (200, 8_000)
"""Bytes after which a connection that reads such an answer is cut, where it is."""

_CUTS = 3
"""How many of its connections are cut at most."""

_LOST = 0.15
"""How often it is not there for who comes back."""


class Sink(Protocol):
    """What an answer is written to: a connection, or what is kept of it."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...


class KeptAnswer:
    """What was said so far, as it stands on the wire."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.saying: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """More of it."""
        self.data += data
        self._tell()

    async def drain(self) -> None:
        """Nothing is waited for: it has room."""

    def begin(self, saying: "asyncio.Task[None]") -> None:
        """It is being said from now on."""
        self.saying = saying
        saying.add_done_callback(lambda _: self._tell())

    async def end(self) -> None:
        """Stop it."""
        if self.saying is not None:
            self.saying.cancel()
            await asyncio.gather(self.saying, return_exceptions=True)

    async def read(self, start: int) -> bytes:
        """What there is behind so many bytes, once there is something; empty at its end."""
        while start >= len(self.data):
            if self.saying is not None and self.saying.done():
                return b""
            await self._news.wait()
        return bytes(self.data[start:])

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Connections(msgspec.Struct):
    """Who reads an answer that is kept. Times are the loop's."""

    attached: list[tuple[float, str]] = []
    """When somebody came back for it, and which node."""
    open: int = 0
    lost: bool = False
    """Who came back was told that it is not there."""
    stopped: tuple[float, str] | None = None
    """When and by which node."""

    def holder(self, asked: tuple[float, str], at: float) -> str:
        """The node that read it last before `at`; `asked` is when it was asked for, and by which."""
        return max([one for one in (asked, *self.attached) if one[0] < at], default=asked)[1]


def cut_after(faults: Faults, lot: tuple[str, int], connection: int) -> int | None:
    """After how many bytes the nth connection that reads an answer is cut (None: it is not)."""
    chance = faults.chance("cut", *lot, connection)
    rate = faults.rates.provider
    cut = bool(rate) and connection < _CUTS and chance.random() < max(0.5, rate)
    return chance.randint(*_CUT) if cut else None


def is_lost(faults: Faults, lot: tuple[str, int]) -> bool:
    """Whether it is not there for who comes back."""
    return faults.chance("lost", *lot).random() < _LOST * (faults.rates.provider > 0)
