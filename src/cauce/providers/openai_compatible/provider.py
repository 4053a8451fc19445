"""The adapter for upstreams that speak OpenAI Chat Completions."""

from urllib.parse import quote, urlsplit

import msgspec

from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import ProviderFailure, Unsupported
from cauce.domain.request import Prompt, Request
from cauce.domain.stream import Upstream
from cauce.domain.tokens import estimate_input_tokens
from cauce.ports.ids import Ids
from cauce.ports.line import Line
from cauce.ports.provider import Call, Deltas, ModelInfo, Timeouts
from cauce.providers.endpoint import Endpoint
from cauce.providers.openai_compatible.adaptation import adapt, begin_answer
from cauce.providers.openai_compatible.dialect import Dialect
from cauce.providers.openai_compatible.kept_streams import KeptStreams
from cauce.transport import Transport
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.errors import refused
from cauce.wire.openai_chat.request import render_request
from cauce.wire.openai_completions.decode import CompletionDecoder
from cauce.wire.openai_completions.request import render_request as render_prompt
from cauce.wire.openai_embeddings import parse_answer
from cauce.wire.openai_embeddings import render_request as render_embedding_request

_ROOT = "~"
"""How a dialect's path begins that is below the server's root."""


class OpenAICompatible:
    """See `ports.provider.Provider` and `ports.embedder.Embedder`.

    `base_url` is with `/v1`, and may hold a query that every request is sent with; `api_key` may be empty, as local servers
    want none. `ids` names streams where the dialect has its servers keep them; without it none are kept.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str,
        transport: Transport,
        dialect: Dialect,
        *,
        ids: Ids | None = None,
    ) -> None:
        headers = {dialect.key_header: f"{dialect.key_scheme}{api_key}"} if api_key else {}
        address, _, self._query = base_url.partition("?")
        url = urlsplit(address)
        self._endpoint = Endpoint(name, address, headers, transport, refused, key=api_key)
        self._root = Endpoint(name, f"{url.scheme}://{url.netloc}", headers, transport, refused, key=api_key)
        self._dialect = dialect
        self._name = name
        self._streams: KeptStreams | None = None
        if ids is not None and dialect.streams is not None:
            self._streams = KeptStreams(*self._path(dialect.streams, ""), ids)

    @property
    def name(self) -> str:
        return self._name

    @property
    def line(self) -> Line:
        """Its connections."""
        return self._endpoint.line

    @property
    def base_url(self) -> str:
        """Where it is reached."""
        return self._endpoint.base_url

    async def open(self, call: Call) -> Deltas:
        """The answer to a conversation, or to a prompt where the server takes prompts."""
        request, model = call.request, call.candidates[0].model
        prompted = self._prompted(request.prompt) if request.prompt is not None else None
        render = render_request if prompted is None else render_prompt
        body = adapt(render(request, model, stream=call.streamed), self._dialect)
        chat = self._dialect.chat
        if request.continues:
            begin_answer(body, self._dialect)
            chat = self._dialect.prefill_chat or chat
        chats = prompted is None or (prompted == self._dialect.infill and self._dialect.infill_chats)
        decoder = (ChatDecoder if chats else CompletionDecoder)(self._name, estimate_input_tokens, request)
        endpoint, path = self._path(prompted or chat, model)
        streams = self._streams if call.streamed and prompted is None else None
        if streams is not None and (streams.has(call.upstream) or await streams.kept()):
            return await streams.open(path, body, call, decoder)
        return await endpoint.open(path, body, call, decoder)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return None

    async def models(self) -> tuple[ModelInfo, ...]:
        body = await self._endpoint.get(self._path("/models", "")[1])
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

    async def embed(self, request: EmbeddingRequest, model: str, timeouts: Timeouts) -> Embeddings:
        if self._dialect.embeddings is None:
            raise Unsupported(f"{self.name} makes no embeddings: name a model of another provider", field="model")
        body = render_embedding_request(request, model, self._dialect.dimensions, packs=self._dialect.packs_embeddings)
        endpoint, path = self._path(self._dialect.embeddings, model)
        return parse_answer(await endpoint.post(path, body, timeouts), request, self.name)

    def give_up(self, upstream: Upstream) -> None:
        """See `ports.attachable.Attachable`."""
        if self._streams is not None and self._streams.has(upstream):
            self._streams.stop(upstream.response_id)

    async def aclose(self) -> None:
        if self._streams is not None:
            await self._streams.aclose()
        await self._endpoint.aclose()

    def _prompted(self, prompt: Prompt) -> str | None:
        """The path that takes `prompt`; None where it is asked for as a conversation. Raises `Unsupported`."""
        path = self._dialect.completions if prompt.suffix is None else self._dialect.infill
        if path is None and prompt.suffix is not None:
            raise Unsupported(f"suffix: {self.name} cannot fill in between a prompt and a suffix", field="suffix")
        if path is None and not prompt.text:
            raise Unsupported(f"prompt: {self.name} takes prompts of plain text only", field="prompt")
        return path

    def _path(self, template: str, model: str) -> tuple[Endpoint, str]:
        """Where a path of the dialect is: the endpoint, and the path below its address."""
        endpoint = self._root if template.startswith(_ROOT) else self._endpoint
        path = template.removeprefix(_ROOT)
        if "{" in path:
            path = path.replace("{model}", quote(model, safe=""))
        return endpoint, f"{path}?{self._query}" if self._query else path


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []
