"""A provider that takes no addresses, made to take them: what they point to is fetched and sent along."""

import msgspec

from cauce.domain.request import Request
from cauce.domain.stream import Upstream
from cauce.ports.attachable import Attachable
from cauce.ports.line import Line, Reached
from cauce.ports.provider import Call, Deltas, ModelInfo, Provider
from cauce.providers.fetch import Fetcher
from cauce.providers.inline import inline_request


class Inlining:
    """`provider` behind a fetcher. See `ports.provider.Provider`. Addresses that begin with one of `kept` it takes as they are."""

    def __init__(self, provider: Provider, fetcher: Fetcher, kept: tuple[str, ...] = ()) -> None:
        self._provider = provider
        self._fetcher = fetcher
        self._kept = kept

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def line(self) -> Line | None:
        """That of the provider behind it."""
        return self._provider.line if isinstance(self._provider, Reached) else None

    async def open(self, call: Call) -> Deltas:
        """Raises `InvalidRequest` naming the part whose address cannot be fetched."""
        request = await inline_request(call.request, self._fetcher, self._kept)
        return await self._provider.open(
            call if request is call.request else msgspec.structs.replace(call, request=request)
        )

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return await self._provider.count_tokens(await inline_request(request, self._fetcher, self._kept), model)

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self._provider.models()

    def give_up(self, upstream: Upstream) -> None:
        if isinstance(self._provider, Attachable):
            self._provider.give_up(upstream)

    async def aclose(self) -> None:
        await self._provider.aclose()
