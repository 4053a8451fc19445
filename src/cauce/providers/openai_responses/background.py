"""An answer that the provider makes on its own, whoever reads it: a reader that is cut off attaches again where it was.

    POST /responses {background, stream, store}  ->  events, numbered  ->  cut
    GET /responses/{id}?stream=true&starting_after=N  ->  the events after N

Nothing is paid twice for that. An answer that nobody wants any more has to be cancelled there, or it is made to its end and billed. Its
source is OpenAI's guide "Background mode".
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.errors import CauceError, ProviderFailure
from cauce.domain.stream import Upstream
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Deltas
from cauce.providers.endpoint import Endpoint
from cauce.providers.stall import Stall
from cauce.transport import Incoming
from cauce.wire.openai_responses.decode import ResponsesDecoder
from cauce.wire.sse import Event, EventTooLarge, SSEDecoder

TRIES = 3
"""How often it is attached again, at most, without anything new."""

_LAST_BYTES = 0.1

logger = logging.getLogger("cauce.calls")


class _Named(msgspec.Struct):
    id: str = ""


class _Numbered(msgspec.Struct):
    """What is looked at in every event."""

    sequence_number: int | None = None
    response: _Named | None = None


_numbers = msgspec.json.Decoder(_Numbered)


class BackgroundAnswers:
    """Of one provider: how they are asked for, attached to and cancelled. `query` is what every address ends with, with its mark."""

    def __init__(self, endpoint: Endpoint, query: str) -> None:
        self._endpoint = endpoint
        self._query = query
        self._cancelling: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._endpoint.name

    async def open(self, body: dict[str, Any], call: Call, decoder: ResponsesDecoder) -> Deltas:
        """The answer to `body`; where `call` has a stream of this provider, what that gives after what has been read of it."""
        answer = _Answer(self, call, decoder)
        source = answer.batches({**body, "background": True, "store": True})
        return await Deltas.opened(source, self.name, answer.so_far, answer.position)

    async def ask(self, body: dict[str, Any], call: Call) -> Incoming:
        """The stream of a new answer. Raises `ProviderFailure`."""
        return await self._endpoint.begin(f"/responses{self._query}", call, body)

    def hide_key(self, failure: ProviderFailure) -> None:
        """See `Endpoint.hide_key`."""
        self._endpoint.hide_key(failure)

    async def attach(self, response_id: str, after: int | None, call: Call) -> Incoming:
        """The stream of the answer `response_id`, from its beginning or `after` an event. Raises `ProviderFailure`."""
        asked = "stream=true" if after is None else f"stream=true&starting_after={after}"
        mark = f"{self._query}&" if self._query else "?"
        return await self._endpoint.begin(f"/responses/{quote(response_id, safe='')}{mark}{asked}", call)

    def cancel(self, response_id: str) -> None:
        """Have it told that nobody wants the answer any more."""
        task = asyncio.create_task(self._cancel(response_id), name=f"cancel of {response_id}")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def aclose(self) -> None:
        """Wait for what is being cancelled."""
        await asyncio.gather(*self._cancelling)

    async def _cancel(self, response_id: str) -> None:
        try:
            await self._endpoint.post(f"/responses/{quote(response_id, safe='')}/cancel{self._query}", {})
        except CauceError as error:
            logger.warning("%s: the answer %s may go on and be billed: %s", self.name, response_id, error.message)


class _Answer:
    """One answer being read, over as many connections as it takes."""

    def __init__(self, answers: BackgroundAnswers, call: Call, decoder: ResponsesDecoder) -> None:
        self._answers = answers
        self._call = call
        self._decoder = decoder
        self._id = ""
        self._cursor = -1
        """The number of the last event that was taken in."""
        self._known = -1
        """That of the last one whose deltas readers have from a process before this one."""
        self._over = False
        """The provider said itself how it ended."""
        upstream = call.upstream
        if upstream is not None and upstream.provider == answers.name and upstream.cursor.isdecimal():
            self._id, self._known = upstream.response_id, int(upstream.cursor)

    def so_far(self) -> Usage:
        """What it has used by now. Nothing, once it is handed over: whoever attaches to it is told all of it."""
        return Usage() if self._id and self._call.course.handed_over else self._decoder.so_far()

    def position(self) -> Upstream | None:
        """See `Deltas.position`."""
        return Upstream(self._answers.name, self._id, str(self._cursor)) if self._id and self._cursor >= 0 else None

    async def batches(self, body: dict[str, Any]) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer, whatever becomes of the connections it is read over."""
        decoder = self._decoder
        tries = 0
        stall = Stall(self._answers.name, self._call.candidates[0].timeouts.stalled)
        try:
            # What it says depends on what came before: it is read from the beginning, and what is known is left out.
            incoming = await (
                self._answers.attach(self._id, None, self._call) if self._id else self._answers.ask(body, self._call)
            )
            while True:
                cut: ProviderFailure | None = None
                before = self._cursor
                async with aclosing(self._read(incoming)) as events:
                    while not decoder.done:
                        try:
                            batch = await anext(events)
                        except StopAsyncIteration:
                            break
                        except ProviderFailure as failure:
                            cut = failure
                            break
                        if deltas := self._taken(batch):
                            yield deltas
                            stall.since = 0.0
                        else:
                            stall.look()
                if decoder.done or not self._id:
                    break
                tries = 1 if self._cursor > before else tries + 1
                if tries > TRIES:
                    break
                again = await self._again(cut)
                if again is None:
                    break
                incoming = again
            if cut is not None and not decoder.done:
                raise cut
            yield decoder.finish()
        except ProviderFailure as failure:
            self._answers.hide_key(failure)
            raise
        finally:
            if self._id and not (self._over or decoder.done or self._call.course.handed_over):
                self._answers.cancel(self._id)

    async def _again(self, cut: ProviderFailure | None) -> Incoming | None:
        """The stream from where it broke; None where it cannot be had."""
        why = "it ended without its end marker" if cut is None else cut.message
        logger.info("%s: attaching to %s again: %s", self._call.request_id, self._id, why)
        try:
            return await self._answers.attach(self._id, self._cursor if self._cursor >= 0 else None, self._call)
        except ProviderFailure as failure:
            logger.info("%s: %s cannot be attached to: %s", self._call.request_id, self._id, failure.message)
            return None

    async def _read(self, incoming: Incoming) -> AsyncGenerator[list[Event], None]:
        """The events of one connection, as they come; none where a read completed none."""
        sse = SSEDecoder()
        try:
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    try:
                        events = sse.feed(chunk)
                    except EventTooLarge as error:
                        raise ProviderFailure(
                            f"{self._answers.name}: {error}",
                            failure="transient",
                            provider=self._answers.name,
                            shape=True,
                        ) from error
                    yield events
                    if self._decoder.done:
                        incoming.leave(_LAST_BYTES)
                        return
        finally:
            await incoming.aclose()

    def _taken(self, events: list[Event]) -> list[Delta]:
        """The deltas of those of `events` that are new."""
        shown: list[Delta] = []
        for event in events:
            number = self._number(event)
            if number is not None and number <= self._cursor:
                continue
            try:
                deltas = self._decoder.take((event,))
            except ProviderFailure:
                self._over = True
                raise
            if number is not None:
                self._cursor = number
            if self._cursor > self._known or self._known < 0:
                shown += deltas
        return shown

    def _number(self, event: Event) -> int | None:
        try:
            told = _numbers.decode(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # The decoder has the words for what is wrong with it.
            return None
        if told.response is not None and told.response.id and not self._id:
            self._id = told.response.id
        return told.sequence_number
