"""The adapter for upstreams that speak OpenAI Responses."""

from fnmatch import fnmatchcase
from typing import Any

import msgspec

from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request
from cauce.domain.stream import Upstream
from cauce.domain.tokens import estimate_input_tokens
from cauce.ports.line import Line
from cauce.ports.provider import Call, Deltas, ModelInfo
from cauce.providers.endpoint import Endpoint
from cauce.providers.openai_compatible.dialect import Dialect
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.providers.openai_responses.background import BackgroundAnswers
from cauce.providers.schemas import fit_responses
from cauce.transport import Transport
from cauce.wire.dropping import dropped
from cauce.wire.openai_chat.errors import refused
from cauce.wire.openai_responses.decode import ResponsesDecoder
from cauce.wire.openai_responses.request import counted, render_request

_NO_SUCH_PATH = (404, 405, 501)


class OpenAIResponses:
    """See `ports.provider.Provider`.

    `base_url` is with `/v1`, and may hold a query that every request is sent with; `api_key` may be empty, as local servers
    want none. `background`: streamed answers are made in the background there, so that they can be attached to again.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str,
        transport: Transport,
        dialect: Dialect,
        *,
        background: bool = False,
    ) -> None:
        headers = {dialect.key_header: f"{dialect.key_scheme}{api_key}"} if api_key else {}
        address, mark, query = base_url.partition("?")
        self._endpoint = Endpoint(name, address, headers, transport, refused, key=api_key)
        self._query = mark + query
        self._dialect = dialect
        self._lists = OpenAICompatible(name, base_url, api_key, transport, dialect)
        """The same server on the wire where its models are listed."""
        self._counts = True
        self._background = BackgroundAnswers(self._endpoint, self._query) if background else None

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
        body = self._rendered(call.request, call.candidate.model, stream=call.streamed)
        decoder = ResponsesDecoder(self.name, estimate_input_tokens, call.request)
        if self._background is not None and call.streamed and _may_be_kept(call.request):
            return await self._background.open(body, call, decoder)
        return await self._endpoint.open(f"/responses{self._query}", body, call, decoder)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        if not self._counts:
            return None
        body = counted(self._rendered(request, model, stream=False))
        try:
            answered = await self._endpoint.post(f"/responses/input_tokens{self._query}", body)
        except ProviderFailure as failure:
            if failure.upstream_status in _NO_SUCH_PATH and failure.code != "model_not_found":
                self._counts = False
                return None
            raise
        try:
            return msgspec.json.decode(answered, type=_Counted).input_tokens
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderFailure(
                f"{self.name}: its count of tokens has an unknown shape: {error}",
                failure="bad_request",
                provider=self.name,
                code="provider_error",
            ) from error

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self._lists.models()

    def give_up(self, upstream: Upstream) -> None:
        """See `ports.attachable.Attachable`."""
        if self._background is not None and upstream.provider == self.name:
            self._background.cancel(upstream.response_id)

    async def aclose(self) -> None:
        if self._background is not None:
            await self._background.aclose()
        await self._endpoint.aclose()

    def _rendered(self, request: Request, model: str, *, stream: bool) -> dict[str, Any]:
        body = render_request(request, model, stream=stream)
        if self._dialect.schema is not None:
            fit_responses(body, self._dialect.schema)
        refused = {*self._dialect.drops, *self._refused_by(model)}
        for field in refused & body.keys():
            del body[field]
            dropped(f"openai_responses ({self._dialect.name})", field)
        if "reasoning_effort" in refused and "reasoning" in body:
            # Its name on the chat wire.
            body["reasoning"] = {name: value for name, value in body["reasoning"].items() if name != "effort"}
        return body

    def _refused_by(self, model: str) -> tuple[str, ...]:
        """Fields that `model` refuses."""
        for pattern, fields in self._dialect.model_drops:
            if fnmatchcase(model, pattern):
                return fields
        return ()


def _may_be_kept(request: Request) -> bool:
    """Whether the client lets the provider keep the answer for a while."""
    return request.extra is None or request.extra.data.get("store") is not False


class _Counted(msgspec.Struct):
    input_tokens: int
