"""How many connections are let in: as many as there are file descriptors for. What comes beyond that waits in the backlog of the
sockets listened on, and is let in when others have gone.

A descriptor too few breaks whatever needs one next: a connection to a provider, a file of the ledger.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

BACKLOG = 2048

RESERVED = 64
"""Descriptors for everything but connections and what is asked over them: files of stores and their threads, sockets listened on."""

PER_CONNECTION = 3
"""Descriptors: its own, that of the provider that is asked for it, and one that is kept open to another provider (`kept_below`)."""

_FEWEST = 8
_OPEN_MAX = 10_240
"""What macOS takes where the hard limit says that there is none (`OPEN_MAX`)."""

logger = logging.getLogger("cauce.server")


def raise_limit() -> float:
    """Let this process open as many files as it may, and say how many that are. The soft limit is low for the sake of programs that
    use `select`, which cannot watch more than 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        wanted = [hard] if hard != resource.RLIM_INFINITY else [hard, max(soft, _OPEN_MAX)]
        for limit in wanted:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            except (OSError, ValueError):
                continue
            soft = limit
            break
    return inf if soft == resource.RLIM_INFINITY else soft


def places(files: float) -> float:
    """How many connections a process that may open so many files lets in."""
    # Of infinity, `//` makes no number.
    return inf if files == inf else max(_FEWEST, (files - RESERVED) // PER_CONNECTION)


def kept_below() -> float:
    """The descriptor from which on no connection to a provider is kept once it is idle. A new one gets the lowest that is free, so as
    many are open then: what was kept after a burst must leave those of the next one to whoever is asked then."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft // PER_CONNECTION


class Connections(set[Any]):
    """Open connections, no more than `most`. `lost` is set when one goes, `turned` called when `full` changes."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most
        self.lost = asyncio.Event()
        self.full = False
        self.turned: Callable[[], None] = _nothing

    def add(self, element: Any) -> None:
        super().add(element)
        if not self.full and len(self) >= self.most:
            self.full = True
            self.turned()

    def discard(self, element: Any) -> None:
        super().discard(element)
        self.lost.set()
        if self.full and len(self) < self.most:
            self.full = False
            self.turned()


class Door:
    """Lets connections in from `listeners`, each for a protocol of `make`, while `connections` has room.

    Neither asyncio nor uvloop can be told to accept nothing for a while. What can be closed is a server; its socket is a duplicate of
    the listener's, which goes on listening.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], connections: Connections, make: Callable[[], asyncio.Protocol]
    ) -> None:
        self.servers: list[asyncio.Server] = []
        self._listeners = listeners
        self._connections = connections
        self._make = make
        self._opening: asyncio.Task[None] | None = None
        self._told = False
        self._shut = False
        connections.turned = self.look

    async def open(self) -> None:
        """Let them in. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            own = listener.dup()
            try:
                self.servers.append(await loop.create_server(self._make, sock=own, backlog=BACKLOG))
            except BaseException:
                own.close()
                raise

    def look(self) -> None:
        """Open it or close it, as there is room."""
        if self._connections.full:
            self._close()
            if not self._told:
                self._told = True
                logger.warning(
                    "%d connections are open, and the limit of open files has no room for more: further ones wait until others have gone. "
                    "Raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)",
                    len(self._connections),
                )
        elif (
            len(self.servers) < len(self._listeners)
            and not self._shut
            and (self._opening is None or self._opening.done())
        ):
            self._opening = asyncio.get_running_loop().create_task(self._open_again())

    def close(self) -> None:
        """Let nobody in any more."""
        self._shut = True
        if self._opening is not None:
            self._opening.cancel()
        self._close()

    async def _open_again(self) -> None:
        # Closed while it opened, it may have been left half open.
        self._close()
        try:
            await self.open()
        except OSError:
            # Not even descriptors for that: whoever looks next tries again.
            self._close()
        if self._connections.full:
            self._close()

    def _close(self) -> None:
        for server in self.servers:
            server.close()
        self.servers.clear()


def _nothing() -> None:
    """Nobody is to be told."""
