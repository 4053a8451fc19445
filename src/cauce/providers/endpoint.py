"""What every HTTP upstream has in common: where it is, how it is asked, and how its answer becomes deltas.

Nothing here knows a wire: an adapter brings the body, the decoder and the meaning of a refusal.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from cauce import __version__
from cauce.domain.delta import Delta
from cauce.domain.errors import ProviderFailure
from cauce.domain.usage import Usage
from cauce.ports.line import Line
from cauce.ports.provider import Call, Candidate, Deltas, Timeouts
from cauce.providers.stall import Stall
from cauce.transport import Incoming, Outgoing, Transport
from cauce.wire.headroom import headroom

_ERROR_BODY = 1024 * 1024
_SHORTEST_KEY = 8
"""Characters of a key that is one: a placeholder is no secret, and may be part of any word."""
_LAST_BYTES = 0.1
"""Seconds the end of the body may take after the end marker: a socket that has nothing more to say can be used again."""

SHORT = Timeouts(total=10.0)
"""For questions that are no generation: lists of models, counts of tokens."""

_encode = msgspec.json.Encoder().encode


class Decoder(Protocol):
    """State of one answer being read. All raise `ProviderFailure` for what is no answer of the wire."""

    def feed(self, data: bytes) -> list[Delta]:
        """Deltas of the events that `data` completes."""
        ...

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`."""
        ...

    def completion(self, body: bytes) -> list[Delta]:
        """Deltas of a plain answer, ending with `Finish`."""
        ...

    def so_far(self) -> Usage:
        """What the answer has used by now, as far as can be told: what was reported, else an estimate."""
        ...

    @property
    def done(self) -> bool:
        """Whether the end marker came: nothing after it belongs to this answer."""
        ...


Refused = Callable[[str, int, Mapping[str, str], bytes], ProviderFailure]
"""From a provider's name, status, headers and body to the failure they stand for: each wire brings its own."""


