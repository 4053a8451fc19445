"""A completion is a stream of these values; it ends with exactly one `Finish`.

Every delta has `choice` (0 unless several answers were asked for) and `extra` (fields only one wire knows). A delta with
`extra` is never joined with its neighbours.
"""

from typing import Any, Literal

import msgspec

from cauce.domain.citation import Citation
from cauce.domain.errors import ErrorCode
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
Outcome = Literal["completed", "incomplete", "failed", "cancelled"]
Level = Literal["primary", "fallback", "cache", "offline"]
CacheUse = Literal["none", "miss", "hit", "stale"]
"""What the cache did for a request: it was not asked, had nothing, gave its answer, or one that is older than wanted."""


class TokenLogprob(msgspec.Struct, frozen=True):
    """One token of a text and its log probability; `top` are the alternatives. `bytes` are the token's, as UTF-8."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple["TokenLogprob", ...] = ()


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text. `begins`: a new part of the answer begins here, though the one before it is text too."""

    text: str
    choice: int = 0
    extra: Extra | None = None
    begins: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """A piece of the model's words for why it does not answer."""

    text: str
    choice: int = 0
    extra: Extra | None = None


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """A piece of reasoning. Its signature comes with the last piece, which may have no text."""

    text: str
    signature: Signature | None = None
    choice: int = 0
    extra: Extra | None = None
    begins: bool = False


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """A piece of a tool call.

    `index` tells parallel calls apart. Pieces carry parts of the argument string; when all have come, one more with mark
    `ready` repeats the whole, so `ready` never stands without its pieces. `abandoned`: the attempt that made it broke.
    A signature stands on the first piece and on `ready`.
    """

    index: int
    call_id: str
    name: str
    arguments: str
    mark: Literal["piece", "ready", "abandoned"] = "piece"
    choice: int = 0
    extra: Extra | None = None
    signature: Signature | None = None


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """The result of a tool that we ran."""

    call_id: str
    name: str
    content: str
    error: str | None = None
    choice: int = 0
    extra: Extra | None = None


class Status(msgspec.Struct, frozen=True, tag="status"):
    """What is going on while no content comes: `accepted`, `waiting`, `seam`, `tool_started`, …

    `facts` stand beside it for programs: queue place, model, created.
    """

    kind: str
    detail: str = ""
    facts: dict[str, Any] = {}
    choice: int = 0
    extra: Extra | None = None


class Attempt(msgspec.Struct, frozen=True, tag="attempt"):
    """From here on this provider and model speak. `reason` says why the attempt before broke (None: first of its step)."""

    n: int
    provider: str
    model: str
    level: Level
    step: int = 1
    strategy: str = "open"
    reason: str | None = None
    reason_code: ErrorCode | None = None
    choice: int = 0
    extra: Extra | None = None
    deployment: str = ""
    """Which of the provider's keys or places it is, for its bill: readers are not told."""
    missed: bool = False
    """The cache was asked before, and had nothing."""
    age: int | None = None
    """Seconds since the answer was made, where it is one of before: not in records of earlier versions."""

    @property
    def cache(self) -> CacheUse:
        """What the cache did: with `hit` and `stale` nobody was asked."""
        if self.strategy == "stale":
            return "stale"
        if self.level == "cache" or self.strategy == "shared":
            return "hit"
        return "miss" if self.missed else "none"


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    """Readers discard the text and tool calls of records from `from_seq` on; later records replace them."""

    from_seq: int
    reason: str
    choice: int = 0
    extra: Extra | None = None


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """A block, or an event about one, that only one wire knows. `data` says which, the way that wire's codec decides."""

    wire: str
    data: dict[str, Any]
    choice: int = 0
    extra: Extra | None = None


class Failed(msgspec.Struct, frozen=True):
    """The error that ended a stream, as a value."""

    code: ErrorCode
    message: str
    retry_after: float | None = None


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """The end.

    `reason` is that of choice 0; `reasons` lists all of them when several answers were asked for. `outcome` other than
    `completed` comes with `error`, except `cancelled`, whose `cause` is told where somebody asked for it: `requested`, `abandoned`.
    `usage` sums all attempts.
    """

    reason: FinishReason
    usage: Usage = Usage()
    reasons: tuple[FinishReason, ...] = ()
    outcome: Outcome = "completed"
    error: Failed | None = None
    choice: int = 0
    extra: Extra | None = None
    cause: str = ""
    at: int | None = None
    """When a completed answer ended, in UNIX seconds, as whoever keeps it says: it is the same whenever it is read."""

    def using(self, usage: Usage) -> "Finish":
        """The same end with another usage."""
        return Finish(
            self.reason, usage, self.reasons, self.outcome, self.error, self.choice, self.extra, self.cause, self.at
        )

    def kept(self, now: float) -> "Finish":
        """The same end as it is kept at `now` (UNIX, in seconds)."""
        return msgspec.structs.replace(self, at=int(now)) if self.outcome == "completed" else self


Delta = Text | Refusal | Reasoning | ToolCall | ToolResult | Citation | Status | Attempt | Restart | Opaque | Finish


def delta_size(delta: Delta) -> int:
    """Characters a delta carries that a model or a tool wrote."""
    match delta:
        case Text(text) | Reasoning(text) | Refusal(text):
            return len(text)
        case ToolCall(arguments=arguments):
            return len(arguments)
        case ToolResult(content=content):
            return len(content)
        case _:
            return 0
