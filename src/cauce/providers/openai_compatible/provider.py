"""The adapter for upstreams that speak OpenAI Chat Completions."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from cauce import __version__
from cauce.domain.delta import Delta
from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.ports.provider import Call, Deltas, ModelInfo
from cauce.providers.openai_compatible.dialect import Dialect
from cauce.providers.transport import Incoming, Outgoing, Transport
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.errors import UpstreamError, parse_error, to_failure
from cauce.wire.openai_chat.request import render_request

_ERROR_BODY = 1024 * 1024
_MODELS_BODY = 8 * 1024 * 1024
_MODELS_TIMEOUT = 10.0
_LAST_BYTES = 0.1
"""Seconds the end of the body may take after `[DONE]`: a socket that has nothing more to say can be used again."""

_encode = msgspec.json.Encoder().encode


class OpenAICompatible:
    """See `ports.provider.Provider`. `base_url` is with `/v1`; `api_key` may be empty, as local servers want none."""

    def __init__(self, name: str, base_url: str, api_key: str, transport: Transport, dialect: Dialect) -> None:
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._transport = transport
        self._dialect = dialect
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "User-Agent": f"cauce/{__version__}",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    @property
    def name(self) -> str:
        return self._name

    @property
    def base_url(self) -> str:
        """Where it is reached."""
        return self._base_url

    async def open(self, call: Call) -> Deltas:
        return await Deltas.opened(self._answer(call), self._name)

    async def count_tokens(self, request: Request) -> int:
        return estimate_input_tokens(request)

    async def models(self) -> tuple[ModelInfo, ...]:
        incoming = await self._transport.send(
            Outgoing("GET", f"{self._base_url}/models", self._headers, total=_MODELS_TIMEOUT)
        )
        if incoming.status != 200:
            raise await self._refusal(incoming)
        try:
            listed = msgspec.json.decode(await incoming.read(_MODELS_BODY), type=_Models)
        except msgspec.MsgspecError as error:
            raise ProviderFailure(
                f"{self._name}: its list of models has an unknown shape: {error}",
                failure="bad_request",
                provider=self._name,
                code="provider_error",
            ) from error
        return tuple([ModelInfo(model.id) for model in listed.data])

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _answer(self, call: Call) -> AsyncGenerator[Sequence[Delta], None]:
        candidate = call.candidate
        timeouts = candidate.timeouts
        body = self._dialect.apply(render_request(call.request, candidate.model, stream=call.streamed))
        incoming = await self._transport.send(
            Outgoing(
                "POST",
                f"{self._base_url}/chat/completions",
                self._headers,
                _encode(body),
                connect=timeouts.connect,
                idle=timeouts.idle,
                total=timeouts.total,
            )
        )
        try:
            if incoming.status != 200:
                raise await self._refusal(incoming)
            decoder = ChatDecoder(self._name, estimate_input_tokens, call.request)
            if not call.streamed or "json" in incoming.headers.get("content-type", ""):
                yield decoder.completion(await incoming.read())
                return
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    if deltas := decoder.feed(chunk):
                        yield deltas
                    if decoder.done:
                        incoming.leave(_LAST_BYTES)
                        break
            yield decoder.finish()
        finally:
            await incoming.aclose()

    async def _refusal(self, incoming: Incoming) -> ProviderFailure:
        """The failure that an answer other than 200 stands for. Reads and closes it."""
        status = incoming.status
        if 300 <= status < 400:
            await incoming.aclose()
            return ProviderFailure(
                f"{self._name} redirects to {incoming.headers.get('location', 'nowhere')}: correct its base_url",
                failure="transient",
                provider=self._name,
                upstream_status=status,
            )
        body = await incoming.read(_ERROR_BODY)
        error = _error_in(body) or UpstreamError(f"HTTP {status}: {body[:200].decode('utf-8', 'replace').strip()}")
        return to_failure(error, provider=self._name, status=status, retry_after=_retry_after(incoming.headers))


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


def _error_in(body: bytes) -> UpstreamError | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    if not isinstance(value, dict):
        return None
    members = cast(dict[str, Any], value)
    return parse_error(members.get("error") or members.get("detail") or members.get("message"))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date, RFC 9110 10.2.3)."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        date = headers.get("date")
        if date is None:
            return None
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return None
