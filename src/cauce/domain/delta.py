"""A completion is a stream of these values; it ends with exactly one `Finish`.

Every delta has `choice` (0 unless several answers were asked for) and `extra` (fields only one wire knows). A delta with
`extra` is never joined with its neighbours.
"""

from typing import Any, Literal

import msgspec

from cauce.domain.errors import ErrorCode
from cauce.domain.extra import Extra
from cauce.domain.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
Outcome = Literal["completed", "incomplete", "failed", "cancelled"]
Level = Literal["primary", "fallback", "cache", "offline"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str
    choice: int = 0
    extra: Extra | None = None


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    text: str
    signature: str | None = None
    choice: int = 0
    extra: Extra | None = None


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """A piece of a tool call.

    `index` tells parallel calls apart. Pieces carry parts of the argument string; when all have come, one more with mark
    `ready` repeats the whole, so `ready` never stands without its pieces. `abandoned`: the attempt that made it broke.
    """

    index: int
    call_id: str
    name: str
    arguments: str
    mark: Literal["piece", "ready", "abandoned"] = "piece"
    choice: int = 0
    extra: Extra | None = None


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


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    """Readers discard the text and tool calls of records from `from_seq` on; later records replace them."""

    from_seq: int
    reason: str
    choice: int = 0
    extra: Extra | None = None


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """A block only one wire knows."""

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
    `completed` comes with `error`, except `cancelled`. `usage` sums all attempts.
    """

    reason: FinishReason
    usage: Usage = Usage()
    reasons: tuple[FinishReason, ...] = ()
    outcome: Outcome = "completed"
    error: Failed | None = None
    choice: int = 0
    extra: Extra | None = None


Delta = Text | Reasoning | ToolCall | ToolResult | Status | Attempt | Restart | Opaque | Finish


def delta_size(delta: Delta) -> int:
    """Characters a delta carries that a model or a tool wrote."""
    match delta:
        case Text(text) | Reasoning(text):
            return len(text)
        case ToolCall(arguments=arguments):
            return len(arguments)
        case ToolResult(content=content):
            return len(content)
        case _:
            return 0
