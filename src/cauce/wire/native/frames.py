"""Stream frames of the native wire: one JSON object per `data:` line, no `event:` lines, `id:` is the sequence number.

`data` is always what a simple client would show; everything else stands beside it. A stream ends once: with `complete`
(its `data` is the full text), `cancelled` (the text so far), or `error` with `final_error`. Where JSON was asked for, `content`
has now and then beside it what is there so far (`partial`), and `complete` has the whole (`parsed`).
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
    Finish,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.request import ResponseFormat
from cauce.wire.native.answer import attempt_name, cancel_reason, render_attempts, render_usage
from cauce.wire.native.partial import PartialJSON, whole
from cauce.wire.pieces import TOGETHER, Pieces
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode

RETRY_MS = 1000
"""Milliseconds a client should wait before it reconnects."""


def priming(cursor: int) -> bytes:
    """The block that opens a stream: a cursor exists before the first record, and nothing is dispatched."""
    return b"retry: %d\nid: %d\n\n" % (RETRY_MS, cursor)


class NativeProjector:
    """Deltas in, frames out: a fold without clock or randomness.

    Each delta gives exactly one frame. Frames up to sequence number `after` are folded but not handed out, so a reader that
    resumes gets the same bytes as one that never left. `resumed` opens with an unnumbered `start` frame.
    """

    def __init__(self, stream_id: str, *, epoch: int = 1, after: int = 0, resumed: bool = False) -> None:
        self._stream_id = stream_id
        self._epoch = epoch
        self._after = after
        self._seq = 0
        self._pieces = Pieces()
        self._text = self._pieces.new
        self._beside = array("I")
        """The numbers of what is no text: all others are, in their order, those of the text's pieces."""
        self._attempts: list[Attempt] = []
        self._opening = self._resumed() if resumed else b""
        head = _encode({"id": stream_id})[:-1]
        self._before_seq = b"\ndata: " + head + b',"seq":'
        self._before_text = b',"type":"content","data":'
        self._after_text = b',"epoch":%d}\n\n' % epoch

    def at_epoch(self, epoch: int) -> None:
        """What is fed from here on was written in `epoch`: a stream that was taken over has several."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._after_text = b',"epoch":%d}\n\n' % epoch

    @property
    def seq(self) -> int:
        """Sequence number of the last delta folded."""
        return self._seq

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The frames of `deltas`, ready to be written at once."""
        out = [self._opening] if self._opening else []
        self._opening = b""
        seq, after, texts = self._seq, self._after, self._text
        before_seq, before_text, after_text = self._before_seq, self._before_text, self._after_text
        for delta in deltas:
            seq += 1
            if type(delta) is Text:
                texts.append(delta.text)
                if seq > after:
                    # The line most streams consist of.
                    number = b"%d" % seq
                    out += (b"id: ", number, before_seq, number, before_text, _encode(delta.text), after_text)
                continue
            self._seq = seq
            self._other(delta, out)
        self._seq = seq
        if len(texts) >= TOGETHER:
            self._pieces.fold()
        return one_line(b"".join(out))

    def take(self, texts: Sequence[Text]) -> None:
        """Fold `texts`, whose frames somebody else has made for this stream, at the same place."""
        self._seq += len(texts)
        self._text.extend([delta.text for delta in texts])
        if len(self._text) >= TOGETHER:
            self._pieces.fold()

    def _other(self, delta: Delta, out: list[bytes]) -> None:
        """Any frame, the general way."""
        if type(delta) is not Refusal:
            self._beside.append(self._seq)
        kind, data, beside = self._frame(delta)
        if self._seq > self._after:
            frame = {
                "id": self._stream_id,
                "seq": self._seq,
                "type": kind,
                "data": data,
                "epoch": self._epoch,
                **beside,
            }
            out.append(b"id: %d\ndata: %s\n\n" % (self._seq, _encode(frame)))

    def _resumed(self) -> bytes:
        frame = {"id": self._stream_id, "type": "start", "data": "", "resumed": True}
        return b"data: " + _encode(frame) + b"\n\n"

    def _frame(self, delta: Delta) -> tuple[str, Any, dict[str, Any]]:
        """Type, data and what stands beside it."""
        match delta:
            case Status("accepted", _, facts):
                return "start", "", facts
            case Status(kind, detail, facts):
                return "status", detail, {"status": kind, **facts}
            case Attempt():
                return self._attempt(delta)
            case Text(text):
                return "content", text, {}
            case Refusal(text):
                self._text.append(text)
                return "content", text, {"refusal": True}
            case Citation(url, title, quote, start, end):
                facts = {"url": url, "title": title, "quote": quote, "start": start, "end": end}
                told = {name: value for name, value in facts.items() if value is not None}
                return "status", title or url or "", {"status": "citation", **told}
            case Reasoning(text):
                return "thinking", text, {}
            case ToolCall(_, call_id, name, arguments, mark):
                return "tool_call", {"call_id": call_id, "name": name, "arguments": arguments}, {"mark": mark}
            case ToolResult(call_id, name, content, error):
                data = {"call_id": call_id, "name": name, "content": content}
                return "tool_result", data, {} if error is None else {"error": error}
            case Restart(from_seq, reason):
                self._take_back(from_seq)
                return "status", reason, {"status": "restart", "from_seq": from_seq}
            case Opaque(wire):
                return "status", "", {"status": "opaque", "wire": wire}
            case Finish():
                return self._finish(delta)
            case _:
                assert_never(delta)

    def _take_back(self, from_seq: int) -> None:
        """Forget the text of records `from_seq` and later."""
        others = bisect_left(self._beside, from_seq)
        self._pieces.cut(max(0, from_seq - 1 - others))
        self._beside[others:] = array("I", range(from_seq, self._seq + 1))

    def _attempt(self, attempt: Attempt) -> tuple[str, Any, dict[str, Any]]:
        self._attempts.append(attempt)
        beside: dict[str, Any] = {"provider": attempt.provider, "model": attempt_name(attempt), "level": attempt.level}
        if attempt.reason is None:
            asking = "An answer kept from" if attempt.level == "cache" else "Asking"
            return "status", f"{asking} {attempt_name(attempt)}", {"status": "attempt", **beside}
        retries = sum([1 for other in self._attempts if other.step == attempt.step]) - 1
        return (
            "error",
            attempt.reason,
            {
                "retrying": True,
                "retry_count": retries,
                "error_code": attempt.reason_code,
                "strategy": attempt.strategy,
                **beside,
            },
        )

    def _finish(self, finish: Finish) -> tuple[str, Any, dict[str, Any]]:
        text = self._pieces.text
        usage = msgspec.to_builtins(render_usage(finish.usage))
        last = self._attempts[-1] if self._attempts else None
        match finish.outcome:
            case "completed":
                return (
                    "complete",
                    text,
                    {
                        "finish_reason": finish.reason,
                        "usage": usage,
                        "cost": finish.usage.cost,
                        "cost_source": finish.usage.cost_source,
                        "model": attempt_name(last) if last is not None else None,
                        "level": last.level if last is not None else None,
                        "attempts": msgspec.to_builtins(render_attempts(self._attempts)),
                        **self._beside_whole(text),
                    },
                )
            case "cancelled":
                return (
                    "cancelled",
                    text,
                    {"reason": cancel_reason(finish), "finish_reason": "cancelled", "usage": usage},
                )
            case "incomplete" | "failed":
                error = finish.error
                beside: dict[str, Any] = {
                    "final_error": True,
                    "error_code": error.code if error is not None else "internal",
                    "finish_reason": "error",
                    "partial": text,
                    "usage": usage,
                }
                if error is not None and error.retry_after is not None:
                    beside["retry_after"] = error.retry_after
                return "error", error.message if error is not None else "the stream ended early", beside

    def _beside_whole(self, text: str) -> dict[str, Any]:
        """What stands beside the full text."""
        return {}


