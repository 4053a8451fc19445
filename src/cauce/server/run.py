"""Listening and serving: uvicorn with our protocol, and a shutdown that lets open streams end."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import uvicorn

from cauce.server.app import Application
from cauce.server.protocol import BoundedProtocol
from cauce.server.services import Services

KEEP_ALIVE = 75
"""Seconds an idle client connection is kept: longer than common clients keep theirs, so that they close first."""

BACKLOG = 2048

_LOOK = 0.1
_AT_LEAST = 2
"""Seconds that open connections get, whatever streams have taken of the time."""


logger = logging.getLogger("cauce.server")


async def _nothing() -> None:
    return None


class HTTPServer(uvicorn.Server):
    """Serves `services` until it is told to stop. `ready` is awaited once requests are taken."""

    def __init__(self, services: Services, ready: Callable[[], Awaitable[None]] = _nothing) -> None:
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
                backlog=BACKLOG,
            )
        )
        self._services = services
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop, seconds = asyncio.get_running_loop(), self._services.settings.drain
        began = loop.time()
        drain = asyncio.create_task(self._services.streams.drain(seconds))
        # Until streams have ended, or are handed over, they can be read and cancelled here; what is new is refused.
        while not drain.done() and not self.force_exit:
            await asyncio.wait({drain}, timeout=_LOOK)
        # Answers that are no streams of ours get what is left of the time.
        self.config.timeout_graceful_shutdown = int(max(0.0, seconds - loop.time() + began)) + _AT_LEAST
        await super().shutdown(sockets)
        # Told twice to stop, we wait for nothing: what is open then is taken over at the next start.
        drain.cancel()
        await asyncio.wait({drain})
        if not drain.cancelled() and (error := drain.exception()) is not None:
            logger.error("streams were not handed over", exc_info=error)


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
