"""The async client."""

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack

import msgspec
from msgspec import UNSET, UnsetType

from cauce.client.answer import Answer, Parsed, read_answer
from cauce.client.connect import Connection, encode
from cauce.client.errors import ParseError, Unreachable
from cauce.client.options import Messages, OnDisconnect, Options, body
from cauce.client.progress import Progress
from cauce.client.reconnect import Reconnect
from cauce.client.shapes import Adapter, shape
from cauce.client.stream import Asked, Session, Stream, cancel
from cauce.client.timing import Dice, LoopClock
from cauce.domain.errors import ProviderFailure

T = TypeVar("T")

BASE_URL = "http://127.0.0.1:8000"

_PATH = "/llm/message"


class Client:
    """A Cauce at `base_url`. `timeout` is in seconds, for calls that set none of their own (None: no bound). Not given, it is 600 for
    an answer that comes whole, and a stream goes on for as long as it is not silent.

        async with Client() as client:
            answer = await client.message("Where is the Giralda?")

    `reconnect` says how streams find back to a server they lost. All methods raise `CauceError`: `CallFailed`, `Unreachable`,
    and `DeadlineExceeded` when the time is over.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: float | UnsetType | None = UNSET,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._connection = Connection(base_url, api_key, timeout)
        self._session = Session(self._connection, reconnect or Reconnect(), LoopClock(), Dice())

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

    def stream(
        self,
        messages: Messages,
        *,
        id: str | None = None,
        on_disconnect: OnDisconnect | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """The answer as it comes, whatever happens to the connection.

        `id` is the stream's, by which it can be resumed from elsewhere; asking for it again attaches to it. `on_disconnect` says
        what the server does once nobody is connected to it: `continue`, `cancel` (a connection that breaks cancels it too), or
        `grace:120`, which is `cancel` after 120 seconds; it is fixed when the stream begins. `on_progress` is called with each
        change of `Stream.progress`.
        """
        asked = Asked(
            id if id is not None else os.urandom(16).hex(),
            encode(body(messages, options)),
            # A stream that is to outlive its readers is not cancelled by leaving it.
            ours=id is None and on_disconnect in (None, "cancel"),
            headers={"X-Cauce-On-Disconnect": on_disconnect} if on_disconnect is not None else None,
            total=self._connection.total(options.get("timeout"), streamed=True),
        )
        return Stream(self._session, asked, on_progress)

    def resume(
        self,
        id: str,
        *,
        after: int = 0,
        epoch: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Stream:
        """The stream `id`, from behind delta number `after` (0: from its start); `epoch` is that of the stream `after` came from.

        Leaving it does not cancel it.
        """
        asked = Asked(id, after=after, epoch=epoch, total=self._connection.total(None, streamed=True))
        return Stream(self._session, asked, on_progress)

    async def cancel(self, id: str) -> None:
        """Stop the stream `id`, whoever reads it. That it is unknown or over is no error."""
        await cancel(self._session, id)

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
