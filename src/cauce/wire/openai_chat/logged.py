"""Chunks of a logged stream of the chat wire: what clients of it can resume, and cannot be shown what is taken back.

It differs from a stream without a log in this. The role comes with record 1, so that there is something to resume from. A tool call
comes whole. An answer that broke for good ends with `length` and says beside it that it is incomplete: what was shown of it stays, and
the same request under the same key brings the same end.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Delta, Failed, Finish, Restart, Status, Text, ToolCall
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_chat.errors import render_failed
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.tools import MODERN, AnswerStyle
from cauce.wire.openai_chat.usage import render_usage
from cauce.wire.sse import one_line
from cauce.wire.whole_calls import WholeCalls

INCOMPLETE: dict[str, Any] = {"cauce": {"incomplete": True}}
"""What stands beside an end that is none."""

CANCELLED = Failed("conflict", "the answer was cancelled")
ENDED_EARLY = Failed("internal", "the stream ended early")
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def data(body: dict[str, Any]) -> bytes:
    """One frame."""
    return one_line(b"data: " + _encode(body) + b"\n\n")


def broken(finish: Finish) -> bytes:
    """The last frame of an answer that failed or was cancelled."""
    failed = CANCELLED if finish.outcome == "cancelled" else ENDED_EARLY
    return data(render_failed(finish.error or failed))


def ended_early(fields: dict[str, Any], ends: Iterable[dict[str, Any]], usage: Usage | None) -> bytes:
    """The last frames of an answer of which there is a part: the end of each choice, what it used (None: nobody asked), `[DONE]`.

    `fields` stand in each of them.
    """
    out = [data({**fields, "choices": [end], **INCOMPLETE}) for end in ends]
    if usage is not None:
        out.append(data({**fields, "choices": [], "usage": render_usage(usage), **INCOMPLETE}))
    return b"".join([*out, DONE])


class LoggedChatProjector(ChatProjector):
    """Deltas in, chunks out: a fold without clock or randomness."""

    def __init__(self, head: Head, *, include_usage: bool = False, style: AnswerStyle = MODERN) -> None:
        super().__init__(head, include_usage=include_usage, style=style)
        self._whole = WholeCalls()
        self._over = False

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        return b"".join([self._frames(delta) for delta in deltas if not self._over])

    def _frames(self, delta: Delta) -> bytes:
        match delta:
            case Text():
                return super().feed((delta,))
            case Status("accepted"):
                out: list[bytes] = []
                self._open(Text(""), out)
                return one_line(b"".join(out))
            case ToolCall():
                return super().feed(self._whole.of(delta))
            case Restart():
                return self._cut(None)
            case Finish(outcome="incomplete", usage=usage):
                return self._cut(usage)
            case Finish(outcome="failed" | "cancelled"):
                self._over = True
                return broken(delta)
            case _:
                return super().feed((delta,))

    def _cut(self, usage: Usage | None) -> bytes:
        """The end of an answer of which there is a part."""
        self._over = True
        choices = sorted(self._roles)
        cited = [(choice, self._citations[choice]) for choice in choices if self._citations.get(choice)]
        ends: list[dict[str, Any]] = [{"index": choice, "delta": {}, "finish_reason": "length"} for choice in choices]
        sources = b"".join([self._chunk(choice, {"annotations": annotations}) for choice, annotations in cited])
        return sources + ended_early(self._head, ends, usage if self._include_usage else None)
