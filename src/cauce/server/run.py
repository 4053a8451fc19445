"""Listening and serving: uvicorn with our protocol, and a shutdown that lets open streams end."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from types import FrameType
from typing import Any

import uvicorn

from cauce.server.app import Application
from cauce.server.door import BACKLOG, Connections, Door
from cauce.server.protocol import BoundedProtocol
from cauce.server.services import Services

KEEP_ALIVE = 75
"""Seconds an idle client connection is kept: longer than common clients keep theirs, so that they close first."""

_TICK = 1.0
"""Seconds for which the date in answers stands."""

_AT_LEAST = 2.0
"""Seconds that open connections get, whatever streams have taken of the time."""


logger = logging.getLogger("cauce.server")


async def _nothing() -> None:
    return None


class HTTPServer(uvicorn.Server):
    """Serves `services` until it is told to stop, over `most` connections at once. `ready` is awaited once requests are taken.

    uvicorn looks ten times a second whether it is to stop, and whether what is open has ended; here both are heard of.
    """

    def __init__(
        self, services: Services, ready: Callable[[], Awaitable[None]] = _nothing, *, most: float = inf
    ) -> None:
        super().__init__(
            uvicorn.Config(
                Application(services),
                http=BoundedProtocol,
                ws="none",
                loop="uvloop",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self._services = services
        self._ready = ready
        self._told, self._forced = asyncio.Event(), asyncio.Event()
        self._connections = self.server_state.connections = Connections(most)
        self._door = Door((), self._connections, self._protocol)

    def stop(self) -> None:
        """Have it end as a signal would."""
        self.should_exit = True
        self._told.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        loop = asyncio.get_running_loop()
        # It interrupts whatever is going on: the loop is only woken here.
        loop.call_soon_threadsafe(self._told.set)
        if self.force_exit:
            loop.call_soon_threadsafe(self._forced.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self._door = Door(sockets or (), self._connections, self._protocol)
        await self._door.open()
        await self._ready()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            if self._connections.full:
                for connection in list(self._connections):
                    connection.make_room()
            self._door.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop, seconds = asyncio.get_running_loop(), self._services.settings.drain
        began = loop.time()
        drain = asyncio.create_task(self._services.streams.drain(seconds))
        # Until streams have ended, or are handed over, they can be read and cancelled here; what is new is refused.
        await self._unless_forced(asyncio.wait({drain}))
        self._door.close()
        for listener in sockets or []:
            listener.close()
        # Whoever was let in last is made known.
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.shutdown()
        # Answers that are no streams of ours get what is left of the time.
        left = max(0.0, seconds - loop.time() + began) + _AT_LEAST
        if not await self._unless_forced(self._all_gone(), left):
            tasks = self.server_state.tasks
            logger.log(logging.DEBUG if self.force_exit else logging.WARNING, "%d answers are cut short", len(tasks))
            for task in list(tasks):
                task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()
        # Told twice to stop, we wait for nothing: what is open then is taken over at the next start.
        drain.cancel()
        await asyncio.wait({drain})
        if not drain.cancelled() and (error := drain.exception()) is not None:
            logger.error("streams were not handed over", exc_info=error)

    async def _unless_forced(self, wait: Coroutine[Any, Any, Any], seconds: float | None = None) -> bool:
        """Await it, for so long, and until it is told twice to stop; returns whether it came to its end."""
        waiting, forced = asyncio.create_task(wait), asyncio.create_task(self._forced.wait())
        await asyncio.wait({waiting, forced}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        done = waiting.done()
        waiting.cancel()
        forced.cancel()
        await asyncio.wait({waiting, forced})
        return done

    async def _all_gone(self) -> None:
        """Return once no connection is open and no request is worked on."""
        while self._connections:
            self._connections.lost.clear()
            await self._connections.lost.wait()
        # One that was given up before it began has not said that it is done.
        while tasks := {task for task in self.server_state.tasks if not task.done()}:
            await asyncio.wait(tasks)

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on `host`; `localhost` is 127.0.0.1 and, where there is one, ::1. Port 0 takes a free one. Raises `OSError`."""
    addresses = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    sockets: list[socket.socket] = []
    for address in addresses:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
        except OSError:
            listener.close()
            if not sockets:
                raise
            continue
        port = listener.getsockname()[1]
        listener.listen(BACKLOG)
        listener.setblocking(False)
        sockets.append(listener)
    return sockets
