"""Cauce in front of a provider of each kind."""

import contextlib

import msgspec

from cauce.server.gate import hash_key
from cauce.testing.upstream import Upstream
from tests.clients.process import ONCE
from tests.serving import Served, serving

KEY = "secret"
"""What clients must send."""


def in_front_of(upstream: Upstream, kind: str) -> str:
    """The TOML of one provider of `kind`, behind keys."""
    address = upstream.base_url if kind == "openai" else upstream.root
    provider = (
        f'[providers.up]\nkind = "{kind}"\nbase_url = "{address}"\napi_key = "upstream-key"\ndefault_model = "m"\n'
    )
    return provider + ONCE + f'[[auth.keys]]\nname = "web"\nhash = "{hash_key(KEY)}"\n'


class Front(msgspec.Struct, frozen=True):
    """A running Cauce and the provider behind it."""

    upstream: Upstream
    served: Served


class Fronts:
    """One running Cauce for each kind of provider, new ones for each client: stopping one takes longer than most scenarios."""

    def __init__(self) -> None:
        self._client = ""
        self._running: dict[str, Front] = {}
        self._stack = contextlib.AsyncExitStack()

    async def of(self, client: str, kind: str) -> Front:
        """The one for a client and a kind of provider."""
        if client != self._client:
            await self.stop()
            self._client = client
        found = self._running.get(kind)
        if found is None:
            upstream = await self._stack.enter_async_context(Upstream())
            served = await self._stack.enter_async_context(serving(in_front_of(upstream, kind)))
            found = self._running[kind] = Front(upstream, served)
        return found

    async def stop(self) -> None:
        """Stop all of them."""
        self._running.clear()
        await self._stack.aclose()