class StructuredProjector(NativeProjector):
    """The same for answers that are to be JSON."""

    def __init__(self, stream_id: str, *, epoch: int = 1, after: int = 0, resumed: bool = False) -> None:
        super().__init__(stream_id, epoch=epoch, after=after, resumed=resumed)
        self._partial = PartialJSON()

    def _frame(self, delta: Delta) -> tuple[str, Any, dict[str, Any]]:
        if isinstance(delta, Restart):
            self._partial.restart(delta.from_seq)
        return super()._frame(delta)

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        out = [self._opening] if self._opening else []
        self._opening = b""
        before_seq, before_text, after_text = self._before_seq, self._before_text, self._after_text
        for delta in deltas:
            self._seq += 1
            if type(delta) is not Text:
                self._other(delta, out)
                continue
            self._text.append(delta.text)
            seen = self._partial.feed(self._seq, delta.text)
            if self._seq > self._after:
                number = b"%d" % self._seq
                out += (b"id: ", number, before_seq, number, before_text, _encode(delta.text))
                if seen:
                    out += (b',"partial":', seen)
                out.append(after_text)
        if len(self._text) >= TOGETHER:
            self._pieces.fold()
        return one_line(b"".join(out))

    def _beside_whole(self, text: str) -> dict[str, Any]:
        value = whole(text)
        return {} if value is None else {"parsed": value}


def projector(
    stream_id: str, wanted: ResponseFormat | None, *, epoch: int = 1, after: int = 0, resumed: bool = False
) -> NativeProjector:
    """The projector for answers to requests that ask for `wanted`."""
    kind = NativeProjector if wanted is None or wanted.kind == "text" else StructuredProjector
    return kind(stream_id, epoch=epoch, after=after, resumed=resumed)
