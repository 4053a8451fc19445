"""Answers of this wire, written from deltas: the chunks of a UI message stream."""

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
    Finish,
    FinishReason,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.stream import Head
from cauce.wire.native.answer import attempt_name, cancel_reason, render_attempts, render_usage
from cauce.wire.pieces import TOGETHER
from cauce.wire.sse import one_line
from cauce.wire.ui_messages.parts import Parts, chunk
from cauce.wire.ui_messages.shown import Content, Shown

HEADER = b"x-vercel-ai-ui-message-stream"
VERSION = b"v1"

DONE = b"data: [DONE]\n\n"

_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "cancelled": "other",
    "error": "error",
}
_AFTER_TEXT = b"}\n\n"
_encode = msgspec.json.Encoder().encode


def projector_of(head: Head) -> "UIProjector":
    """The projector for the stream of `head`."""
    last = head.request.messages[-1] if head.request.messages else None
    # What comes after a tool's result goes on in the message that has the call, which is one its reader knows the id of.
    continues = last is not None and last.role in ("tool", "assistant")
    return UIProjector(head.key.id, None if continues else head.key.id)


class UIProjector:
    """Deltas in, chunks out: a fold without clock or randomness. Feed it a stream's deltas from the first on.

    `message_id` is the one of the message that this makes; None: it goes on with the message its reader has.

    A step of the message is opened where a step of the answer begins: that is how far its reader can go back. What a `Restart`
    takes back there is dropped by `reset-step`, and what stands before it is sent anew.
    """

    def __init__(self, stream_id: str, message_id: str | None = None) -> None:
        self._stream_id = stream_id
        self._message_id = message_id
        self._parts = Parts()
        self._attempts: list[Attempt] = []
        self._sources: set[tuple[str, str]] = set()
        self._cited = 0
        self._step = 1
        self._seq = 0
        self._shown = Shown()
        """What of the step its reader has."""
        self._started = False
        self._stepping = False
        self._restarted = False
        self._ended = False

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The chunks of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        parts, shown = self._parts, self._shown
        texts = shown.texts
        for delta in deltas:
            self._seq += 1
            if type(delta) is Text and parts.before_text and not (delta.begins or delta.choice):
                # The chunk most streams consist of: only the text differs from one to the next.
                texts.append(delta.text)
                if delta.text:
                    out.append(parts.before_text + _encode(delta.text) + _AFTER_TEXT)
                continue
            if texts:
                shown.end(self._seq)
            if not (self._ended or delta.choice):
                self._render(delta, out)
        if len(texts) >= TOGETHER:
            shown.end(self._seq + 1)
        return one_line(b"".join(out))

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Status("accepted", _, facts):
                self._start(out, facts)
            case Status("withdrawn"):
                # Of an answer that is shown whole this was taken back before anybody saw it.
                pass
            case Status(kind, detail, facts):
                self._tell(out, kind, detail, facts)
            case Attempt():
                self._attempt(delta, out)
            case Text() | Refusal() | Reasoning() | ToolCall() | ToolResult() | Citation():
                self._shown.add(self._seq, delta)
                self._content(delta, out)
            case Restart():
                self._restart(delta, out)
            case Finish():
                self._finish(delta, out)
            case Opaque():
                # No place for it on this wire.
                pass
            case _:
                assert_never(delta)

    def _start(self, out: list[bytes], facts: dict[str, Any]) -> None:
        """`start`, once."""
        if not self._started:
            self._started = True
            named = {} if self._message_id is None else {"messageId": self._message_id}
            out.append(chunk("start", **named, messageMetadata={"stream_id": self._stream_id, **facts}))

    def _tell(self, out: list[bytes], status: str, detail: str, facts: dict[str, Any]) -> None:
        """News that is no part of the message."""
        self._start(out, {})
        out.append(chunk("data-status", data={**facts, "status": status, "detail": detail}, transient=True))

    def _attempt(self, attempt: Attempt, out: list[bytes]) -> None:
        if attempt.step != self._step:
            self._end_step(out)
            self._step = attempt.step
        self._parts.close_reasoning(out)
        self._attempts.append(attempt)
        name = attempt_name(attempt)
        facts: dict[str, Any] = {"provider": attempt.provider, "model": name, "level": attempt.level, "n": attempt.n}
        if attempt.reason is None:
            asking = "An answer kept from" if attempt.level == "cache" else "Asking"
            self._tell(out, "attempt", f"{asking} {name}", facts)
        else:
            told = {"error_code": attempt.reason_code, "strategy": attempt.strategy, **facts}
            self._tell(out, "retrying", attempt.reason, told)

    def _content(self, delta: Content, out: list[bytes]) -> None:
        self._begin_step(out)
        parts = self._parts
        match delta:
            case Text(text, begins=begins):
                if text or begins:
                    parts.text(text, out, begins=begins)
            case Refusal(text):
                if text:
                    parts.text(text, out, refusal=True)
            case Reasoning(text, signature, begins=begins):
                if text or signature is not None:
                    parts.reasoning(text, signature, out, begins=begins)
            case ToolCall():
                parts.call(delta, out)
            case ToolResult(call_id, _, content, error):
                parts.result(call_id, content, error, out)
            case Citation():
                self._source(delta, out)
            case _:
                assert_never(delta)

    def _source(self, citation: Citation, out: list[bytes]) -> None:
        """A source, once for the message however often it is cited."""
        source = (citation.url or "", citation.title or "")
        if source in self._sources or not any(source):
            return
        self._sources.add(source)
        self._cited += 1
        number = f"source-{self._cited}"
        title = {"title": citation.title} if citation.title else {}
        if citation.url:
            out.append(chunk("source-url", sourceId=number, url=citation.url, **title))
        else:
            out.append(chunk("source-document", sourceId=number, mediaType="text/plain", **title))

    def _begin_step(self, out: list[bytes]) -> None:
        if not self._stepping:
            self._start(out, {})
            self._stepping = True
            out.append(chunk("start-step"))

    def _end_step(self, out: list[bytes]) -> None:
        self._parts.close_all(out)
        self._shown.clear()
        if self._stepping:
            self._stepping = False
            out.append(chunk("finish-step"))

    def _restart(self, restart: Restart, out: list[bytes]) -> None:
        """Go back to record `from_seq`, or to the beginning of the step where that lies further back."""
        self._restarted = True
        if self._shown.cut(restart.from_seq):
            out.append(chunk("reset-step"))
            self._parts.reset()
            self._sources.clear()
            for delta in self._shown.deltas:
                self._content(delta, out)
        self._tell(out, "restart", restart.reason, {"from_seq": restart.from_seq})

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        self._ended = True
        self._start(out, {})
        self._end_step(out)
        facts = self._facts(finish)
        error = finish.error
        if finish.outcome == "completed":
            out.append(chunk("finish", finishReason=_REASONS[finish.reason], messageMetadata=facts))
        else:
            # Nothing after `error` is read.
            out.append(chunk("message-metadata", messageMetadata=facts))
            if finish.outcome == "cancelled":
                out.append(chunk("abort", reason=cancel_reason(finish)))
            else:
                text = error.message if error is not None else "the stream ended early"
                out.append(chunk("error", errorText=text))
        out.append(DONE)

    def _facts(self, finish: Finish) -> dict[str, Any]:
        """What the message's metadata says of a whole answer, in the words of the native wire."""
        usage = finish.usage
        facts: dict[str, Any] = {
            "outcome": finish.outcome,
            "finish_reason": finish.reason,
            "usage": msgspec.to_builtins(render_usage(usage)),
            "cost": usage.cost,
            "cost_source": usage.cost_source,
            "attempts": msgspec.to_builtins(render_attempts(self._attempts)),
        }
        if self._attempts:
            last = self._attempts[-1]
            facts |= {"provider": last.provider, "model": attempt_name(last), "level": last.level}
        if self._restarted:
            facts["restarted"] = True
        if finish.error is not None:
            facts["error_code"] = finish.error.code
            if finish.error.retry_after is not None:
                facts["retry_after"] = finish.error.retry_after
        return facts
