"""The connection to a server: what is sent to it, and what of its answers is no answer."""

import msgspec

from cauce import __version__
from cauce.client.errors import Unreachable, refused
from cauce.domain.errors import ProviderFailure
from cauce.providers.transport import HTTPTransport, Incoming, Outgoing

IDLE = 60.0
"""Seconds a stream may be silent. The server writes a heartbeat every few seconds."""

_GRACE = 5.0
"""Seconds beyond the time a request gives the server, so that the server's own word about it arrives."""

_MOST_ERROR = 1024 * 1024

_encode = msgspec.json.Encoder().encode


class Connection:
    """A server's address and the key to it. `timeout` is in seconds, for calls that say nothing of their own."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float | None) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._transport = HTTPTransport("cauce")
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "User-Agent": f"cauce-client/{__version__}",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        }

    async def post(self, path: str, body: dict[str, object], *, streamed: bool = False) -> Incoming:
        """Ask; the answer's status is 200. Raises `CallFailed`, `Unreachable` and `DeadlineExceeded`."""
        given = body.get("timeout")
        total = given + _GRACE if isinstance(given, int | float) else self._timeout
        try:
            incoming = await self._transport.send(
                Outgoing(
                    "POST",
                    f"{self._base_url}{path}",
                    self._headers,
                    _encode(body),
                    idle=IDLE if streamed else None,
                    total=total,
                )
            )
            if incoming.status != 200:
                raise refused(incoming.status, incoming.headers, await incoming.read(_MOST_ERROR))
        except ProviderFailure as error:
            raise Unreachable(error.message) from error
        return incoming

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()