class Endpoint:
    """An upstream's address, headers and connections. `name` is the provider's, for errors; `key` is in `headers`, and in no error."""

    def __init__(
        self,
        name: str,
        base_url: str,
        headers: Mapping[str, str],
        transport: Transport,
        refused: Refused,
        *,
        key: str = "",
    ) -> None:
        self.name = name
        self._key = key
        self.base_url = base_url.rstrip("/")
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "User-Agent": f"cauce/{__version__}",
            **headers,
        }
        self._transport = transport
        self._refused = refused

    async def get(self, path: str, limit: int = 8 * 1024 * 1024) -> bytes:
        """The body of a plain answer. Raises `ProviderFailure`."""
        incoming = await self._transport.send(
            Outgoing("GET", f"{self.base_url}{path}", self._headers, total=SHORT.total)
        )
        return await self._whole(incoming, limit)

    async def post(
        self, path: str, body: Any, timeouts: Timeouts = SHORT, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a plain answer to `body` as JSON. Raises `ProviderFailure`."""
        incoming = await self._transport.send(self._outgoing(path, body, timeouts, headers))
        return await self._whole(incoming)

    async def answer(
        self, path: str, body: Any, call: Call, decoder: Decoder, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Sequence[Delta], None]:
        """Ask, and read the answer through `decoder`, as a stream or whole, as `call` wants it."""
        incoming = await self._ask(path, body, call, headers)
        try:
            if incoming.status != 200:
                raise await self._refusal(incoming)
            if not call.streamed or "json" in incoming.headers.get("content-type", ""):
                yield decoder.completion(await incoming.read())
                return
            last: Sequence[Delta] = ()
            stall = Stall(self.name, call.candidates[0].timeouts.stalled)
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    deltas = decoder.feed(chunk)
                    if decoder.done:
                        incoming.leave(_LAST_BYTES)
                        last = deltas
                        break
                    if deltas:
                        yield deltas
                        stall.since = 0.0
                    else:
                        stall.look()
            try:
                end = decoder.finish()
            except ProviderFailure:
                if last:
                    yield last
                raise
            yield [*last, *end]
        except ProviderFailure as failure:
            self.hide_key(failure)
            raise
        finally:
            await incoming.aclose()

    async def open(
        self, path: str, body: Any, call: Call, decoder: Decoder, headers: Mapping[str, str] | None = None
    ) -> Deltas:
        """Ask, and read the answer through `decoder`, as a stream or whole, as `call` wants it. Returns with the first delta in hand.

        Raises `ProviderFailure`, also where `call` wants a stream of this provider read on: a new answer is not that.
        """
        if call.upstream is not None and call.upstream.provider == self.name:
            raise ProviderFailure(
                f"{self.name}: its own streams are not attached to (any more)",
                failure="bad_request",
                provider=self.name,
                code="provider_error",
            )
        if call.streamed:
            return await Deltas.opened(self.answer(path, body, call, decoder, headers), self.name, decoder.so_far)
        incoming = await self._ask(path, body, call, headers)
        try:
            if incoming.status != 200:
                raise await self._refusal(incoming)
            return Deltas(None, decoder.completion(await incoming.read()))
        except ProviderFailure as failure:
            self.hide_key(failure)
            raise
        finally:
            await incoming.aclose()

    async def delete(self, path: str, seconds: float | None = None) -> int:
        """The status that a DELETE is answered with, whatever it is. Raises `CauceError` where there is none."""
        total = SHORT.total if seconds is None else seconds
        incoming = await self._transport.send(Outgoing("DELETE", f"{self.base_url}{path}", self._headers, total=total))
        await incoming.read(_ERROR_BODY)
        return incoming.status

    async def begin(
        self, path: str, call: Call, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Incoming:
        """The head of an answer to `body`, or to a GET without one, whose own body is still to be read. Raises `ProviderFailure`."""
        candidate = call.candidates[0]
        outgoing = self._outgoing(path, body, candidate.timeouts, headers)
        if body is None:
            outgoing = msgspec.structs.replace(outgoing, method="GET", body=None)
        incoming = await self._transport.send(outgoing)
        self._note_headroom(incoming, call, candidate)
        if incoming.status != 200:
            raise await self._refusal(incoming)
        return incoming

    @property
    def line(self) -> Line:
        """Its connections."""
        return self._transport.line(self.base_url)

    def hide_key(self, failure: ProviderFailure) -> None:
        """Take the key out of what an upstream said: some repeat it, and errors go to clients and logs."""
        if len(self._key) >= _SHORTEST_KEY and self._key in failure.message:
            failure.message = failure.message.replace(self._key, "…")
            failure.args = (failure.message,)

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._transport.aclose()

    async def _ask(self, path: str, body: Any, call: Call, headers: Mapping[str, str] | None) -> Incoming:
        candidate = call.candidates[0]
        incoming = await self._transport.send(self._outgoing(path, body, candidate.timeouts, headers))
        self._note_headroom(incoming, call, candidate)
        return incoming

    def _note_headroom(self, incoming: Incoming, call: Call, candidate: Candidate) -> None:
        if (told := headroom(incoming.headers)) is not None:
            call.course.headroom = (candidate, told)

    def _outgoing(self, path: str, body: Any, timeouts: Timeouts, headers: Mapping[str, str] | None) -> Outgoing:
        return Outgoing(
            "POST",
            f"{self.base_url}{path}",
            self._headers if headers is None else {**self._headers, **headers},
            _encode(body),
            connect=timeouts.connect,
            idle=timeouts.idle,
            total=timeouts.total,
        )

    async def _whole(self, incoming: Incoming, limit: int = 32 * 1024 * 1024) -> bytes:
        if incoming.status != 200:
            raise await self._refusal(incoming)
        return await incoming.read(limit)

    async def _refusal(self, incoming: Incoming) -> ProviderFailure:
        """The failure that an answer other than 200 stands for, and what to do where the key is refused. Reads and closes it."""
        failure = await self._meant(incoming)
        if failure.failure == "auth":
            refused = "refused the key that Cauce has for it: check" if self._key else "wants a key: set"
            said = failure.message.removeprefix(f"{self.name}: ")
            failure.message = f"{self.name} {refused} api_key of [providers.{self.name}]; it said: {said}"
            failure.args = (failure.message,)
        self.hide_key(failure)
        return failure

    async def _meant(self, incoming: Incoming) -> ProviderFailure:
        status = incoming.status
        if 300 <= status < 400:
            await incoming.aclose()
            return ProviderFailure(
                f"{self.name} redirects to {incoming.headers.get('location', 'nowhere')}: correct its base_url",
                failure="transient",
                provider=self.name,
                upstream_status=status,
            )
        return self._refused(self.name, status, incoming.headers, await incoming.read(_ERROR_BODY))
