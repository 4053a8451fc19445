"""Asking one address: a few GETs at a time, each short, small and asked once."""

import asyncio
import logging
from collections.abc import Iterable
from typing import TypeVar

from cauce.domain.errors import CauceError
from cauce.providers.discovery.addresses import Address
from cauce.providers.discovery.fingerprints import Models, Reader
from cauce.providers.discovery.kinds import LISTS, Kind, with_loaded, with_window
from cauce.transport import Outgoing, Transport

PROBE_TIME = 0.25
"""Seconds one GET may take, its body included."""

MAX_ANSWER = 1024 * 1024
MAX_LIST = 4 * 1024 * 1024
"""Bytes an answer, and a list of models, may have."""

# Small servers give a thread to each open connection: ours are not kept.
_HEADERS = {"accept": "application/json", "connection": "close"}

T = TypeVar("T")

logger = logging.getLogger("cauce.discovery")


class Probe:
    """What one address has answered so far. `seconds`: what one GET may take."""

    def __init__(self, transport: Transport, address: Address, seconds: float = PROBE_TIME) -> None:
        self.is_cauce = False
        """Another Cauce: two that took each other for model servers would ask in circles."""
        self._transport = transport
        self._address = address
        self._seconds = seconds
        self._bodies: dict[str, bytes | None] = {}

    @property
    def answered(self) -> bool:
        """Whether anything was answered."""
        return any([body is not None for body in self._bodies.values()])

    async def ask(self, paths: Iterable[str]) -> None:
        """GET those of `paths` that were not asked yet, all at once."""
        new = [path for path in dict.fromkeys(paths) if path not in self._bodies]
        async with asyncio.TaskGroup() as group:
            for path in new:
                self._bodies[path] = None
                group.create_task(self._get(path))

    def shows(self, kind: Kind) -> bool:
        """Whether the answers in hand show one of the signs of `kind`."""
        return any([self._says(sign) is not None for sign in kind.signs])

    async def models(self, kind: Kind) -> Models | None:
        """The models of this server, which is taken for a `kind`; None when its list cannot be read, so it is none."""
        more = [reader.path for reader in (kind.loaded, kind.window) if reader is not None]
        await self.ask([*[reader.path for reader in kind.models], *more])
        lists = [found[0] for found in [self._says(reader) for reader in kind.models] if found is not None]
        if not lists:
            logger.debug("%s looks like %s, but does not list models as it does", self._address.url, kind.label)
            return None
        models = lists[0]
        loaded = self._says(kind.loaded) if kind.loaded is not None else None
        if loaded is not None:
            models = with_loaded(models, loaded[0])
        window = self._says(kind.window) if kind.window is not None else None
        return with_window(models, window[0]) if window is not None else models

    def _says(self, reader: Reader[T]) -> tuple[T] | None:
        """What `reader` reads, in a tuple; None when there is no answer, or none of its shape."""
        body = self._bodies.get(reader.path)
        if body is None:
            return None
        try:
            return (reader.read(body),)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, another shape; JSON nested too deep
            return None

    async def _get(self, path: str) -> None:
        request = Outgoing("GET", self._address.url + path, _HEADERS, connect=self._seconds, total=self._seconds)
        try:
            answer = await self._transport.send(request)
        except CauceError:
            # Nobody there is the usual case, and not worth a line each time.
            return
        if answer.status != 200:
            await answer.aclose()
            return
        self.is_cauce = self.is_cauce or "x-cauce-request-id" in answer.headers
        try:
            self._bodies[path] = await answer.read(MAX_LIST if path in LISTS else MAX_ANSWER)
        except CauceError as error:
            logger.debug("%s%s cannot be read: %s", self._address.url, path, error.message)
