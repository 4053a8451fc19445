"""The connection to a server: what is sent to it, and what of its answers is no answer."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from cauce import __version__
from cauce.client.errors import Unreachable, refused
from cauce.domain.errors import CauceError, ProviderFailure
from cauce.transport import HTTPTransport, Incoming, Outgoing, Transport

WHOLE = 600.0
"""Seconds for an answer that comes whole, where nobody says otherwise."""

_GRACE = 5.0
"""Seconds beyond the time a request gives the server, so that the server's own word about it arrives."""

_MOST_ERROR = 1024 * 1024

encode = msgspec.json.Encoder().encode


class Connection:
    """A server's address and the key to it. `timeout` is in seconds, for calls that say nothing of their own (None: no bound). Where
    it is not given, an answer that comes whole has `WHOLE` seconds, and a stream goes on for as long as it is not silent."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeout: float | UnsetType | None = UNSET,
        transport: Transport | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._transport = transport if transport is not None else HTTPTransport("cauce")
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "User-Agent": f"cauce-client/{__version__}",
            # Of a stream we can take back what was shown.
            "X-Cauce-Restart": "accept",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        }

    def total(self, given: object, *, streamed: bool) -> float | None:
        """Seconds that a call may take in all whose `timeout` is `given`; None: as long as it likes."""
        if isinstance(given, int | float):
            return given + _GRACE
        if isinstance(self._timeout, UnsetType):
            return None if streamed else WHOLE
        return self._timeout

    async def post(self, path: str, body: dict[str, object]) -> Incoming:
        """Ask; the answer's status is 200. Raises `CallFailed`, `Unreachable` and `DeadlineExceeded`."""
        try:
            incoming = await self.send(
                "POST", path, encode(body), total=self.total(body.get("timeout"), streamed=False)
            )
            if incoming.status != 200:
                raise await self.refusal(incoming)
        except ProviderFailure as error:
            raise Unreachable(error.message) from error
        return incoming

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        more: Mapping[str, str] | None = None,
        idle: float | None = None,
        total: float | None,
    ) -> Incoming:
        """The answer, whatever its status; `more` are headers of this request. Raises `ProviderFailure` and `DeadlineExceeded`."""
        headers = {**self._headers, **more} if more else self._headers
        return await self._transport.send(
            Outgoing(method, f"{self._base_url}{path}", headers, body, idle=idle, total=total)
        )

    async def refusal(self, incoming: Incoming) -> CauceError:
        """The error that an answer stands for which is none. Raises `ProviderFailure`."""
        return refused(incoming.status, incoming.headers, await incoming.read(_MOST_ERROR))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()
