"""The adapter for upstreams that speak OpenAI Chat Completions."""

from collections.abc import AsyncGenerator, Sequence

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.ports.provider import Call, Deltas, ModelInfo
from cauce.providers.endpoint import Endpoint
from cauce.providers.openai_compatible.dialect import Dialect
from cauce.providers.transport import Transport
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.errors import refused
from cauce.wire.openai_chat.request import render_request


class OpenAICompatible:
    """See `ports.provider.Provider`. `base_url` is with `/v1`; `api_key` may be empty, as local servers want none."""

    def __init__(self, name: str, base_url: str, api_key: str, transport: Transport, dialect: Dialect) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._endpoint = Endpoint(name, base_url, headers, transport, refused)
        self._dialect = dialect

    @property
    def name(self) -> str:
        return self._endpoint.name

    @property
    def base_url(self) -> str:
        """Where it is reached."""
        return self._endpoint.base_url

    async def open(self, call: Call) -> Deltas:
        return await Deltas.opened(self._answer(call), self.name)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return None

    async def models(self) -> tuple[ModelInfo, ...]:
        body = await self._endpoint.get("/models")
        try:
            listed = msgspec.json.decode(body, type=_Models)
        except msgspec.MsgspecError as error:
            raise ProviderFailure(
                f"{self.name}: its list of models has an unknown shape: {error}",
                failure="bad_request",
                provider=self.name,
                code="provider_error",
            ) from error
        return tuple([ModelInfo(model.id) for model in listed.data])

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    def _answer(self, call: Call) -> AsyncGenerator[Sequence[Delta], None]:
        body = self._dialect.apply(render_request(call.request, call.candidate.model, stream=call.streamed))
        decoder = ChatDecoder(self.name, estimate_input_tokens, call.request)
        return self._endpoint.answer("/chat/completions", body, call, decoder)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []
