"""The async client."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar, Unpack

import msgspec

from cauce.client.answer import Answer, Parsed, read_answer
from cauce.client.connect import Connection
from cauce.client.errors import CallFailed, ParseError, Unreachable
from cauce.client.options import Messages, Options, body
from cauce.client.shapes import Adapter, shape
from cauce.domain.delta import Delta, Failed, Finish
from cauce.domain.errors import ProviderFailure
from cauce.wire.native.decode import NativeDecoder

T = TypeVar("T")

BASE_URL = "http://127.0.0.1:8000"

_PATH = "/llm/message"
_LAST_BYTES = 0.1


class Client:
    """A Cauce at `base_url`. `timeout` is in seconds, for calls that set none of their own (None: no bound).

        async with Client() as client:
            answer = await client.message("Where is the Giralda?")

    All methods raise `CauceError`: `CallFailed`, `Unreachable`, and `DeadlineExceeded` when the time is over.
    """

    def __init__(self, base_url: str = BASE_URL, *, api_key: str | None = None, timeout: float | None = 600.0) -> None:
        self._connection = Connection(base_url, api_key, timeout)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    async def message(self, messages: Messages, **options: Unpack[Options]) -> Answer:
        """The whole answer to `messages`."""
        return await self._answer(messages, options)

    async def stream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta, None]:
        """The answer as it comes, delta by delta, to its `Finish`. Close it (`aclosing`) to stop the model before the end.

        An answer that breaks off raises `CallFailed`; what came of it has been given.
        """
        incoming = await self._connection.post(_PATH, {**body(messages, options), "stream": True}, streamed=True)
        request_id = incoming.headers.get("x-cauce-request-id")
        decoder = NativeDecoder()
        try:
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    for delta in decoder.feed(chunk):
                        if not isinstance(delta, Finish):
                            yield delta
                            continue
                        incoming.leave(_LAST_BYTES)
                        if delta.error is not None:
                            raise _broken(delta.error, request_id)
                        yield delta
                        return
        except ProviderFailure as error:
            raise Unreachable(error.message) from error
        finally:
            await incoming.aclose()
        raise Unreachable("the stream ended without its last frame: it was cut off")

    async def parse(self, type: type[T] | Adapter[T], messages: Messages, **options: Unpack[Options]) -> Parsed[T]:
        """The answer to `messages` as a value of `type`: a pydantic model, a msgspec struct, a dataclass, a typed dict, …

        The server holds the model to the type's schema, or tells it and checks. Raises `ParseError` with the text of an
        answer that is none all the same: cut at its length, refused, or refused by the type's own checks.
        """
        wanted = shape(type)
        json_schema = {"name": wanted.name, "schema": wanted.schema, "strict": True}
        asked: dict[str, Any] = {**options, "response_format": {"type": "json_schema", "json_schema": json_schema}}
        answer = await self._answer(messages, asked)
        if answer.finish_reason != "stop":
            why = f"the answer ended with {answer.finish_reason!r} before it was whole"
            raise ParseError(why, answer.text, request_id=answer.request_id)
        try:
            return Parsed(wanted.read(answer.text), answer)
        except (ValueError, msgspec.MsgspecError) as error:
            why = f"the answer is no {wanted.name}: {error}"
            raise ParseError(why, answer.text, request_id=answer.request_id) from error

    async def _answer(self, messages: Messages, options: Mapping[str, Any]) -> Answer:
        incoming = await self._connection.post(_PATH, body(messages, options))
        try:
            raw = await incoming.read()
        except ProviderFailure as error:
            raise Unreachable(error.message) from error
        return read_answer(raw, incoming.headers.get("x-cauce-request-id"))


def _broken(failed: Failed, request_id: str | None) -> CallFailed:
    return CallFailed(failed.message, failed.code, retry_after=failed.retry_after, request_id=request_id)
