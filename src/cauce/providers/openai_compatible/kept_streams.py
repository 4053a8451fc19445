"""Streams that a server keeps while it makes them, as llama.cpp's does: a reader that is cut off attaches again, to the byte.

    DELETE /stream?conv_id=…                   ->  204: this server keeps streams, and stops them when it is told to
    POST /chat/completions, X-Conversation-Id  ->  bytes  ->  cut
    GET /stream?conv_id=…&from=N               ->  the bytes after the first N

Such a server goes on when its reader has gone, so an answer that nobody wants any more has to be stopped there. Sources:
https://github.com/ggml-org/llama.cpp/pull/23226 and /pull/26137, and there `tools/server/README-dev.md` and `server-stream.cpp`. What it
keeps are the last 4 MiB of a stream, until five minutes after its end; one that is gone is answered with 404, bytes that are with 400.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from cauce.domain.delta import Delta
from cauce.domain.errors import CauceError, ProviderFailure
from cauce.domain.stream import Upstream
from cauce.domain.usage import Usage
from cauce.ports.ids import Ids
from cauce.ports.provider import Call, Deltas
from cauce.providers.endpoint import Decoder, Endpoint
from cauce.providers.stall import Stall
from cauce.transport import Incoming

TRIES = 3
"""How often it is attached again, at most, without anything new."""

_KEEPS, _DOES_NOT = 600.0, 60.0
"""Seconds after which a server is asked again whether it keeps streams."""

_ASKING = 2.0
"""Seconds it may take to say so: an answer waits for it."""

_LAST_BYTES = 0.1

logger = logging.getLogger("cauce.calls")


class KeptStreams:
    """Of one server. `path` is where they are, with its query if the address has one; `ids` names those that are asked for."""

    def __init__(self, endpoint: Endpoint, path: str, ids: Ids) -> None:
        self._endpoint = endpoint
        self._path = f"{path}{'&' if '?' in path else '?'}conv_id="
        self._ids = ids
        self._stopping: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        self._keeps = False
        self._known_until = 0.0
        """On the loop's clock."""

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._endpoint.name

    def has(self, upstream: Upstream | None) -> bool:
        """Whether `upstream` is a stream of this server, which may not be there any more."""
        return upstream is not None and upstream.provider == self.name and upstream.cursor.isdecimal()

    async def kept(self) -> bool:
        """Whether the server keeps streams, and can be told to stop them: where nobody can, a closed connection is what stops one."""
        now = asyncio.get_running_loop().time
        if now() >= self._known_until:
            async with self._asking:
                if now() >= self._known_until:
                    self._keeps = await self._ended(self._ids.new("cauce"), _ASKING)
                    self._known_until = now() + (_KEEPS if self._keeps else _DOES_NOT)
        return self._keeps

    async def open(self, path: str, body: Any, call: Call, decoder: Decoder) -> Deltas:
        """The answer to `body`; where `call` has a stream of this server, what that gives after what has been read of it."""
        answer = _Answer(self, call, decoder)
        return await Deltas.opened(answer.batches(path, body), self.name, answer.so_far, answer.position)

    async def ask(self, path: str, body: Any, call: Call) -> tuple[str, Incoming]:
        """A new answer: what it is known by, and its stream. Raises `ProviderFailure`."""
        name = self._ids.new("cauce")
        try:
            return name, await self._endpoint.begin(path, call, body, {"X-Conversation-Id": name})
        except ProviderFailure as failure:
            if failure.upstream_status is None:
                # It may have heard the question, and would go on with it.
                self.stop(name)
            raise
        except BaseException:
            self.stop(name)
            raise

    def hide_key(self, failure: ProviderFailure) -> None:
        """See `Endpoint.hide_key`."""
        self._endpoint.hide_key(failure)

    async def attach(self, name: str, start: int, call: Call) -> Incoming:
        """The stream `name` from byte `start` on. Raises `ProviderFailure`."""
        return await self._endpoint.begin(f"{self._path}{name}&from={start}", call)

    def stop(self, name: str) -> None:
        """Have the server told that nobody wants the answer any more. Returns at once."""
        task = asyncio.create_task(self._stop(name), name=f"stop of {name}")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def aclose(self) -> None:
        """Wait for what is being stopped."""
        await asyncio.gather(*self._stopping)

    async def _stop(self, name: str) -> None:
        if not await self._ended(name):
            self._known_until = 0.0
            logger.info("%s: could not be told to stop %s: it may go on to its end", self.name, name)

    async def _ended(self, name: str, seconds: float | None = None) -> bool:
        """Whether the server says that there is no stream `name` any more."""
        try:
            return await self._endpoint.delete(f"{self._path}{name}", seconds) == 204
        except CauceError:
            return False


