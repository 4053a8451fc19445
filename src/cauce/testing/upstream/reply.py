"""What a test scripts, in words of no wire; and what every wire makes of it: bodies, and the steps of a stream."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

SIGNATURE = "c2lnbmVkIGJ5IHRoZSBmYWtl"
"""What reasoning is signed with unless a reply says otherwise; base64, since one wire asks for that."""


class Tokens(msgspec.Struct, frozen=True):
    """Usage. `input` includes `cached` and `cache_write`, `output` includes `reasoning`; each wire counts its own way."""

    input: int = 7
    output: int = 5
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Reply(msgspec.Struct, frozen=True):
    """How one request is answered.

    `reasoning` and `text` come as deltas, one word each, then `tool_calls` as `(name, arguments)`: three deltas each, the
    opening and two halves of the arguments (one delta on Gemini's wire, where calls come whole). `refusal` is what the wire
    says when it refuses.
    `finish_reason` is `stop`, `length` or `content_filter`, said in the wire's word; any other word is sent as it is.
    `usage` is `Tokens`, or what is sent in its place as it is; None leaves it out.

    `cut_after` closes the connection (`reset`: with RST) after that many deltas, `stall_after` goes silent after that many, `ends_after`
    ends the body there, cleanly and without what the wire says at its end,
    `error_after` sends `error` in the wire's in-band form after that many and ends; they count before the first delta as 0.
    `garbled_after` sends `garbage` in place of the delta after that many, and goes on as if nothing had been.
    `raw` replaces the body, `chunks` the stream's data payloads. `message` adds fields to a plain chat message.
    Of a plain answer they cut and stall behind its head. `truncated` is a plain body, in place of a stream too, whose second half
    does not come.
    """

    text: str = "Hello from upstream."
    status: int = 200
    headers: dict[str, str] = {}
    reasoning: str = ""
    signature: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    finish_reason: str = "stop"
    usage: Any = Tokens()
    embedding: tuple[tuple[float, ...], ...] = ((0.5, -0.25, 0.125),)
    """The vectors of the inputs, in turn."""
    error: dict[str, Any] | None = None
    error_after: int | None = None
    retry_after: float | None = None
    """Seconds, told as the wire tells them: a header, or Gemini's `RetryInfo`."""
    cut_after: int | None = None
    stall_after: int | None = None
    ends_after: int | None = None
    garbled_after: int | None = None
    garbage: bytes = b'data: {"broken": \n\n'
    """Bytes of the body, framing included."""
    truncated: bool = False
    silent: bool = False
    delay: float = 0.0
    """Seconds before the head."""
    pace: float = 0.0
    """Seconds before each delta and each later piece."""
    reset: bool = False
    raw: bytes | None = None
    chunks: tuple[bytes, ...] | None = None
    message: dict[str, Any] = {}
    gate: asyncio.Semaphore | None = None
    """Acquired once before each delta and each later piece: release it to let one through."""

    @property
    def signed(self) -> str:
        """The signature of the reasoning; empty if there is none."""
        if self.signature is not None:
            return self.signature
        return SIGNATURE if self.reasoning else ""

    @property
    def tokens(self) -> Tokens | None:
        """The usage, if it is in our words."""
        return self.usage if isinstance(self.usage, Tokens) else None


class Ask(msgspec.Struct, frozen=True):
    """A request, as a wire's module needs it. `path` has no query; `query` is what stood behind the question mark.

    `wire` is chat, completions, responses, anthropic or gemini; empty for what is no generation.
    """

    path: str
    query: str
    body: dict[str, Any]
    wire: str = ""
    streamed: bool = False
    response_id: str = ""
    """What its answer is known by, where that is kept."""

    @property
    def model(self) -> str:
        """The model that is asked for: in the body, or on Gemini's wire in the path."""
        named = self.body.get("model")
        return named if isinstance(named, str) else unquote(self.path.rpartition("/models/")[2].partition(":")[0])


Answer = Reply | Callable[[Ask], Reply]
"""A reply, or what makes one of the request."""


class Steps(msgspec.Struct, frozen=True):
    """A stream as framed bytes: before the first delta, the deltas, what follows the last one."""

    opening: tuple[bytes, ...] = ()
    deltas: tuple[bytes, ...] = ()
    closing: tuple[bytes, ...] = ()


def _never(ask: Ask) -> bool:
    return False


def _no_stream(reply: Reply, ask: Ask) -> Steps:
    raise AssertionError(f"{ask.path} has no streams")


def _no_frames(payloads: tuple[bytes, ...], ask: Ask) -> Steps:
    raise AssertionError(f"{ask.path} has no streams")


class Wire(msgspec.Struct, frozen=True):
    """What says a `Reply` in one wire's words."""

    plain: Callable[[Reply, Ask], dict[str, Any]]
    """The body of a plain answer."""
    failure: Callable[[Reply], dict[str, Any]]
    """The body of an error."""
    streams: Callable[[Ask], bool] = _never
    """Whether the request asks for a stream."""
    stream: Callable[[Reply, Ask], Steps] = _no_stream
    """A streamed answer, ended by `error` after `error_after` deltas if the reply says so."""
    frames: Callable[[tuple[bytes, ...], Ask], Steps] = _no_frames
    """Scripted data payloads, framed, each as one delta."""
    kind: Callable[[Ask], str] = lambda ask: "text/event-stream"
    """The content type of a stream."""
    retry_header: bool = True
    """Whether a Retry-After header says when to come again."""


def words(text: str) -> list[str]:
    """The deltas of a text: a word each, with the space behind it."""
    parts = text.split(" ") if text else []
    return [part if place == len(parts) - 1 else part + " " for place, part in enumerate(parts)]


def halves(arguments: str) -> tuple[str, str]:
    """The pieces in which the arguments of a tool call come."""
    half = len(arguments) // 2
    return arguments[:half], arguments[half:]


def decoded(arguments: str) -> dict[str, Any]:
    """Arguments as an object; empty where they are none."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def called(reply: Reply) -> bool:
    """Whether the turn ends with tool calls, unless the reply says how it ends."""
    return bool(reply.tool_calls) and reply.finish_reason == "stop"
