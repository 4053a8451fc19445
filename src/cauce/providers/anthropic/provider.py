"""The adapter for upstreams that speak Anthropic's Messages."""

from typing import TypeVar

import msgspec

from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.ports.line import Line
from cauce.ports.provider import Call, Candidate, Deltas, ModelInfo
from cauce.providers.endpoint import Endpoint
from cauce.providers.schemas import fit_messages
from cauce.transport import Transport
from cauce.wire.anthropic_messages.decode import MessagesDecoder
from cauce.wire.anthropic_messages.errors import refused
from cauce.wire.anthropic_messages.request import Rendered, counted, is_native, render_request
from cauce.wire.anthropic_messages.sampling import NEWEST

T = TypeVar("T")

DEFAULT_MODEL = "claude-haiku-4-5"
"""The model to ask where nobody says which."""

TOOL_NAMES = r"[a-zA-Z0-9_-]{1,128}"
"""What names of tools the API takes."""

_MOST_MODELS = 1000
"""What the list of models gives at a time, at most."""


class Anthropic:
    """See `ports.provider.Provider`. `base_url` is without `/v1`; `api_key` may be empty.

    `api_version` None sends the newest version that knows all a request holds. The key goes out as `x-api-key`: every version
    of the API and every server like it takes that, and where both forms come the API heeds it.
    """

    def __init__(
        self, name: str, base_url: str, api_key: str, transport: Transport, api_version: str | None = None
    ) -> None:
        headers = {"anthropic-version": api_version or NEWEST, **({"x-api-key": api_key} if api_key else {})}
        self._endpoint = Endpoint(name, base_url, headers, transport, refused, key=api_key)
        self._api_version = api_version

    @property
    def name(self) -> str:
        return self._endpoint.name

    @property
    def line(self) -> Line:
        """Its connections."""
        return self._endpoint.line

    @property
    def base_url(self) -> str:
        """Where it is reached."""
        return self._endpoint.base_url

    async def open(self, call: Call) -> Deltas:
        rendered = self._rendered(call.request, call.candidate, stream=call.streamed)
        decoder = MessagesDecoder(self.name, estimate_input_tokens, call.request)
        return await self._endpoint.open("/v1/messages", rendered.body, call, decoder, rendered.headers)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        rendered = self._rendered(request, Candidate(self, model), stream=False)
        body = await self._endpoint.post("/v1/messages/count_tokens", counted(rendered.body), headers=rendered.headers)
        return self._decoded(body, _Count, "count of tokens").input_tokens

    async def models(self) -> tuple[ModelInfo, ...]:
        body = await self._endpoint.get(f"/v1/models?limit={_MOST_MODELS}")
        listed = self._decoded(body, _Models, "list of models")
        return tuple([ModelInfo(model.id, model.max_input_tokens) for model in listed.data])

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    def _rendered(self, request: Request, candidate: Candidate, *, stream: bool) -> Rendered:
        """What is sent. Schemas of other wires' clients are made into ones that are taken here."""
        rendered = render_request(
            request, candidate.model, stream=stream, facts=candidate.facts, api_version=self._api_version
        )
        if not is_native(request):
            fit_messages(rendered.body)
        return rendered

    def _decoded(self, body: bytes, shape: type[T], what: str) -> T:
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderFailure(
                f"{self.name}: its {what} has an unknown shape: {error}",
                failure="bad_request",
                provider=self.name,
                code="provider_error",
            ) from error


class _Count(msgspec.Struct):
    input_tokens: int


class _Model(msgspec.Struct):
    id: str
    max_input_tokens: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []
