"""A transport that answers what a test says, in turn."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from cauce.client.connect import Connection
from cauce.client.progress import Progress
from cauce.client.reconnect import Reconnect
from cauce.client.stream import Asked, Session, Stream
from cauce.domain.errors import ProviderFailure
from cauce.ports.clock import Clock
from cauce.ports.line import Line
from cauce.transport import MAX_BODY, Incoming, Outgoing

BASE = "http://x"
USAGE = {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0}
END = {"finish_reason": "stop", "usage": USAGE, "cost": 0.0, "cost_source": "unpriced", "model": "a/b", "attempts": []}


def frame(seq: int | None, kind: str, data: Any, **beside: Any) -> bytes:
    """A frame, as a server writes it."""
    number = {} if seq is None else {"seq": seq}
    return (
        b"data: "
        + msgspec.json.encode({"id": "s", **number, "type": kind, "data": data, "epoch": 1, **beside})
        + b"\n\n"
    )


START = frame(1, "start", "", model="auto", created=5)


def complete(seq: int, text: str, **beside: Any) -> bytes:
    return frame(seq, "complete", text, **{**END, **beside})


def lost(why: str = "reset") -> ProviderFailure:
    """What the transport raises when a connection breaks."""
    return ProviderFailure(why, failure="transient", provider="cauce")


class Answered:
    """See `port.Incoming`. After its pieces the connection ends, or breaks with `error`."""

    def __init__(
        self,
        *pieces: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        error: Exception | None = None,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"x-cauce-request-id": "req_1", **(headers or {})}
        self.closed = False
        self._pieces = pieces
        self._error = error

    async def read(self, limit: int = MAX_BODY) -> bytes:
        return b"".join(self._pieces)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._pieces:
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True

    def leave(self, seconds: float) -> None:
        return None

    async def aclose(self) -> None:
        self.closed = True


def refusal(status: int, code: str, **facts: Any) -> Answered:
    body = {"error": "no", "error_code": code, "request_id": "req_1", **facts}
    return Answered(msgspec.json.encode(body), status=status)


Reaction = Answered | Exception | Callable[[], Awaitable[Incoming]]


class ScriptedTransport:
    """See `port.Transport`. Without a reaction left every request fails."""

    def __init__(self, *reactions: Reaction) -> None:
        self._reactions = list(reactions)
        self.asked: list[str] = []
        self.sent: list[Outgoing] = []

    async def send(self, outgoing: Outgoing) -> Incoming:
        self.asked.append(f"{outgoing.method} {outgoing.url.removeprefix(f'{BASE}/chat/stream')}")
        self.sent.append(outgoing)
        reaction = self._reactions.pop(0) if self._reactions else lost("refused")
        if isinstance(reaction, Exception):
            raise reaction
        return reaction if isinstance(reaction, Answered) else await reaction()

    def line(self, url: str) -> Line:
        raise NotImplementedError

    async def aclose(self) -> None:
        return None


class HighestDice:
    """Waits are never shortened."""

    def random(self) -> float:
        return 1.0


def session(transport: ScriptedTransport, clock: Clock, reconnect: Reconnect | None = None) -> Session:
    connection = Connection(BASE, None, None, transport)
    return Session(connection, reconnect or Reconnect(base=0, most=0), clock, HighestDice())


def streamed(session: Session, on_progress: Callable[[Progress], None] | None = None, **asked: Any) -> Stream:
    """A stream with the id `s` that is begun, or read on if `body` is None."""
    return Stream(session, Asked(**{"id": "s", "body": b"{}", **asked}), on_progress)