class _Answer:
    """One answer being read, over as many connections as it takes."""

    def __init__(self, streams: KeptStreams, call: Call, decoder: Decoder) -> None:
        self._streams = streams
        self._call = call
        self._decoder = decoder
        self._name = ""
        self._read = 0
        """Bytes of it that were taken in."""
        self._known = 0
        """How many of them were by a process before this one: readers have what they say."""
        if call.upstream is not None and streams.has(call.upstream):
            self._name, self._known = call.upstream.response_id, int(call.upstream.cursor)

    def so_far(self) -> Usage:
        """What it has used by now. Nothing, once it is handed over: whoever attaches to it is told all of it."""
        return Usage() if self._name and self._call.course.handed_over else self._decoder.so_far()

    def position(self) -> Upstream | None:
        """See `Deltas.position`."""
        return Upstream(self._streams.name, self._name, str(self._read)) if self._name and self._read else None

    async def batches(self, path: str, body: Any) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer, whatever becomes of the connections it is read over."""
        decoder = self._decoder
        tries, whole = 0, False
        stall = Stall(self._streams.name, self._call.candidates[0].timeouts.stalled)
        try:
            if self._name:
                # What its bytes say depends on those before them: it is read from the beginning, and what is known is left out.
                incoming = await self._streams.attach(self._name, 0, self._call)
            else:
                self._name, incoming = await self._streams.ask(path, body, self._call)
            while True:
                cut: ProviderFailure | None = None
                before = self._read
                async with aclosing(self._chunks(incoming)) as chunks:
                    while not decoder.done:
                        try:
                            chunk = await anext(chunks)
                        except StopAsyncIteration:
                            break
                        except ProviderFailure as failure:
                            cut = failure
                            break
                        if deltas := self._taken(chunk):
                            yield deltas
                            stall.since = 0.0
                        else:
                            stall.look()
                if decoder.done:
                    break
                tries = 1 if self._read > before else tries + 1
                again = await self._again(cut) if tries <= TRIES else None
                if again is None:
                    break
                incoming = again
            if cut is not None and not decoder.done:
                raise cut
            last = decoder.finish()
            whole = True
            yield last
        except ProviderFailure as failure:
            self._streams.hide_key(failure)
            raise
        finally:
            if self._name and not (whole or self._call.course.handed_over):
                self._streams.stop(self._name)

    async def _again(self, cut: ProviderFailure | None) -> Incoming | None:
        """The stream from where it broke; None where it cannot be had."""
        why = "it ended without its end marker" if cut is None else cut.message
        logger.info("%s: attaching to %s again: %s", self._call.request_id, self._name, why)
        try:
            return await self._streams.attach(self._name, self._read, self._call)
        except ProviderFailure as failure:
            logger.info("%s: %s cannot be attached to: %s", self._call.request_id, self._name, failure.message)
            return None

    async def _chunks(self, incoming: Incoming) -> AsyncGenerator[bytes, None]:
        """The bytes of one connection, as they come."""
        try:
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
                    if self._decoder.done:
                        incoming.leave(_LAST_BYTES)
                        return
        finally:
            await incoming.aclose()

    def _taken(self, chunk: bytes) -> Sequence[Delta]:
        """The deltas that `chunk` completes and no reader has."""
        known = self._known - self._read
        self._read += len(chunk)
        if known <= 0:
            return self._decoder.feed(chunk)
        self._decoder.feed(chunk[:known])
        return self._decoder.feed(chunk[known:])
